"""The compiled inside of `assignment`: annealing over which class gets which codeword.

Similarities and overlaps are whole numbers, so that the gain kept up to date over millions of swaps stays exact.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from codedtool.coding.bits import copy_to, scaled, scrambled, xorshift
from codedtool.coding.compiled import inner_kernel, kernel

BITS = "7a3a47ae6c02"  # checksum of bits.py

# Places of the totals of an annealing: the sum now, and the greatest seen.
NOW, GREATEST = 0, 1


class Classes(NamedTuple):
    """Pairs of classes in the present order.

    Attributes:
        similarity_KK: (K, K) int64, symmetric, diagonal 0.
        overlaps_KK: (K, K) int64, the ones that the codewords of each two classes share, diagonal 0.
        order: (K,) the row of each class.
    """

    similarity_KK: NDArray[np.int64]
    overlaps_KK: NDArray[np.int64]
    order: NDArray[np.int64]


@kernel
def anneal(
    classes: Classes,
    slacks: NDArray[np.int64],
    random_state: NDArray[np.uint64],
    num_steps: int,
    totals: NDArray[np.int64],
    best_order: NDArray[np.int64],
) -> None:
    """``num_steps`` proposals to swap the codewords of two classes, to raise sum_{i<k} similarity * overlap.

    A swap is made if it lowers that sum by no more than a random entry of ``slacks`` (2^10 quantiles of the
    exponential distribution at the present temperature: Metropolis' rule). ``totals`` is (NOW, GREATEST);
    ``best_order`` is the order of the greatest.
    """
    order = classes.order
    num_classes = len(order)
    bits = random_state[0]
    for _ in range(num_steps):
        bits = xorshift(bits)
        draw = scrambled(bits)
        i = scaled(draw >> np.uint64(37), num_classes)
        j = scaled((draw >> np.uint64(10)) & np.uint64(0x7FFFFFF), num_classes)
        if i == j:
            continue
        gain = swap_gain(classes.similarity_KK, classes.overlaps_KK, i, j)
        if gain < -slacks[np.int64(draw & np.uint64(0x3FF))]:
            continue
        swap(classes.overlaps_KK, order, i, j)
        totals[NOW] += gain
        if totals[NOW] > totals[GREATEST]:
            totals[GREATEST] = totals[NOW]
            copy_to(best_order, order)
    random_state[0] = bits


@kernel
def climb(classes: Classes, first: int, last: int) -> np.int64:
    """Make every swap of a class first..last-1 with a later one that raises the sum; returns how many were made."""
    made = np.int64(0)
    for i in range(first, last):
        for j in range(i + 1, len(classes.order)):
            if swap_gain(classes.similarity_KK, classes.overlaps_KK, i, j) > 0:
                swap(classes.overlaps_KK, classes.order, i, j)
                made += 1
    return made


@kernel
def swap_gain(
    similarity_KK: NDArray[np.int64], overlaps_KK: NDArray[np.int64], i: int | np.int64, j: int | np.int64
) -> np.int64:
    """The change of the sum if classes i and j swap codewords; O(K)."""
    similar_i, similar_j, overlap_i, overlap_j = similarity_KK[i], similarity_KK[j], overlaps_KK[i], overlaps_KK[j]
    total = np.int64(0)
    for k in range(len(similar_i)):
        total += (similar_i[k] - similar_j[k]) * (overlap_j[k] - overlap_i[k])
    # The pair (i, j) itself keeps its overlap; k = i and k = j each added -similarity * overlap to the sum.
    return total + 2 * similar_i[j] * overlap_i[j]


@inner_kernel
def swap(overlaps_KK: NDArray[np.int64], order: NDArray[np.int64], i: int | np.int64, j: int | np.int64) -> None:
    """Swap the codewords of classes i and j."""
    order[i], order[j] = order[j], order[i]
    for k in range(len(order)):
        if k not in (i, j):
            to_i, to_j = overlaps_KK[i, k], overlaps_KK[j, k]
            overlaps_KK[i, k] = overlaps_KK[k, i] = to_j
            overlaps_KK[j, k] = overlaps_KK[k, j] = to_i
