"""The compiled inside of `sampler`: drawing words, and comparing each with all that were kept."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from codedtool.coding.compiled import kernel


@kernel
def popcount(bits: np.uint64) -> np.int64:
    """The number of ones of a uint64; written the way that LLVM turns into one instruction."""
    bits = bits - ((bits >> np.uint64(1)) & np.uint64(0x5555555555555555))
    bits = (bits & np.uint64(0x3333333333333333)) + ((bits >> np.uint64(2)) & np.uint64(0x3333333333333333))
    bits = (bits + (bits >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((bits * np.uint64(0x0101010101010101)) >> np.uint64(56))


@kernel
def random_below(state: NDArray[np.uint64], bound: int) -> np.int64:
    """A whole number from 0 to ``bound`` - 1 (splitmix64; G. Steele, D. Lea, C. Flood, 2014); ``state`` moves on."""
    state[0] += np.uint64(0x9E3779B97F4A7C15)
    z = state[0]
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return np.int64(z % np.uint64(bound))


@kernel
def draw_word(
    missing: NDArray[np.int64],
    num_left: int,
    act: int,
    noise: int,
    random_state: NDArray[np.uint64],
    columns: NDArray[np.int64],
    keys: NDArray[np.int64],
) -> np.uint64:
    """A random word that leaves ``num_left`` - 1 words able to fill the columns exactly; bit c is ``missing[c]``'s.

    Columns that miss most come first, up to a random amount below ``noise`` (in 1/1024); a column that all words left
    must hold is always taken, a full one never. ``columns`` and ``keys`` are room for N numbers each.
    """
    length = len(missing)
    for c in range(length):
        columns[c] = c
        if missing[c] == num_left:
            keys[c] = 1 << 62
        elif missing[c] == 0:
            keys[c] = -1
        else:
            keys[c] = 1024 * missing[c] + random_below(random_state, noise)
    # The first `act` places of quickselect, descending.
    low, high = 0, length - 1
    while low < high:
        pivot = keys[columns[low + random_below(random_state, high - low + 1)]]
        i, j = low, high
        while i <= j:
            while keys[columns[i]] > pivot:
                i += 1
            while keys[columns[j]] < pivot:
                j -= 1
            if i <= j:
                columns[i], columns[j] = columns[j], columns[i]
                i += 1
                j -= 1
        if act - 1 <= j:
            high = j
        elif act - 1 >= i:
            low = i
        else:
            break
    word = np.uint64(0)
    for i in range(act):
        word |= np.uint64(1) << np.uint64(columns[i])
    return word


@kernel
def is_free(word: np.uint64, kept: NDArray[np.uint64], most_shared: int, state: NDArray[np.int64]) -> bool:
    """Whether no kept word shares too many ones with ``word``.

    ``state[0]`` is the number of kept words; ``state[3]`` grows by the number of comparisons.
    """
    num_kept = np.uint64(state[0])
    start = np.uint64(0)
    while start < num_kept:
        stop = min(num_kept, start + np.uint64(64))
        # No branch inside: the comparisons of a block are vectorised.
        most = np.int64(0)
        for i in range(start, stop):
            most = max(most, popcount(kept[i] & word))
        if most > most_shared:
            state[3] += np.int64(stop)
            return False
        start = stop
    state[3] += np.int64(num_kept)
    return True


@kernel
def count_ones(word: np.uint64, sign: int, missing: NDArray[np.int64]) -> None:
    """Add ``sign`` to ``missing`` at the ones of ``word``."""
    for c in range(len(missing)):
        missing[c] += sign * np.int64((word >> np.uint64(c)) & np.uint64(1))


@kernel
def sample(
    max_work: int,
    act: int,
    most_shared: int,
    noise: int,
    most_draws: int,
    most_vain: int,
    missing: NDArray[np.int64],
    kept: NDArray[np.uint64],
    columns: NDArray[np.int64],
    keys: NDArray[np.int64],
    random_state: NDArray[np.uint64],
    state: NDArray[np.int64],
) -> None:
    """Draw words and keep those that share at most ``most_shared`` ones with all kept, until ``kept`` is full.

    Near the end, where the columns leave little choice, a few kept words are given back after some draws in vain, a
    few more draws every time.

    ``state`` is (kept, draws, draws since a word was added or given back, work, times given back). Ends after about
    ``max_work`` comparisons, after ``most_draws`` draws in all, or after ``most_vain`` in vain.
    """
    last_work = state[3] + max_work
    while state[3] < last_work and state[0] < len(kept) and state[1] < most_draws and state[2] < most_vain:
        num_left = len(kept) - state[0]
        word = draw_word(missing, num_left, act, noise, random_state, columns, keys)
        state[1] += 1
        # Drawing the word, in units of one comparison.
        state[3] += 8 * len(missing)
        if is_free(word, kept, most_shared, state):
            kept[state[0]] = word
            state[0] += 1
            state[2] = 0
            count_ones(word, -1, missing)
            continue
        state[2] += 1
        if num_left <= 8 and state[2] > 32 + state[4]:
            state[2] = 0
            state[4] += 1
            for _ in range(min(4, state[0])):
                place = random_below(random_state, state[0])
                state[0] -= 1
                count_ones(kept[place], 1, missing)
                kept[place] = kept[state[0]]
