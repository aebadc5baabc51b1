"""The data sets that need no files are the same in every call."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from codedtool.data import load_dataset

pytestmark = pytest.mark.quick


def test_digits_are_split_by_class_and_always_the_same() -> None:
    data, again = load_dataset("digits"), load_dataset("digits")
    assert data.classes == tuple("0123456789")
    assert len(data.train) + len(data.val) == 1797
    for some, other in ((data.train, again.train), (data.val, again.val)):
        assert np.array_equal(some.images, other.images)
        assert np.array_equal(some.targets, other.targets)
    parts = np.bincount(data.val.targets) / np.bincount(np.concatenate([data.train.targets, data.val.targets]))
    assert np.abs(parts - 0.2).max() < 0.01
    # Pinned: a run's metrics are only comparable while the split stays what it is.
    digest = hashlib.sha256(data.val.images.tobytes() + data.val.targets.tobytes()).hexdigest()
    assert digest == "f36e6654e46765a748522d6a3551c532b7f6979a36da4ba7fd23671fbd0be17c"
    pixels = data.train.images / 255
    assert data.train.images.max() == 255
    assert pixels.mean(axis=(0, 1, 2)) == pytest.approx(data.normalization.mean, abs=1e-4)
    assert pixels.std(axis=(0, 1, 2)) == pytest.approx(data.normalization.std, abs=1e-4)


def test_synthetic_images_are_the_same_in_every_call_and_can_be_learned() -> None:
    data, again = load_dataset("synthetic:37"), load_dataset("synthetic:37")
    assert data.lines()[0].endswith("; made up, not real images")
    assert len(set(data.classes)) == 37
    assert list(data.classes) == sorted(data.classes)
    assert np.array_equal(data.train.images, again.train.images)
    assert np.bincount(data.val.targets).tolist() == [16] * 37
    assert not np.array_equal(data.train.images[0], data.train.images[1])
    assert not np.array_equal(load_dataset("synthetic:38").train.images[0], data.train.images[0])
    means = np.stack([data.train.images[data.train.targets == k].mean(axis=0).ravel() for k in range(37)])
    flat = data.val.images.reshape(len(data.val), -1).astype(float)
    nearest = ((flat[:, None] - means[None]) ** 2).sum(axis=2).argmin(axis=1)
    assert (nearest == data.val.targets).mean() > 0.9
    pixels = load_dataset("synthetic:1000").train.images / np.float32(255)
    assert pixels.mean() == pytest.approx(data.normalization.mean[0], abs=0.01)
    assert pixels.std() == pytest.approx(data.normalization.std[0], abs=0.01)
