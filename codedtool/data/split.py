"""The types of a loaded data set: `Split` and `ImageData`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from codedtool.data.augmentation import Normalization
from codedtool.errors import InputError
from codedtool.files import FileError, read_text
from codedtool.text import readable

# Images of each split whose pixels are part of the fingerprint.
_NUM_HASHED = 256


@dataclass(frozen=True, eq=False)
class Split:
    """Images of one split and their classes.

    Attributes:
        images: (n, H, W, 3) uint8 in memory, or the paths of n files, which are read when a batch needs them.
        targets: (n,) int64 classes, 0..K-1.
        skip_bad_images: skip an unreadable file, with a warning, instead of stopping.
    """

    images: NDArray[np.uint8] | tuple[str, ...]
    targets: NDArray[np.int64]
    skip_bad_images: bool = False

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def image_size(self) -> tuple[int, int] | None:
        """(height, width) of images in memory; None for files, whose sizes may differ."""
        return self.images.shape[1:3] if isinstance(self.images, np.ndarray) else None

    def first_of_each_class(self, count: int) -> Split:
        """Keep the first ``count`` images of every class, or all of a smaller class; the order stays the same."""
        return self.taking(
            np.sort(np.concatenate([np.flatnonzero(self.targets == k)[:count] for k in np.unique(self.targets)]))
        )

    def taking(self, numbers: NDArray[np.int64]) -> Split:
        """Take the images with the given numbers, in this order."""
        if isinstance(self.images, np.ndarray):
            return replace(self, images=self.images[numbers], targets=self.targets[numbers])
        return replace(self, images=tuple(self.images[number] for number in numbers), targets=self.targets[numbers])


@dataclass(frozen=True)
class Fingerprint:
    """What tells a data set from another one that has the same classes.

    Attributes:
        num_train, num_val: number of images of each split, unreadable ones included.
        sha256: hash of names and sizes of files, or of a sample of the images in memory.
    """

    num_train: int
    num_val: int
    sha256: str


@dataclass(frozen=True, eq=False)
class ImageData:
    """A data set.

    Attributes:
        name: name given to `load_dataset`, such as cifar10 or folder:PATH.
        classes: class names; row k of a scheme belongs to ``classes[k]``.
        train, val: the two splits.
        normalization: mean and standard deviation of the data set. The images themselves are not normalised, because a
            network normalises all images with the statistics of its own training data.
        note: what people must know of the images, such as that they are made up.
        split_sha256: SHA-256 of the file names of both splits, if the validation part was chosen at random; else "".
        left_out: for a folder, one line on the files in it that do not count, and why.
        fingerprint: tells whether a data set is the one that a run was trained on; None: unknown.
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    val: Split
    normalization: Normalization
    note: str = ""
    split_sha256: str = ""
    left_out: str = ""
    fingerprint: Fingerprint | None = None

    def lines(self) -> list[str]:
        """Lines for people: classes, images, the smallest and the largest class, and the files that do not count."""
        counts = np.bincount(self.train.targets, minlength=len(self.classes))
        fewest, most = int(counts.argmin()), int(counts.argmax())
        sizes = (
            f"{counts[most]} training images in every class"
            if counts[fewest] == counts[most]
            else f"smallest class {readable(self.classes[fewest])} ({counts[fewest]} training images), "
            f"largest {readable(self.classes[most])} ({counts[most]})"
        )
        first = f"data {readable(self.name)}: {len(self.classes)} classes, {len(self.train)} training images and "
        first += f"{len(self.val)} validation images; {sizes}" + (f"; {self.note}" if self.note else "")
        return [first, *([f"  {self.left_out}"] if self.left_out else [])]

    def in_order(self, classes: Sequence[str]) -> ImageData:
        """Give the classes another order: row k of a scheme then belongs to ``classes[k]``.

        Args:
            classes: every class of the data set once.

        Raises:
            InputError: a class is missing, unknown or named twice; the message names it.
        """
        classes = tuple(classes)
        for name in classes:
            if classes.count(name) > 1:
                raise InputError(f"`classes` names {name!r} twice")
        for name in sorted(set(classes) ^ set(self.classes)):
            where = "does not name" if name in self.classes else "names"
            lacks = "" if name in self.classes else ", which it does not have"
            raise InputError(f"`classes` {where} class {name!r} of {self.name}{lacks}; every class is named once")
        numbers = np.array([classes.index(name) for name in self.classes], dtype=np.int64)
        train, val = (replace(part, targets=numbers[part.targets]) for part in (self.train, self.val))
        return replace(self, classes=classes, train=train, val=val)


def with_fingerprint(data: ImageData) -> ImageData:
    """Add the fingerprint of images in memory: the classes of all images, and the pixels of 256 of each split."""
    digest = hashlib.sha256("\n".join(data.classes).encode())
    for split in (data.train, data.val):
        digest.update(split.targets.tobytes())
        for number in np.linspace(0, len(split) - 1, min(len(split), _NUM_HASHED)).astype(int):
            digest.update(np.ascontiguousarray(split.images[number]).tobytes())
    return replace(data, fingerprint=Fingerprint(len(data.train), len(data.val), digest.hexdigest()))


def read_classes(path: Path) -> tuple[str, ...]:
    """Read class names in the order of the schemes' rows: a JSON list of texts, or one name per line.

    Raises:
        InputError: the file cannot be read, or is no such list.
    """
    try:
        text = read_text(path)
        names = json.loads(text) if path.suffix == ".json" else [line.strip() for line in text.splitlines()]
    except FileError:
        raise
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read as a list of class names ({error})") from None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{path}: must hold a JSON list of class names")
    found = tuple(name for name in names if name)
    if not found:
        raise InputError(f"{path}: names no class")
    return found


def check_num_classes(data: ImageData, num_classes: int) -> None:
    """Raise InputError unless the data set has K = ``num_classes`` classes, one per codeword of a scheme."""
    if len(data.classes) != num_classes:
        raise InputError(
            f"the scheme has K = {num_classes} codewords, the data set {data.name} has {len(data.classes)} classes; "
            "row k is class k, so the two numbers must be equal: choose another scheme or another data set"
        )
