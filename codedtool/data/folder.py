"""`folder:PATH`: images in class folders below train/ and val/ (ImageNet's layout), in memory if they fit."""

from __future__ import annotations

import hashlib
import os
import struct
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torchvision.datasets.folder import IMG_EXTENSIONS, find_classes, make_dataset

from codedtool.budget import Progress
from codedtool.data.augmentation import Normalization
from codedtool.data.split import ImageData, Split
from codedtool.errors import InputError

IMAGENET_NORMALIZATION = Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

# Images of one size are kept decoded in memory up to this many bytes, both splits together.
MEMORY_LIMIT = 1 << 30

# `survey_folder` counts images up to this number.
COUNT_LIMIT = 100_000

# Number of images whose size is compared before all images are decoded.
_NUM_PROBES = 32

# Errors that Pillow raises for files that are missing, are no images, or end early.
_READ_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)

_LAYOUT = (
    "it must hold train/CLASS/IMAGE and val/CLASS/IMAGE; name a folder that does (folder:PATH), or set a part of its "
    "images aside for validation with `split` 0.2, or use synthetic:K, which needs no files"
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
    if not path.is_dir():
        raise InputError(f"folder:{path}: no folder {path.absolute()}; {_LAYOUT}")
    digest = ""
    if split > 0 and not val_only and not (path / "val").is_dir():
        root = path / "train" if (path / "train").is_dir() else path
        classes, files, targets = _find(root, progress)
        is_val = _chosen_for_validation(root, classes, targets, split, split_seed)
        train_files, val_files = ([files[number] for number in np.flatnonzero(part)] for part in (~is_val, is_val))
        train_targets, val_targets = targets[~is_val], targets[is_val]
        digest = _digest(root, train_files, val_files)
    else:
        nothing: tuple[tuple[str, ...], list[str], NDArray[np.int64]] = ((), [], np.empty(0, dtype=np.int64))
        train_classes, train_files, train_targets = nothing if val_only else _find(path / "train", progress)
        classes, val_files, val_targets = _find(path / "val", progress)
        if not val_only:
            _check_same(path, train_classes, classes)
    try:
        train, val = _in_memory(train_files, train_targets, val_files, val_targets, skip_bad_images, progress)
        how = f"of {train.image_size[1]}x{train.image_size[0]} pixels" if train.image_size else ""
    except _SizesDifferError:
        train = Split(tuple(train_files), train_targets, skip_bad_images)
        val = Split(tuple(val_files), val_targets, skip_bad_images)
        how = "read from disk as they are needed"
    return ImageData(
        name=f"folder:{path}",
        description=f"{path}: {len(train)} training and {len(val)} validation images {how}",
        classes=classes,
        train=train,
        val=val,
        normalization=IMAGENET_NORMALIZATION,
        split_sha256=digest,
    )


@dataclass(frozen=True)
class FolderSurvey:
    """Number and size of a folder's training images, found without decoding them.

    Attributes:
        num_images: number of images; counting stops at `COUNT_LIMIT`.
        side: median over a sample of the images' shorter sides, in pixels.
    """

    num_images: int
    side: int


def survey_folder(path: Path) -> FolderSurvey | None:
    """Count the training images of a folder and look at the sizes of some; None if there is no readable image."""
    root = path / "train" if (path / "train").is_dir() else path
    num_images = 0
    sample: list[str] = []
    for folder, _, names in os.walk(root):
        images = [name for name in names if name.lower().endswith(IMG_EXTENSIONS)]
        num_images += len(images)
        sample += [os.path.join(folder, name) for name in sorted(images)[:1]]
        if num_images >= COUNT_LIMIT:
            break
    sides = []
    for number in sorted({int(number) for number in np.linspace(0, len(sample) - 1, _NUM_PROBES)} if sample else ()):
        try:
            with Image.open(sample[number]) as image:
                sides.append(min(image.size))
        except _READ_ERRORS:
            continue  # the loader will report or skip it
    return FolderSurvey(num_images, int(np.median(sides))) if sides else None


def read_image(path: str | Path, *, fix: str = "replace or remove it, or set `skip_bad_images`") -> Image.Image:
    """Read the image in a file as RGB; 16-bit grey values keep their upper 8 bits.

    Args:
        path: the file.
        fix: advice at the end of the error's message.

    Raises:
        InputError: the file cannot be read, or its pixels have no agreed range.
    """
    try:
        with Image.open(path) as image:
            # Pillow's own conversion would silently clip all of these to 255.
            if image.mode in ("I", "F"):
                raise ValueError(f"pixels of Pillow's mode {image.mode} have no agreed range; save it with 8 bits")
            if image.mode.startswith("I;16"):
                return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
            return image.convert("RGB")
    except _READ_ERRORS as error:
        raise InputError(f"cannot read the image {path} ({error}); {fix}") from None


def _find(folder: Path, progress: Progress) -> tuple[tuple[str, ...], list[str], NDArray[np.int64]]:
    """List the classes of one split's folder, and the files and classes of its images, sorted by class and name."""
    if not folder.is_dir():
        raise InputError(f"folder:{folder.parent}: no folder {folder.absolute()}; {_LAYOUT}")
    progress(f"listing {folder}", 0, None)
    try:
        classes, numbers = find_classes(str(folder))
    except FileNotFoundError:
        raise InputError(f"folder:{folder.parent}: {folder} has no class folders; {_LAYOUT}") from None
    except OSError as error:
        raise InputError(f"folder:{folder.parent}: cannot list {folder} ({error.strerror or error})") from None
    found = make_dataset(str(folder), numbers, extensions=IMG_EXTENSIONS, allow_empty=True)
    targets = np.array([target for _, target in found], dtype=np.int64)
    empty = np.flatnonzero(np.bincount(targets, minlength=len(classes)) == 0)
    if len(empty):
        more = f" (and {len(empty) - 1} more)" if len(empty) > 1 else ""
        raise InputError(
            f"class folder {folder / classes[empty[0]]} holds no image{more}; images end in "
            f"{', '.join(IMG_EXTENSIONS)}: add some, or remove the folder from train and val"
        )
    return tuple(classes), [path for path, _ in found], targets


def _check_same(path: Path, train: Sequence[str], val: Sequence[str]) -> None:
    """Raise InputError if train and val have different classes; the message names the first such class."""
    for name in sorted(set(train) ^ set(val)):
        has, lacks = ("train", "val") if name in train else ("val", "train")
        raise InputError(
            f"folder:{path}: train has {len(train)} classes and val {len(val)}, and they differ: class {name!r} is "
            f"in {has} and not in {lacks}; make the class folders the same"
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
        for file in files:
            digest.update(Path(file).relative_to(folder).as_posix().encode(errors="surrogateescape") + b"\n")
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
    errors = _decode(files, images, progress)
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
        try:
            with Image.open(files[number]) as image:
                sizes.add(image.size)
        except _READ_ERRORS:
            continue  # Decoding will report or skip it.
    if len(sizes) > 1:
        raise _SizesDifferError
    if not sizes:
        read_image(files[0])
        raise _SizesDifferError
    width, height = sizes.pop()
    return height, width


def _decode(files: list[str], images: NDArray[np.uint8], progress: Progress) -> dict[int, InputError]:
    """Decode every file into its row of ``images``; returns row -> error for files that cannot be read."""

    def decode(number: int) -> InputError | None:
        try:
            image = read_image(files[number])
        except InputError as error:
            return error
        if image.size != (images.shape[2], images.shape[1]):
            raise _SizesDifferError
        images[number] = np.asarray(image)
        return None

    errors = {}
    # Pillow's decoders release the interpreter's lock, so threads use all cores.
    with ThreadPoolExecutor(os.cpu_count()) as threads:
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
