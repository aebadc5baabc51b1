"""The compiled inside of `beside`: algorithm 1 continued from words that are there before it begins."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from codedtool.coding.bits import popcount
from codedtool.coding.compiled import kernel

BITS = "7a3a47ae6c02"  # checksum of bits.py

# Places of the state array: the next word, words kept (the given ones first), and words decided.
NEXT, KEPT, DONE = 0, 1, 2
STATE_SIZE = 3


@kernel
def continue_greedy(
    most_shared: int, num_words: int, max_work: int, kept: NDArray[np.uint64], state: NDArray[np.uint64]
) -> None:
    """Decide the next words of one weight, ascending: keep each that shares few enough ones with all kept words.

    Ends after about ``max_work`` comparisons, when ``kept`` is full, or when all ``num_words`` are decided.
    """
    one = np.uint64(1)
    work = np.int64(0)
    while work < max_work and state[DONE] < num_words and state[KEPT] < len(kept):
        word, num_kept = state[NEXT], state[KEPT]
        start, most = np.uint64(0), np.int64(0)
        while start < num_kept and most <= most_shared:
            stop = min(num_kept, start + np.uint64(64))
            # No branch inside: the comparisons of a block are vectorised.
            for i in range(start, stop):
                most = max(most, popcount(kept[i] & word))
            start = stop
        work += np.int64(start) + 8
        if most <= most_shared:
            kept[num_kept] = word
            state[KEPT] += one
        state[DONE] += one
        # The next integer with as many ones (Gosper 1972, HAKMEM 175); the shift counts the trailing zeros and two.
        lowest = word & (~word + one)
        ripple = word + lowest
        state[NEXT] = ripple | ((word ^ ripple) >> np.uint64(popcount(lowest - one) + 2))
