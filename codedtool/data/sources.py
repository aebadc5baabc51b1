"""Data sets by name: the one door to all of them."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

from codedtool.budget import Progress, silent
from codedtool.data.augmentation import Augmentation
from codedtool.data.split import ImageData
from codedtool.errors import InputError

# How a name is written -> whether something follows the colon.
_KINDS = {"cifar10": False, "cifar100": False, "folder": True, "digits": False, "synthetic": True}
_NAMES = "cifar10, cifar100, folder:PATH, digits or synthetic:K"

_MAX_SYNTHETIC = 10_000


def load_dataset(
    name: str,
    *,
    data_dir: Path = Path("data"),
    download: bool = True,
    skip_bad_images: bool = False,
    val_only: bool = False,
    progress: Progress = silent,
) -> ImageData:
    """Find, fetch or make a data set.

    Args:
        name: cifar10, cifar100, folder:PATH, digits or synthetic:K.
        data_dir: where CIFAR lies, or is put.
        download: fetch CIFAR where it is missing.
        skip_bad_images: leave unreadable images of a folder out, with a warning that counts them, instead of stopping.
        val_only: a folder needs no train/; its training split is empty.
        progress: where to report.

    Raises:
        InputError: an unknown name (the nearest is named), no data (what was looked for, where, and the fix), class
            lists that differ between train and val, a class without images, an unreadable image.
    """
    kind, rest = _parse(name)
    if kind == "folder":
        from codedtool.data.folder import load_folder

        path = Path(rest).expanduser()
        return load_folder(path, skip_bad_images=skip_bad_images, val_only=val_only, progress=progress)
    if kind == "digits":
        from codedtool.data.small import load_digits

        return load_digits()
    if kind == "synthetic":
        from codedtool.data.small import make_synthetic

        return make_synthetic(_synthetic_classes(rest))
    from codedtool.data.cifar import load_cifar

    return load_cifar(kind, data_dir=data_dir, download=download, progress=progress)


def augmentation_for(data: ImageData) -> Augmentation:
    """The augmentation that a data set is trained with unless told otherwise (section 4.1, appendix B).

    CIFAR and folders: the paper's. Digits: a shift of a pixel, and no flip, for no digit is its mirror image.
    Synthetic images: none.
    """
    kind, _ = _parse(data.name)
    settings: dict[str, dict[str, Any]] = {
        "cifar10": {"crop_padding": 4, "flip": 0.5, "randaugment": "rand-m4-n3"},
        "cifar100": {"crop_padding": 4, "flip": 0.5, "randaugment": "rand-m2-n1"},
        "folder": {
            "random_resized_crop": True,
            "flip": 0.5,
            "randaugment": "rand-m7-mstd0.5-inc1",
            "erasing": 0.4,
            "erasing_count": 3,
        },
        "digits": {"crop_padding": 1},
        "synthetic": {},
    }
    return Augmentation(normalization=data.normalization, **settings[kind])


def _parse(name: str) -> tuple[str, str]:
    """(kind, what follows the colon) of a data set's name."""
    kind, colon, rest = name.partition(":")
    if kind not in _KINDS:
        near = difflib.get_close_matches(kind.lower(), list(_KINDS), n=1, cutoff=0.4)
        if not near and Path(name).is_dir():
            raise InputError(f"data set {name!r} is unknown; for the images in that folder write folder:{name}")
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise InputError(f"data set {name!r} is unknown; {hint}Known: {_NAMES}")
    if _KINDS[kind] and not rest:
        raise InputError(f"data set {name!r} lacks what follows the colon; write {_NAMES}")
    if not _KINDS[kind] and colon:
        raise InputError(f"data set {name!r}: nothing may follow {kind}; write {kind}")
    return kind, rest


def _synthetic_classes(text: str) -> int:
    """K of synthetic:K."""
    if not text.isdecimal() or not 2 <= int(text) <= _MAX_SYNTHETIC:
        raise InputError(f"synthetic:{text}: K must be a whole number from 2 to {_MAX_SYNTHETIC}, such as synthetic:10")
    return int(text)
