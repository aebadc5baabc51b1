"""Codewords as unsigned 64-bit integers and as rows of a 0/1 table; numpy only.

Column 0 of a table is the leftmost digit of the paper's table 4 and the most significant of the word's N bits,
so sorting words ascending is the order of line 12 of algorithm 1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MAX_LENGTH = 64

# Pairs compared at a time: 32 MB of results, small enough for any machine and large enough to amortise numpy's calls.
_PAIR_BLOCK = 1 << 22


def table_to_words(table_KN: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """The integer of each row of a (K, N) table of 0/1, N <= 64; returns (K,) uint64."""
    _, length = table_KN.shape
    weights = np.uint64(1) << np.arange(length - 1, -1, -1, dtype=np.uint64)
    return (table_KN.astype(np.uint64) * weights).sum(axis=1, dtype=np.uint64)


def words_to_table(words_K: NDArray[np.uint64], length: int) -> NDArray[np.uint8]:
    """The (K, N) uint8 table, C order, whose rows spell ``words_K`` in ``length`` binary digits."""
    shifts = np.arange(length - 1, -1, -1, dtype=np.uint64)
    bits = (np.asarray(words_K, dtype=np.uint64)[:, None] >> shifts) & np.uint64(1)
    return np.ascontiguousarray(bits, dtype=np.uint8)


def all_distances(words_K: NDArray[np.uint64]) -> NDArray[np.int64]:
    """The (K, K) Hamming distances of all pairs of words; for a few thousand words at most."""
    return np.bitwise_count(words_K[:, None] ^ words_K[None]).astype(np.int64)


def distance_histogram(words_K: NDArray[np.uint64]) -> dict[int, int]:
    """How many unordered pairs of words lie at each Hamming distance.

    Args:
        words_K: (K,) uint64.

    Returns:
        distance -> number of pairs, ascending distances, only those that occur; counts sum to K(K-1)/2.

    Takes O(K^2) time and O(1) memory beyond a 32 MB block.
    """
    words = np.ascontiguousarray(words_K, dtype=np.uint64)
    num_words = len(words)
    counts = np.zeros(MAX_LENGTH + 1, dtype=np.int64)
    start = 0
    while start < num_words:
        rest = num_words - start
        stop = min(num_words, start + max(1, _PAIR_BLOCK // rest))
        distances = np.bitwise_count(words[start:stop, None] ^ words[None, start:])
        block = np.bincount(distances.ravel(), minlength=MAX_LENGTH + 1)
        # The leading square of the block holds each of its pairs twice and every word against itself.
        square = np.bincount(distances[:, : stop - start].ravel(), minlength=MAX_LENGTH + 1)
        square[0] -= stop - start
        block[0] -= stop - start
        counts += block - square // 2
        start = stop
    return {int(d): int(counts[d]) for d in np.flatnonzero(counts)}
