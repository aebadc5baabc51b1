"""Algorithm 1's greedy set the plain way: the baseline that `codedtool.coding.solvers.lexicode` is measured against."""

from __future__ import annotations

import math

import numba
import numpy as np
from numpy.typing import NDArray


@numba.njit(cache=True)
def _distance(word: np.uint64, other: np.uint64) -> int:
    bits = word ^ other
    bits = bits - ((bits >> np.uint64(1)) & np.uint64(0x5555555555555555))
    bits = (bits & np.uint64(0x3333333333333333)) + ((bits >> np.uint64(2)) & np.uint64(0x3333333333333333))
    bits = (bits + (bits >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((bits * np.uint64(0x0101010101010101)) >> np.uint64(56))


@numba.njit(cache=True)
def _reference(act: int, min_distance: int, num_words: int, kept: NDArray[np.uint64]) -> int:
    """Fill ``kept`` from the first word on; returns how many were kept, or -1 when ``kept`` is too short."""
    one = np.uint64(1)
    word = ~np.uint64(0) >> np.uint64(64 - act)
    kept[0] = word
    num_kept = np.uint64(1)
    last = np.uint64(0)
    for _ in range(num_words - 1):
        # Gosper's hack: the next integer with as many ones.
        lowest = word & (~word + one)
        ripple = word + lowest
        word = (((ripple ^ word) >> np.uint64(2)) // lowest) | ripple
        # Neighbouring words tend to conflict with the same kept word, so the last one to conflict is tried first, and
        # then the newest first: five times faster than oldest first, so that nothing is won against a weak loop.
        if _distance(word, kept[last]) < min_distance:
            continue
        conflict = False
        for back in range(num_kept):
            index = num_kept - one - back
            if _distance(word, kept[index]) < min_distance:
                last = index
                conflict = True
                break
        if not conflict:
            if num_kept == len(kept):
                return -1
            kept[num_kept] = word
            num_kept += one
    return np.int64(num_kept)


def reference_lexicode(length: int, act: int, min_distance: int) -> NDArray[np.uint64]:
    """The greedy set G of algorithm 1 by its own loop, one word and one kept word at a time; ascending uint64.

    Deliberately the simple loop, compiled and single-threaded, so that it can be the witness of the shipped engine
    and the baseline of its speed. ``0 < act < length <= 64`` is trusted.
    """
    num_words = math.comb(length, act)
    capacity = 1 << 15
    while True:
        kept = np.empty(min(capacity, num_words), dtype=np.uint64)
        num_kept = _reference(act, min_distance, num_words, kept)
        if num_kept >= 0:
            return kept[:num_kept].copy()
        capacity *= 8
