"""The compiled inside of `cyclic`: all words of one weight in a linear code.

A code is given by ``basis``, uint64 words that span it, or by ``checks``, the column of its parity check matrix at each
bit as an integer: a word is in the code when the checks of its ones xor to zero.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from codedtool.coding.bits import popcount
from codedtool.coding.compiled import kernel

BITS = "7a3a47ae6c02"  # checksum of bits.py


@kernel
def combine_low(basis: NDArray[np.uint64], sums: NDArray[np.uint64]) -> None:
    """Fill ``sums`` (2^len(basis)) with all sums of ``basis``."""
    sums[0] = np.uint64(0)
    size = 1
    for word in basis:
        for i in range(size):
            sums[size + i] = sums[i] ^ word
        size *= 2


@kernel
def words_of_weight(
    high_basis: NDArray[np.uint64],
    low_sums: NDArray[np.uint64],
    act: int,
    first: int,
    last: int,
    out: NDArray[np.uint64],
) -> np.int64:
    """Write to ``out`` the words of weight ``act`` among high sum number first..last-1 plus any of ``low_sums``.

    Returns how many there are, which may be more than ``out`` holds; only the first fit.
    """
    num = np.int64(0)
    for number in range(first, last):
        high = np.uint64(0)
        for i in range(len(high_basis)):
            if (number >> i) & 1:
                high ^= high_basis[i]
        for j in range(np.uint64(len(low_sums))):
            word = high ^ low_sums[j]
            if popcount(word) == act:
                if num < len(out):
                    out[num] = word
                num += 1
    return num


@kernel
def subsets(
    checks: NDArray[np.uint64], chosen: NDArray[np.int64], words: NDArray[np.uint64], syndromes: NDArray[np.uint64]
) -> None:
    """All words of weight ``len(chosen)`` on ``len(checks)`` bits, ascending, and the xor of the checks of their ones.

    ``chosen``, 0, 1, ... at first, holds the ones of the present word.
    """
    length, size = len(checks), len(chosen)
    for place in range(len(words)):
        word = np.uint64(0)
        syndrome = np.uint64(0)
        for c in chosen:
            word |= np.uint64(1) << np.uint64(c)
            syndrome ^= checks[c]
        words[place] = word
        syndromes[place] = syndrome
        # Colexicographic order, which is that of the integers: raise the first one that can be, reset those below it.
        i = 0
        while i < size - 1 and chosen[i] + 1 == chosen[i + 1]:
            chosen[i] = i
            i += 1
        chosen[i] += 1
        if chosen[i] >= length:
            break


class Halves(NamedTuple):
    """Left and right halves of words, to be joined where their syndromes are equal.

    Attributes:
        left_words: the left halves.
        left_groups: the group of right halves with the same syndrome, or -1 if there is none.
        right_words: the right halves, sorted by syndrome; group s is
            ``right_words[right_starts[s]:right_starts[s + 1]]``.
        right_starts: where each group starts.
    """

    left_words: NDArray[np.uint64]
    left_groups: NDArray[np.int64]
    right_words: NDArray[np.uint64]
    right_starts: NDArray[np.int64]


@kernel
def join_halves(halves: Halves, first: int, last: int, out: NDArray[np.uint64]) -> np.int64:
    """Words made of a left half and a right half of equal syndrome, all bits of the left below all of the right.

    Left halves ``first``..``last`` - 1 are done. Returns how many words there are, which may be more than ``out``
    holds; only the first fit.
    """
    num = np.int64(0)
    for i in range(first, last):
        group = halves.left_groups[i]
        if group < 0:
            continue
        left = halves.left_words[i]
        for j in range(halves.right_starts[group], halves.right_starts[group + 1]):
            right = halves.right_words[j]
            if (right & (~right + np.uint64(1))) > left:
                if num < len(out):
                    out[num] = left | right
                num += 1
    return num
