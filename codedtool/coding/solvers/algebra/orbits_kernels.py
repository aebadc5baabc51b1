"""The compiled inside of `orbits`: orbits of words under a group of permutations, and the search for a set of them.

``shifted[g, c]`` is the bit to which permutation g sends bit c, as a uint64 with that one bit set; the identity is
g = 0. A word stands for its orbit when it is the largest of it. Two words of one weight at distance 2h share w - h
ones, so distances are compared as numbers of shared ones: ``most_shared`` is w - H_min / 2.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from codedtool.coding.bits import copy_to, lowest_bit, popcount, random_below
from codedtool.coding.compiled import inner_kernel, kernel

BITS = "7a3a47ae6c02"  # checksum of bits.py

# Places of the state of a search: steps, the present number of words, the row to give away next, work in comparisons,
# the most words so far, and the step of the last improvement or restart.
STEPS, SIZE, NEXT_ROW, WORK, BEST_SIZE, LAST_CHANGE = 0, 1, 2, 3, 4, 5
STATE_SIZE = 6


class Listing(NamedTuple):
    """Room for the admissible orbits.

    Attributes:
        words: the word that stands for each orbit.
        sizes: how many words each orbit has.
        num_kept: (1,) how many orbits are listed.
        rest: (1,) the lower ones of the next word to visit.
        points: scratch, ``act`` numbers.
    """

    words: NDArray[np.uint64]
    sizes: NDArray[np.int64]
    num_kept: NDArray[np.int64]
    rest: NDArray[np.uint64]
    points: NDArray[np.int64]


class Orbits(NamedTuple):
    """The orbits to choose from.

    Attributes:
        shifted: (order, N) as in the module's docstring.
        words: the word that stands for each orbit.
        sizes: how many words each orbit has.
        most_shared: how many ones two words may share.
    """

    shifted: NDArray[np.uint64]
    words: NDArray[np.uint64]
    sizes: NDArray[np.int64]
    most_shared: int


class Rows(NamedTuple):
    """Conflicts of the orbits that were needed last, as bitsets.

    Attributes:
        rows: one bitset per row: the orbits that conflict with the row's orbit.
        slot_of: the row of each orbit, or -1.
        owner: the orbit of each row, or -1.
        images: scratch for the words of one orbit.
        copied: scratch for one row.
    """

    rows: NDArray[np.uint64]
    slot_of: NDArray[np.int32]
    owner: NDArray[np.int32]
    images: NDArray[np.uint64]
    copied: NDArray[np.uint64]


class Choice(NamedTuple):
    """The present set of orbits.

    Attributes:
        is_chosen: which orbits are in it.
        blocked: the number of words that leave when an orbit is added.
        tabu_until: the step until which an orbit may not come back.
        best_chosen: the set with the most words so far.
        random_state: (1,) of `random_below`.
    """

    is_chosen: NDArray[np.bool_]
    blocked: NDArray[np.int32]
    tabu_until: NDArray[np.int64]
    best_chosen: NDArray[np.bool_]
    random_state: NDArray[np.uint64]


class Limits(NamedTuple):
    """When a search ends: at this step, after this work, or with a new best of at least ``goal`` words.

    After ``patience`` steps without a new best, half of the present set is dropped.
    """

    last_step: int
    last_work: int
    goal: int
    patience: int


@kernel
def enumerate_orbits(
    shifted: NDArray[np.uint64], act: int, most_shared: int, top: int, num_visits: int, listing: Listing
) -> bool:
    """Visit the next words whose highest one is bit ``top``; list those that stand for an admissible orbit.

    ``listing.rest`` holds the other ``act`` - 1 ones of the next word; words come in ascending order. Ends after about
    ``num_visits`` images, or when the listing is full (returns True), or when no word is left (True).
    """
    high = np.uint64(1) << np.uint64(top)
    rest = listing.rest[0]
    num_elements = len(shifted)
    points = listing.points
    visits = 0
    while visits < num_visits:
        if rest >= high:
            return True
        word = rest | high
        bits = word
        for i in range(act):
            points[i] = lowest_bit(bits)
            bits &= bits - np.uint64(1)
        stabiliser = 0
        good = True
        for g in range(num_elements):
            image = np.uint64(0)
            for i in range(act):
                image |= shifted[g, points[i]]
            visits += 1
            if image == word:
                stabiliser += 1
            elif image > word or popcount(image & word) > most_shared:
                good = False
                break
        if good:
            place = listing.num_kept[0]
            if place == len(listing.words):
                return True
            listing.words[place] = word
            listing.sizes[place] = num_elements // stabiliser
            listing.num_kept[0] += 1
        # The next larger integer with as many ones (R. Gosper, HAKMEM item 175).
        if rest == 0:
            return True
        lowest = rest & (~rest + np.uint64(1))
        ripple = rest + lowest
        rest = ripple | (((rest ^ ripple) >> np.uint64(2)) >> np.uint64(lowest_bit(lowest)))
        listing.rest[0] = rest
    return False


@inner_kernel
def sort(words: NDArray[np.uint64], size: int) -> None:
    """Sort the first ``size`` words, ascending (D. Shell 1959); numpy's sort costs the compiler seconds."""
    gap = size
    while gap > 1:
        gap = 1 if gap < 5 else 5 * gap // 11
        for i in range(gap, size):
            word = words[i]
            place = i
            while place >= gap and words[place - gap] > word:
                words[place] = words[place - gap]
                place -= gap
            words[place] = word


@kernel
def orbit_of(shifted: NDArray[np.uint64], word: np.uint64, out: NDArray[np.uint64]) -> np.int64:
    """Write the distinct images of ``word`` to ``out`` (as long as the group's order), ascending; returns how many."""
    for g in range(len(shifted)):
        image = np.uint64(0)
        bits = word
        while bits != 0:
            image |= shifted[g, lowest_bit(bits)]
            bits &= bits - np.uint64(1)
        out[g] = image
    sort(out, len(shifted))
    num = 1
    for g in range(1, len(shifted)):
        if out[g] != out[num - 1]:
            out[num] = out[g]
            num += 1
    return np.int64(num)


@inner_kernel
def fill_row(orbits: Orbits, orbit: int, images: NDArray[np.uint64], row: NDArray[np.uint64]) -> np.int64:
    """Set the bits of ``row`` for the orbits that conflict with ``orbit``, not itself; returns the pairs compared."""
    words, most_shared = orbits.words, orbits.most_shared
    size = np.uint64(orbit_of(orbits.shifted, words[orbit], images))
    for limb in range(len(row)):
        row[limb] = np.uint64(0)
    work = np.uint64(0)
    for other in range(np.uint64(len(words))):
        word = words[other]
        for i in range(size):
            if popcount(images[i] & word) > most_shared:
                row[other >> np.uint64(6)] |= np.uint64(1) << (other & np.uint64(63))
                work += i
                break
        else:
            work += size
    own = np.uint64(orbit)
    row[own >> np.uint64(6)] &= ~(np.uint64(1) << (own & np.uint64(63)))
    return np.int64(work)


@inner_kernel
def row_slot(orbits: Orbits, rows: Rows, orbit: int, state: NDArray[np.int64]) -> np.int64:
    """The row with the conflicts of ``orbit``, filled in place of the oldest one if it is not there."""
    slot = rows.slot_of[orbit]
    if slot < 0:
        slot = np.int32(state[NEXT_ROW])
        state[NEXT_ROW] = (state[NEXT_ROW] + 1) % len(rows.rows)
        if rows.owner[slot] >= 0:
            rows.slot_of[rows.owner[slot]] = -1
        rows.owner[slot] = orbit
        rows.slot_of[orbit] = slot
        state[WORK] += fill_row(orbits, orbit, rows.images, rows.rows[slot])
    return np.int64(slot)


@inner_kernel
def add_to_blocked(row: NDArray[np.uint64], amount: int, blocked: NDArray[np.int32]) -> None:
    """Add ``amount`` to ``blocked`` of every orbit in ``row``."""
    for limb in range(len(row)):
        bits = row[limb]
        while bits != 0:
            blocked[64 * limb + lowest_bit(bits)] += amount
            bits &= bits - np.uint64(1)


@kernel
def search_orbits(orbits: Orbits, rows: Rows, choice: Choice, limits: Limits, state: NDArray[np.int64]) -> bool:
    """Tabu search for a set of orbits without conflicts and with as many words as possible.

    A step adds the orbit that gains most words, the words of the conflicting orbits that leave for it counted off; an
    orbit that left may not come back for some steps. Returns True as soon as a new best reaches ``limits.goal``, and
    False at the other limits.
    (Q. Wu, J.-K. Hao, F. Glover, Multi-neighborhood tabu search for the maximum weight clique problem, 2012.)
    """
    sizes = orbits.sizes
    is_chosen, blocked, tabu_until = choice.is_chosen, choice.blocked, choice.tabu_until
    random_state = choice.random_state
    num = len(sizes)
    while state[STEPS] < limits.last_step and state[WORK] < limits.last_work:
        state[STEPS] += 1
        step = state[STEPS]
        if step - state[LAST_CHANGE] > limits.patience:
            for v in range(num):
                if is_chosen[v] and random_below(random_state, 2) == 0:
                    slot = row_slot(orbits, rows, v, state)
                    add_to_blocked(rows.rows[slot], -sizes[v], blocked)
                    is_chosen[v] = False
                    state[SIZE] -= sizes[v]
                    tabu_until[v] = step + 10 + random_below(random_state, 20)
            state[LAST_CHANGE] = step
        best_gain = -(1 << 60)
        ties = 0
        pick = -1
        for v in range(num):
            if is_chosen[v]:
                continue
            gain = int(sizes[v]) - int(blocked[v])
            if gain < best_gain or (tabu_until[v] > step and state[SIZE] + gain <= state[BEST_SIZE]):
                continue
            if gain > best_gain:
                best_gain = gain
                ties = 0
            ties += 1
            if ties == 1 or random_below(random_state, ties) == 0:
                pick = v
        # Scanning the orbits and updating them, in units of one comparison.
        state[WORK] += 64 + 2 * num
        if pick < 0:
            # Every orbit is chosen or must rest.
            continue
        slot = row_slot(orbits, rows, pick, state)
        if blocked[pick] > 0:
            # A copy: fetching the rows of those that leave may give this one away.
            row = rows.copied
            copy_to(row, rows.rows[slot])
            for limb in range(len(row)):
                bits = row[limb]
                while bits != 0:
                    gone = int(64 * limb + lowest_bit(bits))
                    bits &= bits - np.uint64(1)
                    if is_chosen[gone]:
                        other = row_slot(orbits, rows, gone, state)
                        add_to_blocked(rows.rows[other], -sizes[gone], blocked)
                        is_chosen[gone] = False
                        state[SIZE] -= sizes[gone]
                        tabu_until[gone] = step + 7 + random_below(random_state, 10)
            add_to_blocked(row, sizes[pick], blocked)
        else:
            add_to_blocked(rows.rows[slot], sizes[pick], blocked)
        is_chosen[pick] = True
        state[SIZE] += sizes[pick]
        if state[SIZE] > state[BEST_SIZE]:
            state[BEST_SIZE] = state[SIZE]
            state[LAST_CHANGE] = step
            copy_to(choice.best_chosen, is_chosen)
            if state[BEST_SIZE] >= limits.goal:
                return True
    return False
