"""Data sets by name."""

from __future__ import annotations

import difflib
from pathlib import Path

from codedtool.budget import Progress, silent
from codedtool.data.split import ImageData, with_fingerprint
from codedtool.errors import InputError
from codedtool.files import expanded, is_dir

# First part of a name -> whether a colon and something else follow.
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
    split: float = 0.0,
    split_seed: int = 0,
    progress: Progress = silent,
) -> ImageData:
    """Find, fetch or make a data set.

    Args:
        name: cifar10, cifar100, folder:PATH, digits or synthetic:K.
        data_dir: folder of CIFAR, which is fetched into it.
        download: fetch CIFAR if it is missing.
        skip_bad_images: skip unreadable images of a folder, with a warning that counts them, instead of stopping.
        val_only: read only val/ of a folder; the training split is then empty.
        split, split_seed: make a validation part of a folder that has none, as `codedtool.data.folder.load_folder`.
        progress: called with the state of the work.

    Raises:
        InputError: an unknown name (the message names the nearest one), missing data (the message says how to get
            it), class lists that differ between train and val, a class without images, or an unreadable image.

    Example:
        >>> data = load_dataset("digits")
        >>> len(data.train), len(data.val), data.train.images.shape
        (1433, 364, (1433, 8, 8, 3))
        >>> data.classes[:3]
        ('0', '1', '2')
    """
    kind, rest = _parse(name)
    if kind == "folder":
        from codedtool.data.folder import load_folder

        path = expanded(rest)
        return load_folder(
            path,
            skip_bad_images=skip_bad_images,
            val_only=val_only,
            split=split,
            split_seed=split_seed,
            progress=progress,
        )
    if kind == "digits":
        from codedtool.data.small import load_digits

        return with_fingerprint(load_digits())
    if kind == "synthetic":
        from codedtool.data.small import make_synthetic

        return with_fingerprint(make_synthetic(_synthetic_classes(rest)))
    from codedtool.data.cifar import load_cifar

    return with_fingerprint(load_cifar(kind, data_dir=data_dir, download=download, progress=progress))


def _parse(name: str) -> tuple[str, str]:
    """Split a data set's name into its kind and the part after the colon."""
    kind, colon, rest = name.partition(":")
    if kind not in _KINDS:
        near = difflib.get_close_matches(kind.lower(), list(_KINDS), n=1, cutoff=0.4)
        if not near and is_dir(Path(name)):
            raise InputError(f"data set {name!r} is unknown; to read the images of this folder, write folder:{name}")
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise InputError(f"data set {name!r} is unknown; {hint}Known: {_NAMES}")
    if _KINDS[kind] and not rest:
        raise InputError(f"data set {name!r} lacks the part after the colon; write {_NAMES}")
    if not _KINDS[kind] and colon:
        raise InputError(f"data set {name!r}: nothing may follow {kind}; write {kind}")
    return kind, rest


def _synthetic_classes(text: str) -> int:
    """Read K of synthetic:K."""
    if not text.isdecimal() or not 2 <= int(text) <= _MAX_SYNTHETIC:
        raise InputError(f"synthetic:{text}: K must be a whole number from 2 to {_MAX_SYNTHETIC}, such as synthetic:10")
    return int(text)
