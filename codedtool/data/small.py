"""Data sets that need no files: scikit-learn's real `digits`, and made-up images (`synthetic:K`)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from codedtool.data.augmentation import Normalization
from codedtool.data.split import ImageData, Split

# After a fixed shuffle, every fifth image of a class is for validation.
_DIGITS_VAL_PART = 5

# Statistics of the training split's pixels, to four digits; the three channels are equal.
_DIGITS_NORMALIZATION = Normalization((0.3052, 0.3052, 0.3052), (0.3756, 0.3756, 0.3756))

SYNTHETIC_SIDE = 16
_SYNTHETIC_TRAIN, _SYNTHETIC_VAL = 64, 16
# Statistics of uniform colours with a mean brightness of 0.8, for any K.
_SYNTHETIC_NORMALIZATION = Normalization((0.4, 0.4, 0.4), (0.25, 0.25, 0.25))

# Side, in pixels, of one cell of the coarse grid of colours that is a class's pattern.
_SYNTHETIC_CELL = 4


def load_digits() -> ImageData:
    """Load the 1,797 handwritten digits of 8x8 pixels that scikit-learn contains (Alpaydin & Kaynak, UCI, 1998).

    Grey values 0..16 are scaled to 0..255 and repeated in three channels. There is no official split: after a fixed
    shuffle, a fifth of every class is for validation, so both splits contain the same writers.
    """
    from sklearn.datasets import load_digits as read_digits

    digits = read_digits()
    grey_BHW = np.round(digits.images * (255 / 16)).astype(np.uint8)
    images_BHWC = np.ascontiguousarray(np.repeat(grey_BHW[..., None], 3, axis=3))
    targets_B = digits.target.astype(np.int64)
    order = np.random.default_rng(0).permutation(len(targets_B))
    is_val_B = np.zeros(len(targets_B), dtype=bool)
    for digit in range(10):
        of_class = order[targets_B[order] == digit]
        is_val_B[of_class[::_DIGITS_VAL_PART]] = True
    train, val = (Split(images_BHWC[part], targets_B[part]) for part in (~is_val_B, is_val_B))
    return ImageData(
        name="digits",
        classes=tuple(str(name) for name in digits.target_names),
        train=train,
        val=val,
        normalization=_DIGITS_NORMALIZATION,
    )


def make_synthetic(num_classes: int) -> ImageData:
    """Make up K = ``num_classes`` classes of 16x16 images; every call gives the same images.

    A class has a pattern, a coarse grid of random colours. Its images show the pattern with random brightness and
    noise: 64 for training and 16 for validation.
    """
    cells = SYNTHETIC_SIDE // _SYNTHETIC_CELL
    prototypes = np.random.default_rng((0, num_classes)).random((num_classes, cells, cells, 3), dtype=np.float32)
    train, val = (
        _synthetic_split(prototypes, per_class, stream)
        for stream, per_class in ((1, _SYNTHETIC_TRAIN), (2, _SYNTHETIC_VAL))
    )
    digits = len(str(num_classes - 1))
    return ImageData(
        name=f"synthetic:{num_classes}",
        classes=tuple(f"synthetic{number:0{digits}d}" for number in range(num_classes)),
        train=train,
        val=val,
        normalization=_SYNTHETIC_NORMALIZATION,
        note="made up, not real images",
    )


def _synthetic_split(prototypes_KHWC: NDArray[np.float32], per_class: int, stream: int) -> Split:
    num_classes = len(prototypes_KHWC)
    rng = np.random.default_rng((stream, num_classes))
    images = np.empty((num_classes * per_class, SYNTHETIC_SIDE, SYNTHETIC_SIDE, 3), dtype=np.uint8)
    for number, prototype in enumerate(prototypes_KHWC):
        pattern = prototype.repeat(_SYNTHETIC_CELL, axis=0).repeat(_SYNTHETIC_CELL, axis=1)
        brightness = rng.uniform(0.6, 1.0, size=(per_class, 1, 1, 1)).astype(np.float32)
        noise = rng.standard_normal((per_class, *pattern.shape), dtype=np.float32) * 0.1
        pixels = np.clip(pattern * brightness + noise, 0, 1) * 255
        images[number * per_class : (number + 1) * per_class] = np.round(pixels)
    return Split(images, np.repeat(np.arange(num_classes, dtype=np.int64), per_class))
