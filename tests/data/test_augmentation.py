"""Each part of the augmentation against timm, torchvision and literal code, for given words of the samples."""

from __future__ import annotations

import dataclasses
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from timm.data.auto_augment import rand_augment_transform
from torchvision import transforms

from codedtool.data import Augmentation, normalize
from codedtool.data import augmentation as module
from codedtool.data.augmentation import centre_crop, crop_and_flip, erase, rand_augment, resized_crop, sample_words
from codedtool.errors import InputError
from tests.data.images import CIFAR, CIFAR_POLICY, random_images

pytestmark = pytest.mark.quick


def test_the_words_are_splitmix64s() -> None:
    # The first two outputs for the seed 1234567, as published with the algorithm's many ports.
    state = np.array([1234567], dtype=np.uint64)
    assert int(module._mix(state)[0]) == 6457827717110365317
    assert int(module._mix(state + module._INCREMENT)[0]) == 3203168211198807973


def test_crops_and_flips_are_those_of_the_words_and_all_equally_likely() -> None:
    images, policy = random_images(6, side=8), Augmentation(normalization=CIFAR, crop_padding=2, flip=0.25)
    words = sample_words(np.arange(6), seed=1, epoch=1)
    varied = crop_and_flip(images, words, policy)
    for image, word, out in zip(images, words.tolist(), varied, strict=True):
        top, left, flip = word[0] % 5, word[1] % 5, (word[2] >> 11) / 2**53 < 0.25
        literal = np.pad(image, ((2, 2), (2, 2), (0, 0)))[top : top + 8, left : left + 8]
        assert np.array_equal(out, literal[:, ::-1] if flip else literal)
    words = sample_words(np.arange(50_000), seed=0, epoch=7)
    for column in (0, 1):
        assert np.abs(np.bincount((words[:, column] % 9).astype(np.int64), minlength=9) / 50_000 - 1 / 9).max() < 0.006
    assert abs(np.corrcoef(words[:, 0] % 9, words[:, 1] % 9)[0, 1]) < 0.02
    assert abs(((words[:, 2] >> 11) < 2**52).mean() - 0.5) < 0.01


@pytest.mark.parametrize("padding", [0, 3])
def test_flip_is_all_or_nothing_at_its_ends(padding: int) -> None:
    images, words = random_images(20), sample_words(np.arange(20), seed=0, epoch=0)
    policy = Augmentation(normalization=CIFAR, crop_padding=padding)
    never = crop_and_flip(images, words, policy)
    always = crop_and_flip(images, words, dataclasses.replace(policy, flip=1.0))
    assert np.array_equal(always, never[:, :, ::-1])
    assert np.array_equal(images, random_images(20))


def test_randaugment_is_timms_with_the_papers_settings() -> None:
    images, words = random_images(12, side=32), sample_words(np.arange(12), seed=0, epoch=0)
    ours = rand_augment(images, words, CIFAR_POLICY)
    # What timm's create_transform gives RandAugment for 32 pixels and CIFAR-10's mean.
    timms = rand_augment_transform("rand-m4-n3", {"translate_const": 14, "img_mean": (125, 123, 114)})
    for image, word, out in zip(images, words.tolist(), ours, strict=True):
        random.seed(word[4])
        np.random.seed(word[4] % 2**32)
        assert np.array_equal(np.asarray(timms(Image.fromarray(image))), out)
    assert sum(np.array_equal(image, out) for image, out in zip(images, ours, strict=True)) < 6


@pytest.mark.parametrize(("policy", "black"), [("rand-m2-n1", 1 / 30), ("rand-m4-n3", 0), ("rand-m10-n2-inc1", 1 / 15)])
def test_any_magnitude_of_randaugment_works_and_posterize_to_no_bits_gives_black(policy: str, black: float) -> None:
    # One of 15 operations with probability 0.5 per layer; timm keeps 0 bits below magnitude 2.5, or at 10 with inc1.
    images, words = random_images(3000, side=8), sample_words(np.arange(3000), seed=0, epoch=0)
    varied = rand_augment(images, words, Augmentation(normalization=CIFAR, randaugment=policy))
    assert abs((varied.max(axis=(1, 2, 3)) == 0).mean() - black) < 0.012


@pytest.mark.parametrize("policy", ["foo", "rand-m4-n3-foo", "rand-m4-n3-w", "rand-x4", "rand-m4--n3"])
def test_a_policy_that_timm_does_not_know_is_refused_with_a_reason(policy: str) -> None:
    images = np.zeros((1, 8, 8, 3), dtype=np.uint8)
    words = sample_words(np.arange(1), seed=0, epoch=0)
    with pytest.raises(InputError, match=r"is unknown to timm \(\w.*\); write it as"):
        rand_augment(images, words, Augmentation(normalization=CIFAR, randaugment=policy))


def test_the_order_is_crop_and_flip_then_randaugment_then_erasing(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, np.ndarray, np.ndarray]] = []

    def spy(name: str) -> None:
        real = getattr(module, name)

        def called(images: np.ndarray, words: np.ndarray, policy: Augmentation) -> np.ndarray:
            result = real(images, words, policy)
            calls.append((name, images, result))
            return result

        monkeypatch.setattr(module, name, called)

    for name in ("crop_and_flip", "rand_augment", "erase"):
        spy(name)
    policy = dataclasses.replace(CIFAR_POLICY, erasing=1.0)
    result = module.augment(random_images(4), sample_words(np.arange(4), seed=0, epoch=0), policy)
    assert [name for name, _, _ in calls] == ["crop_and_flip", "rand_augment", "erase"]
    assert calls[1][1] is calls[0][2]
    assert calls[2][1] is calls[1][2]
    assert result is calls[2][2]


def test_erasing_replaces_rectangles_by_noise_and_touches_nothing_else() -> None:
    images, words = random_images(300, side=20), sample_words(np.arange(300), seed=0, epoch=0)
    policy = Augmentation(normalization=CIFAR, erasing=0.4)
    erased = erase(images, words, policy)
    changed_BHW = (erased != images).any(axis=3)
    hit = changed_BHW.any(axis=(1, 2))
    assert 0.3 < hit.mean() < 0.5
    for mask_HW in changed_BHW[hit]:
        rows, columns = np.flatnonzero(mask_HW.any(axis=1)), np.flatnonzero(mask_HW.any(axis=0))
        area = (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)
        assert 0.01 < area / 400 < 0.4
        assert mask_HW.sum() > 0.9 * area
    noise = normalize(torch.from_numpy(erased[changed_BHW][:, :, None, None]), CIFAR)
    assert torch.all(noise.mean(dim=0).abs() < 0.05)
    assert torch.all((noise.std(dim=0) - 1).abs() < 0.06)


@given(
    width=st.integers(8, 90),
    height=st.integers(8, 90),
    size=st.sampled_from([7, 14, 32]),
    part=st.sampled_from([0.875, 1]),
)
@settings(max_examples=60, deadline=None)
def test_centre_crop_is_torchvisions_resize_and_crop(width: int, height: int, size: int, part: float) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, size=(height, width, 3), dtype=np.uint8))
    ours = centre_crop(image, size, part=part)
    if image.size == (size, size):
        assert ours is image
        return
    theirs = transforms.Compose(
        [
            transforms.Resize(int(size / part), interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(size),
        ]
    )(image)
    assert np.array_equal(np.asarray(ours), np.asarray(theirs))


def test_resized_crop_is_a_part_of_the_image_resized() -> None:
    # Red grows to the right and green downwards, so the corners of a crop say where it lies.
    ramp = np.linspace(0, 255, 100)
    pixels_HWC = np.stack(np.broadcast_arrays(ramp[None, :], ramp[:, None], 0.0), axis=2).astype(np.uint8)
    areas = []
    for word in sample_words(np.arange(200), seed=0, epoch=0):
        crop = np.asarray(resized_crop(Image.fromarray(pixels_HWC), word, 24)).astype(float)
        assert crop.shape == (24, 24, 3)
        width, height = (crop[12, -1, 0] - crop[12, 0, 0]) / 255, (crop[-1, 12, 1] - crop[0, 12, 1]) / 255
        assert 0.65 < width / height < 1.5
        areas.append(width * height)
    assert 0.05 < min(areas) < 0.15
    assert 0.75 < max(areas) < 1.0
