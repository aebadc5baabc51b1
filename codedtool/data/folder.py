"""`folder:PATH`: images in class folders below train/ and val/ (ImageNet's layout), in memory if they fit."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from codedtool.budget import Progress, usable_cores
from codedtool.data.augmentation import Normalization
from codedtool.data.listing import (
    LeftOut,
    Listing,
    fingerprint_of_files,
    image_endings,
    image_formats,
    list_images,
    relative_names,
    walk_images,
)
from codedtool.data.split import ImageData, Split
from codedtool.errors import InputError
from codedtool.files import absolute, is_dir

IMAGENET_NORMALIZATION = Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

# Images of one size are kept decoded in memory up to this many bytes, both splits together.
MEMORY_LIMIT = 1 << 30

# `survey_folder` counts images up to this number, unless it is asked for all.
COUNT_LIMIT = 100_000

# Number of images whose size is compared before all images are decoded.
_NUM_PROBES = 32

# Images of each folder, spread over it, among which those are chosen.
_NUM_SAMPLED = 8

_LAYOUT = (
    "it must hold train/CLASS/IMAGE and val/CLASS/IMAGE; name a folder that does by `data` folder:PATH, or set a part "
    "of its images aside for validation with `split` 0.2, or use `data` synthetic:K, which needs no files"
)


class _SizesDifferError(Exception):
    """An image does not have the size of the first one."""


def load_folder(
    path: Path,
    *,
    skip_bad_images: bool,
    val_only: bool = False,
    split: float = 0.0,
    split_seed: int = 0,
    progress: Progress,
) -> ImageData:
    """Find the images below ``path``/train and ``path``/val; the classes are the sorted names of their folders.

    With ``split`` and without a folder val, a part of every class's images below ``path``/train (or below ``path``, if
    there is no train either) is for validation.

    If all images have one size and fit into `MEMORY_LIMIT`, they are decoded now, in threads; otherwise each file is
    read when a batch needs it.

    Args:
        path: the folder.
        skip_bad_images: skip unreadable images, with a warning that counts them.
        val_only: do not read ``path``/train; the training split is empty.
        split: part of every class's images that is for validation where there is no folder val, 0..1; 0: none.
        split_seed: seed of the choice of that part.
        progress: called with the state of the work.

    Raises:
        InputError: a missing folder, class lists that differ, a class without images, or an unreadable image.
    """
    if not is_dir(path):
        raise InputError(f"folder:{path}: no folder {absolute(path)}; {_LAYOUT}")
    digest = ""
    if split > 0 and not val_only and not is_dir(path / "val"):
        root = val_root = path / "train" if is_dir(path / "train") else path
        found = _find(root, progress)
        classes, left_out = found.classes, found.left_out
        is_val = _chosen_for_validation(root, classes, found.targets, split, split_seed)
        train_files, val_files = ([found.files[one] for one in np.flatnonzero(part)] for part in (~is_val, is_val))
        train_targets, val_targets = found.targets[~is_val], found.targets[is_val]
        digest = _digest(root, train_files, val_files)
    else:
        root, val_root = path / "train", path / "val"
        nothing = Listing((), [], np.empty(0, dtype=np.int64), LeftOut())
        train_found = nothing if val_only else _find(root, progress)
        val_found = _find(val_root, progress)
        train_files, train_targets = train_found.files, train_found.targets
        val_files, val_targets = val_found.files, val_found.targets
        classes, left_out = val_found.classes, train_found.left_out
        left_out.update(val_found.left_out)
        if not val_only:
            _check_same(path, train_found.classes, classes, left_out)
    try:
        fingerprint = fingerprint_of_files(root, train_files, val_root, val_files)
    except OSError as error:
        raise _unlisted(path, path, error) from None
    try:
        train, val = _in_memory(train_files, train_targets, val_files, val_targets, skip_bad_images, progress)
    except _SizesDifferError:
        train = Split(tuple(train_files), train_targets, skip_bad_images)
        val = Split(tuple(val_files), val_targets, skip_bad_images)
    return ImageData(
        name=f"folder:{path}",
        classes=classes,
        train=train,
        val=val,
        normalization=IMAGENET_NORMALIZATION,
        split_sha256=digest,
        left_out=str(left_out),
        fingerprint=fingerprint,
    )


@dataclass(frozen=True)
class FolderSurvey:
    """Number and size of a folder's training images, found without decoding them.

    Attributes:
        num_images: number of images that were counted.
        side: median over a sample of the images' shorter sides, in pixels.
    """

    num_images: int
    side: int


def survey_folder(path: Path, *, count_all: bool = False) -> FolderSurvey | None:
    """Count the training images of a folder and look at the sizes of some; None if there is no readable image.

    Counting stops at `COUNT_LIMIT`, which decides everything that a recipe depends on, unless ``count_all``.
    """
    root = path / "train" if is_dir(path / "train") else path
    num_images = 0
    sample: list[str] = []
    with suppress(OSError):  # the loader will report it
        for images in walk_images(root):
            num_images += len(images)
            # Not the first one alone: an icon may be its folder's first file.
            sample += images[:: max(1, len(images) // _NUM_SAMPLED)][:_NUM_SAMPLED]
            if num_images >= COUNT_LIMIT and not count_all:
                break
    sides = []
    for number in sorted({int(number) for number in np.linspace(0, len(sample) - 1, _NUM_PROBES)} if sample else ()):
        with suppress(InputError):  # the loader will report or skip it
            sides.append(min(_image_size(sample[number])))
    return FolderSurvey(num_images, int(np.median(sides))) if sides else None


# What to do about an image that cannot be read, where images are not skipped.
_FIX = "replace or remove it, or set `skip_bad_images`"


def read_image(path: str | Path, *, fix: str = _FIX) -> Image.Image:
    """Read the image in a file as RGB; 16-bit grey values keep their upper 8 bits.

    Args:
        path: the file.
        fix: advice at the end of the error's message; "" where the caller skips the image.

    Raises:
        InputError: the file cannot be read, or its pixels have no agreed range.
    """
    with _decoding(path, fix), Image.open(path, formats=image_formats()) as image:
        if 0 in image.size:
            raise ValueError("it has no pixels")
        # Pillow's own conversion would silently clip all of these to 255.
        if image.mode in ("I", "F"):
            raise ValueError(f"pixels of Pillow's mode {image.mode} have no agreed range; save it with 8 bits")
        if image.mode.startswith("I;16"):
            return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
        return image.convert("RGB")


def _image_size(path: str) -> tuple[int, int]:
    """Read (width, height) of the image in a file; raises InputError if the beginning of the file is damaged."""
    with _decoding(path, "replace it"), Image.open(path, formats=image_formats()) as image:
        return image.size


@contextmanager
def _decoding(path: str | Path, fix: str) -> Iterator[None]:
    """Within it, an error of Pillow becomes an InputError that names the file.

    Pillow's decoders raise nearly everything for a damaged file: OSError, SyntaxError, IndexError, AssertionError,
    struct.error, DecompressionBombError. So no list of exceptions is complete.
    """
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        text = " ".join(str(error).split())
        if not isinstance(error, OSError | SyntaxError | ValueError) or not text:
            text = f"{type(error).__name__}: {text}" if text else type(error).__name__
        raise InputError(f"cannot read the image {path} ({text}){'; ' if fix else ''}{fix}") from None


def _find(folder: Path, progress: Progress) -> Listing:
    """List the images of one split's folder; every class has some."""
    if not is_dir(folder):
        raise InputError(f"folder:{folder.parent}: no folder {absolute(folder)}; {_LAYOUT}")
    progress(f"listing {folder}", 0, None)
    try:
        found = list_images(folder)
    except OSError as error:
        raise _unlisted(folder.parent, folder, error) from None
    if not found.classes:
        raise InputError(f"folder:{folder.parent}: {folder} has no class folders; {_LAYOUT}")
    empty = np.flatnonzero(np.bincount(found.targets, minlength=len(found.classes)) == 0)
    if len(empty):
        more = f" (and {len(empty) - 1} more)" if len(empty) > 1 else ""
        raise InputError(
            f"class folder {folder / found.classes[empty[0]]} holds no image{more}; images end in "
            f"{', '.join(image_endings())}: add some, or remove the folder from train and val{_more(found.left_out)}"
        )
    return found


def _more(left_out: LeftOut) -> str:
    """The end of a message that files which do not count may explain."""
    return f" ({left_out})" if left_out.counts else ""


def _unlisted(path: Path, folder: Path, error: OSError) -> InputError:
    """The error for a folder or file that the system does not let us look at."""
    return InputError(f"folder:{path}: cannot list {error.filename or folder} ({error.strerror or error})")


def _check_same(path: Path, train: Sequence[str], val: Sequence[str], left_out: LeftOut) -> None:
    """Raise InputError if train and val have different classes; the message names the first such class."""
    for name in sorted(set(train) ^ set(val)):
        has, lacks = ("train", "val") if name in train else ("val", "train")
        raise InputError(
            f"folder:{path}: train has {len(train)} classes and val {len(val)}, and they differ: class {name!r} is "
            f"in {has} and not in {lacks}; make the class folders the same{_more(left_out)}"
        )


def _chosen_for_validation(
    folder: Path, classes: Sequence[str], targets: NDArray[np.int64], part: float, seed: int
) -> NDArray[np.bool_]:
    """Choose ``part`` of every class's images at random, at least one and not all; the same every time."""
    chosen = np.zeros(len(targets), dtype=bool)
    for number, name in enumerate(classes):
        members = np.flatnonzero(targets == number)
        if len(members) < 2:
            raise InputError(
                f"class folder {folder / name} holds one image: `split` needs one for training and one for validation"
            )
        count = min(max(1, round(part * len(members))), len(members) - 1)
        chosen[np.random.default_rng((seed, number)).permutation(members)[:count]] = True
    return chosen


def _digest(folder: Path, train_files: Sequence[str], val_files: Sequence[str]) -> str:
    """SHA-256 of the names of the files in both parts, below ``folder``."""
    digest = hashlib.sha256()
    for files in (train_files, val_files):
        for name in relative_names(folder, files):
            digest.update(name + b"\n")
        digest.update(b"\0")
    return digest.hexdigest()


def _in_memory(
    train_files: list[str],
    train_targets: NDArray[np.int64],
    val_files: list[str],
    val_targets: NDArray[np.int64],
    skip_bad_images: bool,
    progress: Progress,
) -> tuple[Split, Split]:
    """Decode both splits; raises _SizesDifferError if the images have several sizes or do not fit into memory."""
    files = [*train_files, *val_files]
    height, width = _common_size(files)
    if len(files) * height * width * 3 > MEMORY_LIMIT:
        raise _SizesDifferError
    images = np.empty((len(files), height, width, 3), dtype=np.uint8)
    errors = _decode(files, images, progress, fix="" if skip_bad_images else _FIX)
    if errors and not skip_bad_images:
        raise errors[min(errors)]
    if errors:
        warnings.warn(f"{len(errors)} images were skipped, the first: {errors[min(errors)]}", stacklevel=4)
    good = np.ones(len(files), dtype=bool)
    good[list(errors)] = False
    splits = []
    for start, targets in ((0, train_targets), (len(train_files), val_targets)):
        kept = good[start : start + len(targets)]
        lost = np.setdiff1d(targets, targets[kept])
        if len(lost):
            raise InputError(
                f"no image of class folder {Path(files[start + int(np.argmax(targets == lost[0]))]).parent} can be read"
            )
        part = images[start : start + len(targets)]
        splits.append(Split(part if kept.all() else part[kept], targets[kept]))
    return splits[0], splits[1]


def _common_size(files: list[str]) -> tuple[int, int]:
    """Find the (height, width) of a sample of the images; raises _SizesDifferError if they differ."""
    sizes = set()
    for number in np.linspace(0, len(files) - 1, _NUM_PROBES).astype(int):
        with suppress(InputError):  # Decoding will report or skip it.
            sizes.add(_image_size(files[number]))
    if len(sizes) > 1:
        raise _SizesDifferError
    if not sizes:
        read_image(files[0])
        raise _SizesDifferError
    width, height = sizes.pop()
    return height, width


def _decode(files: list[str], images: NDArray[np.uint8], progress: Progress, *, fix: str) -> dict[int, InputError]:
    """Decode every file into its row of ``images``; returns row -> error for files that cannot be read."""

    def decode(number: int) -> InputError | None:
        try:
            image = read_image(files[number], fix=fix)
        except InputError as error:
            return error
        if image.size != (images.shape[2], images.shape[1]):
            raise _SizesDifferError
        images[number] = np.asarray(image)
        return None

    errors = {}
    # Pillow's decoders release the interpreter's lock, so threads use all cores.
    with ThreadPoolExecutor(usable_cores()) as threads:
        try:
            for number, error in enumerate(threads.map(decode, range(len(files)))):
                if error is not None:
                    errors[number] = error
                if number % 256 == 0:
                    progress("decoding images", number, len(files))
        except BaseException:
            threads.shutdown(cancel_futures=True)
            raise
    progress("decoding images", len(files), len(files))
    return errors
