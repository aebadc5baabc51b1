"""The compiled inside of `sampler`: drawing words, and comparing each with all that were kept."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from codedtool.coding.bits import popcount, random_below
from codedtool.coding.compiled import inner_kernel, kernel

BITS = "7a3a47ae6c02"  # checksum of bits.py

# Places of the state array: words kept, draws, draws since a word was added or given back, work in comparisons, and
# times that words were given back.
KEPT, DRAWS, VAIN_DRAWS, WORK, GIVEN_BACK = 0, 1, 2, 3, 4
STATE_SIZE = 5


class Rules(NamedTuple):
    """The rules for a word, and when to give up.

    Attributes:
        act: N_act.
        most_shared: how many ones two words may share.
        noise: the random amount, in 1/1024 of a word, by which a column may be taken before one that misses more.
        most_draws: the draws after which the search ends.
        most_vain: the draws in a row without a new word after which it ends.
        num_fixed: how many of the first kept words were there before and are never given back.
    """

    act: int
    most_shared: int
    noise: int
    most_draws: int
    most_vain: int
    num_fixed: int


class Room(NamedTuple):
    """The tables and the scratch of a search.

    Attributes:
        missing: (N,) the ones that each column still misses.
        kept: (K,) the kept words, as far as the state's KEPT.
        columns, keys: scratch, N numbers each.
        random_state: (1,) of `random_below`.
    """

    missing: NDArray[np.int64]
    kept: NDArray[np.uint64]
    columns: NDArray[np.int64]
    keys: NDArray[np.int64]
    random_state: NDArray[np.uint64]


@inner_kernel
def draw_word(rules: Rules, room: Room, num_left: int) -> np.uint64:
    """A random word that leaves ``num_left`` - 1 words able to fill the columns exactly; bit c is ``missing[c]``'s.

    Columns that miss most come first, up to a random amount below ``rules.noise``; a column that all words left
    must hold is always taken, a full one never.
    """
    missing, columns, keys, random_state = room.missing, room.columns, room.keys, room.random_state
    act, noise = rules.act, rules.noise
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


@inner_kernel
def is_free(word: np.uint64, kept: NDArray[np.uint64], most_shared: int, state: NDArray[np.int64]) -> bool:
    """Whether no kept word shares too many ones with ``word``; adds the comparisons to the state's WORK."""
    num_kept = np.uint64(state[KEPT])
    start = np.uint64(0)
    while start < num_kept:
        stop = min(num_kept, start + np.uint64(64))
        # No branch inside: the comparisons of a block are vectorised.
        most = np.int64(0)
        for i in range(start, stop):
            most = max(most, popcount(kept[i] & word))
        if most > most_shared:
            state[WORK] += np.int64(stop)
            return False
        start = stop
    state[WORK] += np.int64(num_kept)
    return True


@inner_kernel
def count_ones(word: np.uint64, sign: int, missing: NDArray[np.int64]) -> None:
    """Add ``sign`` to ``missing`` at the ones of ``word``."""
    for c in range(len(missing)):
        missing[c] += sign * np.int64((word >> np.uint64(c)) & np.uint64(1))


@kernel
def sample(rules: Rules, room: Room, max_work: int, state: NDArray[np.int64]) -> None:
    """Draw words and keep those that share few enough ones with all kept words, until ``room.kept`` is full.

    Near the end, where the columns leave little choice, a few kept words are given back after some draws in vain, a
    few more draws every time. Ends after about ``max_work`` comparisons, or as ``rules`` says.
    """
    missing, kept, random_state = room.missing, room.kept, room.random_state
    last_work = state[WORK] + max_work
    while (
        state[WORK] < last_work
        and state[KEPT] < len(kept)
        and state[DRAWS] < rules.most_draws
        and state[VAIN_DRAWS] < rules.most_vain
    ):
        num_left = len(kept) - state[KEPT]
        word = draw_word(rules, room, num_left)
        state[DRAWS] += 1
        # Drawing the word, in units of one comparison.
        state[WORK] += 8 * len(missing)
        if is_free(word, kept, rules.most_shared, state):
            kept[state[KEPT]] = word
            state[KEPT] += 1
            state[VAIN_DRAWS] = 0
            count_ones(word, -1, missing)
            continue
        state[VAIN_DRAWS] += 1
        if num_left <= 8 and state[VAIN_DRAWS] > 32 + state[GIVEN_BACK]:
            state[VAIN_DRAWS] = 0
            state[GIVEN_BACK] += 1
            for _ in range(min(4, state[KEPT] - rules.num_fixed)):
                place = rules.num_fixed + random_below(random_state, state[KEPT] - rules.num_fixed)
                state[KEPT] -= 1
                count_ones(kept[place], 1, missing)
                kept[place] = kept[state[KEPT]]
