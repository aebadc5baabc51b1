"""The compiled inside of `orbits`: orbits of words under a group of permutations, and the search for a set of them.

``shifted[g, c]`` is the bit to which permutation g sends bit c, as a uint64 with that one bit set; the identity is
g = 0. A word stands for its orbit when it is the largest of it. Two words of one weight at distance 2h share w - h
ones, so distances are compared as numbers of shared ones: ``most_shared`` is w - H_min / 2.
"""

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
def lowest_bit(bits: np.uint64) -> np.int64:
    """The place of the lowest one of a uint64 that has one."""
    return popcount((bits & (~bits + np.uint64(1))) - np.uint64(1))


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
def enumerate_orbits(
    shifted: NDArray[np.uint64],
    act: int,
    most_shared: int,
    top: int,
    state: NDArray[np.uint64],
    num_visits: int,
    words: NDArray[np.uint64],
    sizes: NDArray[np.int64],
    counts: NDArray[np.int64],
) -> bool:
    """Visit the next words whose highest one is bit ``top``; keep those that stand for an admissible orbit.

    ``state[0]`` holds the other ``act`` - 1 ones of the next word, the words in ascending order. Kept words and the
    sizes of their orbits go to ``words`` and ``sizes``; ``counts`` is (kept, images looked at). Ends after about
    ``num_visits`` images, or when the arrays are full (returns True), or when no word is left (True).
    """
    high = np.uint64(1) << np.uint64(top)
    rest = state[0]
    num_elements = len(shifted)
    points = np.empty(act, dtype=np.int64)
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
            if counts[0] == len(words):
                return True
            words[counts[0]] = word
            sizes[counts[0]] = num_elements // stabiliser
            counts[0] += 1
        # The next larger integer with as many ones (R. Gosper, HAKMEM item 175).
        if rest == 0:
            return True
        lowest = rest & (~rest + np.uint64(1))
        ripple = rest + lowest
        rest = ripple | (((rest ^ ripple) >> np.uint64(2)) >> np.uint64(lowest_bit(lowest)))
        state[0] = rest
    counts[1] += visits
    return False


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
    out[: len(shifted)].sort()
    num = 1
    for g in range(1, len(shifted)):
        if out[g] != out[num - 1]:
            out[num] = out[g]
            num += 1
    return np.int64(num)


@kernel
def fill_row(
    shifted: NDArray[np.uint64],
    words: NDArray[np.uint64],
    orbit: int,
    most_shared: int,
    images: NDArray[np.uint64],
    row: NDArray[np.uint64],
) -> np.int64:
    """Set the bits of ``row`` for the orbits that conflict with ``orbit``, not itself; returns the pairs compared."""
    size = np.uint64(orbit_of(shifted, words[orbit], images))
    row[:] = np.uint64(0)
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


@kernel
def row_slot(
    shifted: NDArray[np.uint64],
    words: NDArray[np.uint64],
    orbit: int,
    most_shared: int,
    images: NDArray[np.uint64],
    rows: NDArray[np.uint64],
    slot_of: NDArray[np.int32],
    owner: NDArray[np.int32],
    state: NDArray[np.int64],
) -> np.int64:
    """The row of ``rows`` with the conflicts of ``orbit``, filled in place of the oldest one where it is not there.

    ``slot_of`` is -1 for orbits without a row, ``owner`` the orbit of each row or -1; ``state[2]`` is the next row to
    give away, ``state[3]`` counts the work.
    """
    slot = slot_of[orbit]
    if slot < 0:
        slot = np.int32(state[2])
        state[2] = (state[2] + 1) % len(rows)
        if owner[slot] >= 0:
            slot_of[owner[slot]] = -1
        owner[slot] = orbit
        slot_of[orbit] = slot
        state[3] += fill_row(shifted, words, orbit, most_shared, images, rows[slot])
    return np.int64(slot)


@kernel
def add_to_blocked(row: NDArray[np.uint64], amount: int, blocked: NDArray[np.int32]) -> None:
    """Add ``amount`` to ``blocked`` of every orbit in ``row``."""
    for limb in range(len(row)):
        bits = row[limb]
        while bits != 0:
            blocked[64 * limb + lowest_bit(bits)] += amount
            bits &= bits - np.uint64(1)


@kernel
def search_orbits(
    shifted: NDArray[np.uint64],
    words: NDArray[np.uint64],
    sizes: NDArray[np.int64],
    most_shared: int,
    last_step: int,
    last_work: int,
    goal: int,
    patience: int,
    images: NDArray[np.uint64],
    rows: NDArray[np.uint64],
    slot_of: NDArray[np.int32],
    owner: NDArray[np.int32],
    is_chosen: NDArray[np.bool_],
    blocked: NDArray[np.int32],
    tabu_until: NDArray[np.int64],
    best_chosen: NDArray[np.bool_],
    random_state: NDArray[np.uint64],
    state: NDArray[np.int64],
) -> bool:
    """Tabu search for a set of orbits without conflicts and with as many words as possible.

    A step adds the orbit that gains most words, the words of the conflicting orbits that leave for it counted off; an
    orbit that left may not come back for some steps. After ``patience`` steps without a new best, half of the present
    set is dropped.

    ``blocked[v]`` is the number of words that leave when v is added. ``state`` is (steps, present number of words,
    next row, work, best number of words, step of the last improvement or restart). Runs until ``last_step``
    or ``last_work`` is reached, or until a new best of at least ``goal`` words is found, which returns True.
    (Q. Wu, J.-K. Hao, F. Glover, Multi-neighborhood tabu search for the maximum weight clique problem, 2012.)
    """
    num = len(words)
    while state[0] < last_step and state[3] < last_work:
        state[0] += 1
        step = state[0]
        if step - state[5] > patience:
            for v in range(num):
                if is_chosen[v] and random_below(random_state, 2) == 0:
                    slot = row_slot(shifted, words, v, most_shared, images, rows, slot_of, owner, state)
                    add_to_blocked(rows[slot], -sizes[v], blocked)
                    is_chosen[v] = False
                    state[1] -= sizes[v]
                    tabu_until[v] = step + 10 + random_below(random_state, 20)
            state[5] = step
        best_gain = -(1 << 60)
        ties = 0
        pick = -1
        for v in range(num):
            if is_chosen[v]:
                continue
            gain = int(sizes[v]) - int(blocked[v])
            if gain < best_gain or (tabu_until[v] > step and state[1] + gain <= state[4]):
                continue
            if gain > best_gain:
                best_gain = gain
                ties = 0
            ties += 1
            if ties == 1 or random_below(random_state, ties) == 0:
                pick = v
        # Scanning the orbits and updating them, in units of one comparison.
        state[3] += 64 + 2 * num
        if pick < 0:
            # Every orbit is chosen or must rest.
            continue
        slot = row_slot(shifted, words, pick, most_shared, images, rows, slot_of, owner, state)
        if blocked[pick] > 0:
            # A copy: fetching the rows of those that leave may give this one away.
            row = rows[slot].copy()
            for limb in range(len(row)):
                bits = row[limb]
                while bits != 0:
                    gone = int(64 * limb + lowest_bit(bits))
                    bits &= bits - np.uint64(1)
                    if is_chosen[gone]:
                        other = row_slot(shifted, words, gone, most_shared, images, rows, slot_of, owner, state)
                        add_to_blocked(rows[other], -sizes[gone], blocked)
                        is_chosen[gone] = False
                        state[1] -= sizes[gone]
                        tabu_until[gone] = step + 7 + random_below(random_state, 10)
            add_to_blocked(row, sizes[pick], blocked)
        else:
            add_to_blocked(rows[slot], sizes[pick], blocked)
        is_chosen[pick] = True
        state[1] += sizes[pick]
        if state[1] > state[4]:
            state[4] = state[1]
            state[5] = step
            best_chosen[:] = is_chosen
            if state[4] >= goal:
                return True
    return False
