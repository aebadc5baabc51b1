"""The compiled inside of `assignment`: annealing over which class gets which codeword.

``similarity_KK`` (K, K) int64 is symmetric with diagonal 0; ``overlaps_KK`` (K, K) int64 holds the ones that the
codewords of each two classes share in the present order, diagonal 0. Whole numbers, so that the gain kept up to date
over millions of swaps stays exact.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from codedtool.coding.compiled import kernel


@kernel
def anneal(
    similarity_KK: NDArray[np.int64],
    overlaps_KK: NDArray[np.int64],
    order: NDArray[np.int64],
    slacks: NDArray[np.int64],
    state: NDArray[np.uint64],
    num_steps: int,
    totals: NDArray[np.int64],
    best_order: NDArray[np.int64],
) -> None:
    """``num_steps`` proposals to swap the codewords of two classes, to raise sum_{i<k} similarity * overlap.

    A swap is made when it lowers that sum by no more than a random entry of ``slacks`` (2^10 quantiles of the
    exponential distribution at the present temperature: Metropolis' rule). ``totals`` is (sum now, greatest seen),
    ``best_order`` the order of the greatest. ``state`` is a xorshift64* generator (S. Vigna 2016).
    """
    num_classes = len(order)
    bits = state[0]
    for _ in range(num_steps):
        bits ^= bits >> np.uint64(12)
        bits ^= bits << np.uint64(25)
        bits ^= bits >> np.uint64(27)
        draw = bits * np.uint64(0x2545F4914F6CDD1D)
        i = np.int64(((draw >> np.uint64(37)) * np.uint64(num_classes)) >> np.uint64(27))
        low = (draw >> np.uint64(10)) & np.uint64(0x7FFFFFF)
        j = np.int64((low * np.uint64(num_classes)) >> np.uint64(27))
        if i == j:
            continue
        gain = swap_gain(similarity_KK, overlaps_KK, i, j)
        if gain < -slacks[np.int64(draw & np.uint64(0x3FF))]:
            continue
        swap(overlaps_KK, order, i, j)
        totals[0] += gain
        if totals[0] > totals[1]:
            totals[1] = totals[0]
            best_order[:] = order
    state[0] = bits


@kernel
def climb(
    similarity_KK: NDArray[np.int64],
    overlaps_KK: NDArray[np.int64],
    order: NDArray[np.int64],
    first: int,
    last: int,
    totals: NDArray[np.int64],
) -> np.int64:
    """Make every swap of a class first..last-1 with a later one that raises the sum; returns how many were made."""
    made = np.int64(0)
    for i in range(first, last):
        for j in range(i + 1, len(order)):
            gain = swap_gain(similarity_KK, overlaps_KK, i, j)
            if gain > 0:
                swap(overlaps_KK, order, i, j)
                totals[0] += gain
                made += 1
    return made


@kernel
def swap_gain(
    similarity_KK: NDArray[np.int64], overlaps_KK: NDArray[np.int64], i: int | np.int64, j: int | np.int64
) -> np.int64:
    """What swapping the codewords of classes i and j adds to the sum; O(K)."""
    similar_i, similar_j, overlap_i, overlap_j = similarity_KK[i], similarity_KK[j], overlaps_KK[i], overlaps_KK[j]
    total = np.int64(0)
    for k in range(len(similar_i)):
        total += (similar_i[k] - similar_j[k]) * (overlap_j[k] - overlap_i[k])
    # The pair (i, j) itself keeps its overlap; k = i and k = j each added -similarity * overlap to the sum.
    return total + 2 * similar_i[j] * overlap_i[j]


@kernel
def swap(overlaps_KK: NDArray[np.int64], order: NDArray[np.int64], i: int | np.int64, j: int | np.int64) -> None:
    """Swap the codewords of classes i and j."""
    order[i], order[j] = order[j], order[i]
    for k in range(len(order)):
        if k not in (i, j):
            to_i, to_j = overlaps_KK[i, k], overlaps_KK[j, k]
            overlaps_KK[i, k] = overlaps_KK[k, i] = to_j
            overlaps_KK[j, k] = overlaps_KK[k, j] = to_i
