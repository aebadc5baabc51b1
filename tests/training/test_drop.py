"""Masks of dropSubNNs against SplitMix64 in unbounded integers, and their statistics."""

from __future__ import annotations

import pytest
import torch

from codedtool.training.drop import drop_key, drop_mask

pytestmark = pytest.mark.quick

WORD = 2**64


def masks(indices: torch.Tensor, *, seed: int = 0, epoch: int = 0, group: int = 0, p_drop: float = 0.1) -> torch.Tensor:
    return drop_mask(indices, drop_key(seed=seed, epoch=epoch, group=group), length=20, p_drop=p_drop)


def splitmix64(state: int) -> int:
    """Steele, Lea & Flood (2014) in Python's unbounded integers."""
    word = (state + 0x9E3779B97F4A7C15) % WORD
    word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9 % WORD
    word = (word ^ (word >> 27)) * 0x94D049BB133111EB % WORD
    return word ^ (word >> 31)


def test_drop_masks_are_splitmix64_of_seed_epoch_group_sample_and_subnn() -> None:
    mask = masks(torch.tensor([0, 7, 49_999]), seed=5, epoch=3, group=1, p_drop=0.3)
    for row, index in enumerate((0, 7, 49_999)):
        key = splitmix64(splitmix64(splitmix64(5 * 0x9E3779B97F4A7C15 + 3) + 1) + index)
        for column in range(20):
            dropped = splitmix64(key + column) >> 11 < int(0.3 * 2**53)
            assert mask[row, column].item() == pytest.approx(0.0 if dropped else 1 / 0.7)


def test_seeds_share_no_masks_in_any_epoch() -> None:
    indices = torch.arange(1000)
    keys = {
        (seed, epoch): drop_key(seed=seed, epoch=epoch, group=0).item() for seed in range(20) for epoch in range(20)
    }
    assert len(set(keys.values())) == 400
    assert not torch.equal(masks(indices, seed=0, epoch=1), masks(indices, seed=1, epoch=0))


def test_drop_masks_know_only_the_sample_not_its_place_in_the_batch() -> None:
    indices = torch.randperm(1000, generator=torch.Generator().manual_seed(1))
    whole = masks(indices, epoch=2)
    parts = torch.cat([masks(part, epoch=2) for part in indices.split(7)])
    assert torch.equal(whole, parts)


def test_drop_masks_drop_with_p_and_keep_the_mean() -> None:
    mask = masks(torch.arange(50_000))
    # A million draws: one standard deviation of the share is 0.0003.
    assert (mask == 0).float().mean().item() == pytest.approx(0.1, abs=0.0015)
    assert mask.mean(0).sub(1).abs().max().item() < 0.01
    correlation = torch.corrcoef((mask > 0).float().T) - torch.eye(20)
    assert correlation.abs().max().item() < 0.03
    for other in ({"seed": 1}, {"epoch": 1}, {"group": 1}):
        different = masks(torch.arange(50_000), **other) != mask
        assert different.float().mean().item() == pytest.approx(0.18, abs=0.01)
