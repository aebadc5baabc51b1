"""Images and augmentations that the tests of this folder share."""

from __future__ import annotations

import numpy as np

from codedtool.data import Augmentation, Normalization

CIFAR = Normalization((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))


CIFAR_POLICY = Augmentation(normalization=CIFAR, crop_padding=4, flip=0.5, randaugment="rand-m4-n3")


def random_images(number: int, side: int = 16) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, size=(number, side, side, 3), dtype=np.uint8)
