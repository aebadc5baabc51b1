"""The types of a loaded data set: `Split` and `ImageData`."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from codedtool.data.augmentation import Normalization
from codedtool.errors import InputError


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
        kept = np.sort(np.concatenate([np.flatnonzero(self.targets == k)[:count] for k in np.unique(self.targets)]))
        if isinstance(self.images, np.ndarray):
            return replace(self, images=self.images[kept], targets=self.targets[kept])
        return replace(self, images=tuple(self.images[number] for number in kept), targets=self.targets[kept])


@dataclass(frozen=True, eq=False)
class ImageData:
    """A data set.

    Attributes:
        name: name given to `load_dataset`, such as cifar10 or folder:PATH.
        description: one line for people; says so if the images are not real.
        classes: class names; row k of a scheme belongs to ``classes[k]``.
        train, val: the two splits.
        normalization: mean and standard deviation of the data set. The images themselves are not normalised, because a
            network normalises all images with the statistics of its own training data.
    """

    name: str
    description: str
    classes: tuple[str, ...]
    train: Split
    val: Split
    normalization: Normalization


def check_num_classes(data: ImageData, num_classes: int) -> None:
    """Raise InputError unless the data set has K = ``num_classes`` classes, one per codeword of a scheme."""
    if len(data.classes) != num_classes:
        raise InputError(
            f"the scheme has K = {num_classes} codewords, the data set {data.name} has {len(data.classes)} classes; "
            "row k is class k, so the two numbers must be equal: choose another scheme or another data set"
        )
