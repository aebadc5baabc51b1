"""Masks of dropSubNNs (section 3.1.3), computed from seed, epoch and sample alone.

They come from a counter-based generator instead of the device's own. So they are the same on every device, for every
split of a batch over ranks, workers and micro-batches, and after a resume in the middle of an epoch.
"""

from __future__ import annotations

import torch

# SplitMix64 (Steele, Lea & Flood, 2014): the increment and the two multipliers, as signed 64-bit integers.
_INCREMENT = 0x9E3779B97F4A7C15 - 2**64
_FIRST = 0xBF58476D1CE4E5B9 - 2**64
_SECOND = 0x94D049BB133111EB - 2**64

_BITS = 53


def drop_key(*, seed: int, epoch: int, group: int) -> torch.Tensor:
    """Compute the key from which all masks of one epoch and drop group are drawn.

    Args:
        seed: the recipe's seed.
        epoch: the epoch, from 0.
        group: number of the drop group, from 0 (see `CodedNetwork`).

    Returns:
        (1,) int64 on the CPU. It is a tensor because XLA would compile the step again for every new Python number.
    """
    # Seeds are far apart: else epoch 1 of a seed would have the masks of epoch 0 of the next one.
    key = torch.tensor([seed], dtype=torch.int64) * _INCREMENT
    for part in (epoch, group):
        key = _mix(key + part)
    return key


def drop_mask(indices_B: torch.Tensor, key: torch.Tensor, *, length: int, p_drop: float) -> torch.Tensor:
    """Draw the factors by which dropSubNNs multiplies the subNNs of one drop group.

    Args:
        indices_B: (B,) int64, the samples' numbers (`codedtool.data.Batch.indices`).
        key: result of `drop_key`, on the device of ``indices_B``.
        length: N, the number of subNNs.
        p_drop: probability of dropping a subNN, 0 <= p < 1.

    Returns:
        (B, N) float32 on the same device: 0 for dropped subNNs, 1 / (1 - p_drop) for the others.
    """
    words_B = _mix(key + indices_B)
    columns_N = torch.arange(length, dtype=torch.int64, device=indices_B.device)
    words_BN = _mix(words_B[:, None] + columns_N[None, :])
    uniform_BN = _shift(words_BN, 64 - _BITS)
    return (uniform_BN >= int(p_drop * 2**_BITS)).to(torch.float32) / (1.0 - p_drop)


def _mix(words: torch.Tensor) -> torch.Tensor:
    """Compute SplitMix64's output for each state, int64 to int64; overflow wraps around."""
    words = words + _INCREMENT
    words = (words ^ _shift(words, 30)) * _FIRST
    words = (words ^ _shift(words, 27)) * _SECOND
    return words ^ _shift(words, 31)


def _shift(words: torch.Tensor, bits: int) -> torch.Tensor:
    """Shift int64 right by 1 to 62 bits, filling with zeros.

    The sign bit is shifted separately: XLA divides instead of shifting, which differs for negative numbers.
    """
    sign = (words < 0).to(torch.int64) * (1 << (63 - bits))
    return ((words & (2**63 - 1)) >> bits) + sign
