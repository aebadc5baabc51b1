"""Augmentation (section 4.1, appendix B), determined by seed, epoch and sample alone.

Worker, rank, order and batch have no influence. So a run that was resumed in the middle of an epoch, or that is spread
over devices, sees the same pixels. Images are uint8, channels last. The order is the paper's: crop, flip, RandAugment;
then random erasing.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from codedtool.errors import InputError

# SplitMix64 (Steele, Lea & Flood, 2014): the increment and the two multipliers.
_INCREMENT = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)

# Makes these words independent of other uses of the same seed, epoch and sample ("augment" in ASCII).
_DOMAIN = np.uint64(0x6175676D656E74)

# Columns of `sample_words`, and the decision that each is for.
_TOP, _LEFT, _FLIP, _RESIZED_CROP, _RANDAUGMENT, _ERASING = range(6)
_COLUMNS = np.array([_TOP, _LEFT, _FLIP, _RESIZED_CROP, _RANDAUGMENT, _ERASING], dtype=np.uint64)

# ImageNet's evaluation resizes to 256 before it crops 224; other sizes are in proportion.
EVAL_CROP_PART = 224 / 256

# Of an image that is longer than this many times its shorter side, only the middle is resized: a ribbon of 1x60000
# pixels would become one of 256x15 million.
_RIBBON = 100

# Largest translation of RandAugment as a fraction of the image's side, from timm's create_transform.
_TRANSLATE_PART = 0.45


@dataclass(frozen=True)
class Normalization:
    """Mean and standard deviation per channel (red, green, blue) of pixels scaled to 0..1."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How training images are varied; every part is off by default.

    Attributes:
        crop_padding: black pixels added on each side before a random crop to the image's own size.
        random_resized_crop: crop a random part (area 0.08..1, aspect 3/4..4/3) and resize it with a random
            interpolation, as in timm. Otherwise, images of another size are resized and centre-cropped.
        flip: probability of a horizontal flip.
        randaugment: RandAugment policy in timm's notation, such as rand-m4-n3; empty: none.
        erasing: probability of random erasing (timm, mode pixel).
        erasing_count: largest number of erased rectangles.
        normalization: RandAugment fills with its mean. Erasing draws normal noise in its units, rounded and clipped to
            0..255.
    """

    normalization: Normalization
    crop_padding: int = 0
    random_resized_crop: bool = False
    flip: float = 0.0
    randaugment: str = ""
    erasing: float = 0.0
    erasing_count: int = 1

    @property
    def per_image(self) -> bool:
        """Whether any part works image by image, which is slower than working on whole batches."""
        return self.random_resized_crop or bool(self.randaugment) or self.erasing > 0


def normalize(images_BCHW: torch.Tensor, normalization: Normalization) -> torch.Tensor:
    """Compute (x / 255 - mean) / std in float32 of (B, 3, H, W) uint8 images; device and memory layout stay."""
    scale_CHW, shift_CHW = _scale_and_shift(normalization, images_BCHW.device)
    return images_BCHW.to(torch.float32) * scale_CHW + shift_CHW


def sample_words(indices_B: NDArray[np.int64], *, seed: int, epoch: int) -> NDArray[np.uint64]:
    """Draw the random words that determine the augmentation of each sample: (B, 6) uint64, from SplitMix64."""
    key = _mix(np.array([seed], dtype=np.uint64) + _DOMAIN)
    key = _mix(key + np.uint64(epoch))
    words_B = _mix(key + indices_B.astype(np.uint64))
    return _mix(words_B[:, None] + _COLUMNS)


def crop_and_flip(
    images_BHWC: NDArray[np.uint8], words_BS: NDArray[np.uint64], augmentation: Augmentation
) -> NDArray[np.uint8]:
    """Pad with black, crop to the original size at random, then flip at random; returns a new (B, H, W, C) array."""
    pad = augmentation.crop_padding
    flips_B = (words_BS[:, _FLIP] >> np.uint64(11)) < np.uint64(int(augmentation.flip * 2**53))
    if pad == 0:
        images_BHWC = images_BHWC.copy()
        images_BHWC[flips_B] = images_BHWC[flips_B, :, ::-1]
        return images_BHWC
    _, height, width, _ = images_BHWC.shape
    offsets_B2 = (words_BS[:, [_TOP, _LEFT]] % np.uint64(2 * pad + 1)).astype(np.int64).tolist()
    padded = np.pad(images_BHWC, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    cropped = np.empty_like(images_BHWC)
    for out, image, (top, left), flip in zip(cropped, padded, offsets_B2, flips_B.tolist(), strict=True):
        crop = image[top : top + height, left : left + width]
        out[...] = crop[:, ::-1] if flip else crop
    return cropped


def rand_augment(
    images_BHWC: NDArray[np.uint8], words_BS: NDArray[np.uint64], augmentation: Augmentation
) -> NDArray[np.uint8]:
    """Apply timm's RandAugment (Cubuk et al., 2020) to each image.

    timm differs from the original: it applies every chosen operation with probability 0.5, and magnitudes end at 10.

    Raises:
        InputError: timm does not know the policy.
    """
    transform = _rand_augment(augmentation.randaugment, images_BHWC.shape[1], augmentation.normalization)
    changed = np.empty_like(images_BHWC)
    with restored_random_states():
        for out, image, word in zip(changed, images_BHWC, words_BS[:, _RANDAUGMENT].tolist(), strict=True):
            _seed_everything(word)
            out[...] = np.asarray(transform(Image.fromarray(image)))
    return changed


def erase(
    images_BHWC: NDArray[np.uint8], words_BS: NDArray[np.uint64], augmentation: Augmentation
) -> NDArray[np.uint8]:
    """Apply timm's random erasing (Zhong et al., 2020), mode pixel, to each image."""
    from timm.data.random_erasing import RandomErasing

    erasing = RandomErasing(
        augmentation.erasing, mode="pixel", max_count=augmentation.erasing_count, device="cpu", num_splits=0
    )
    scale_CHW, shift_CHW = _scale_and_shift(augmentation.normalization, torch.device("cpu"))
    changed = np.empty_like(images_BHWC)
    with restored_random_states():
        for out, image, word in zip(changed, images_BHWC, words_BS[:, _ERASING].tolist(), strict=True):
            _seed_everything(word)
            pixels_CHW = torch.from_numpy(image).permute(2, 0, 1) * scale_CHW + shift_CHW
            erased_CHW = (erasing(pixels_CHW) - shift_CHW) / scale_CHW
            out[...] = erased_CHW.round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()
    return changed


def augment(
    images_BHWC: NDArray[np.uint8], words_BS: NDArray[np.uint64], augmentation: Augmentation
) -> NDArray[np.uint8]:
    """Apply all parts that come after `resized_crop`: crop, flip, RandAugment and erasing, in this order."""
    images_BHWC = crop_and_flip(images_BHWC, words_BS, augmentation)
    if augmentation.randaugment:
        images_BHWC = rand_augment(images_BHWC, words_BS, augmentation)
    if augmentation.erasing > 0:
        images_BHWC = erase(images_BHWC, words_BS, augmentation)
    return images_BHWC


def resized_crop(image: Image.Image, word_S: NDArray[np.uint64], size: int) -> Image.Image:
    """Crop a random part and resize it to (size, size) (Szegedy et al., 2015); the sample's words determine it."""
    from timm.data.transforms import RandomResizedCropAndInterpolation

    crop = RandomResizedCropAndInterpolation(size, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3), interpolation="random")
    with restored_random_states():
        _seed_everything(int(word_S[_RESIZED_CROP]))
        return crop(image)


def centre_crop(image: Image.Image, size: int, *, part: float) -> Image.Image:
    """Resize the image (bicubic) until its shorter side is size / part, and crop the (size, size) centre.

    An image of (size, size) is returned unchanged. Sizes are rounded as in torchvision and timm.
    """
    if image.size == (size, size):
        return image
    shorter, short = int(size / part), min(image.size)
    if max(image.size) > _RIBBON * short:
        image = _middle(image, _RIBBON * short)
    width, height = (side * shorter // short for side in image.size)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return image.crop((left, top, left + size, top + size))


def _middle(image: Image.Image, longest: int) -> Image.Image:
    """Cut the image's longer side to ``longest`` pixels around its middle."""
    left, top = (max(0, (side - longest) // 2) for side in image.size)
    return image.crop((left, top, left + min(image.width, longest), top + min(image.height, longest)))


@contextmanager
def restored_random_states() -> Iterator[None]:
    """Restore the global generators of Python, numpy and torch at the end: timm draws from all three."""
    states = random.getstate(), np.random.get_state(), torch.default_generator.get_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.default_generator.set_state(states[2])


def _seed_everything(word: int) -> None:
    random.seed(word)
    np.random.seed(word & 0xFFFFFFFF)
    # torch.manual_seed would also seed every CUDA device, or queue that up in a worker.
    torch.default_generator.manual_seed(word)


def _mix(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Compute SplitMix64's output for each state; overflow wraps around."""
    words = words + _INCREMENT
    words = (words ^ (words >> np.uint64(30))) * _FIRST
    words = (words ^ (words >> np.uint64(27))) * _SECOND
    return words ^ (words >> np.uint64(31))


# A part of a policy behind "rand": a name with its number, such as m4 or mstd0.5; or t with names of operations.
_POLICY_PART = re.compile(r"[a-z]+\d+(\.\d+)?|t\w+")


@cache
def _rand_augment(policy: str, size: int, normalization: Normalization) -> Callable[[Image.Image], Any]:
    """Build timm's RandAugment with the settings of its create_transform for images of this size."""
    from timm.data.auto_augment import posterize, rand_augment_transform

    settings = {
        "translate_const": int(size * _TRANSLATE_PART),
        "img_mean": tuple(min(255, round(255 * mean)) for mean in normalization.mean),
    }
    try:
        # timm passes over a part without a number.
        if not all(_POLICY_PART.fullmatch(part) for part in policy.split("-")[1:]):
            raise ValueError("a part is no name with a number")
        transform = rand_augment_transform(policy, settings)
    except (AssertionError, ValueError, KeyError) as error:
        raise InputError(
            f"`randaugment` policy {policy!r} is unknown to timm ({str(error) or 'see timm.data.auto_augment'}); "
            "write it as rand-mMAGNITUDE-nLAYERS, such as rand-m4-n3"
        ) from None
    for operation in transform.ops:
        if operation.aug_fn is posterize:
            operation.aug_fn = _posterize
    return transform


def _posterize(image: Image.Image, num_bits: int, **_: Any) -> Image.Image:
    """Apply timm's posterize; keeping 0 bits gives a black image, as it did before Pillow 13 refused it.

    timm asks for 0 bits at magnitudes below 2.5, which includes the paper's policy for CIFAR-100: one in 30 of its
    images is black.
    """
    from timm.data.auto_augment import posterize

    return Image.new(image.mode, image.size) if num_bits == 0 else posterize(image, num_bits)


@cache
def _scale_and_shift(normalization: Normalization, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute (3, 1, 1) float32 tensors so that uint8 * scale + shift is normalised; cached, so no step copies them."""
    mean, std = torch.tensor((normalization.mean, normalization.std), dtype=torch.float64)[:, :, None, None]
    scale, shift = 1 / (255 * std), -mean / std
    return scale.to(torch.float32).to(device), shift.to(torch.float32).to(device)
