"""The compiled inside of `balance`: swaps of one chosen word for another, one at a time and two at a time.

K of M words are chosen. ``residual_N`` is ``N * S_n - K * N_act`` per column, zero everywhere exactly when all column
sums are rK. (Beside words that stay, N times the sum that the column aims for takes the place of ``K * N_act``.)
Per word v of all M, two numbers are kept up to date: ``dots[v]`` = residual_N . v, and ``degrees[v]``, how many
chosen words lie at distance H_min from v. Swapping y (chosen) for x changes the uneven-ness ``sum(residual_N^2) / N``
by ``2 (dots[x] - dots[y]) + N d(x, y)``, and the pairs at H_min by ``degrees[x] - degrees[y] - [d(x, y) = H_min]``.

Words of weight w at distance d share w - d/2 ones, so one popcount of an AND gives both.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from codedtool.coding.bits import copy_to, popcount
from codedtool.coding.compiled import inner_kernel, kernel

BITS = "7a3a47ae6c02"  # checksum of bits.py

# Places of the array that `best_swap` and `find_double_swap` answer in: the words to drop and those to take.
OUT, INTO, SECOND_OUT, SECOND_INTO = 0, 1, 2, 3

# Places of the costs of a tabu search, relative to its start: of the present choice, and the least seen.
NOW, LEAST = 0, 1

# The cost of no swap at all in a tabu search, and the pairs that `find_double_swap` reports if there is no double swap.
NO_SWAP = 1 << 62

# Words whose costs a tabu search compares at a time.
BLOCK = 256


class Pool(NamedTuple):
    """The words to choose from.

    Attributes:
        words: (M,) uint64, all of one length and weight.
        length: N.
        act: N_act.
        shared_at_min: how many ones two words at distance H_min share.
    """

    words: NDArray[np.uint64]
    length: int
    act: int
    shared_at_min: int


class Choice(NamedTuple):
    """The K chosen words, and the numbers of the module's docstring that every swap brings up to date.

    Attributes:
        is_chosen: (M,) bool.
        residual_N: N * S_n - K * N_act per column.
        dots: (M,) residual_N . v of every word v.
        degrees: (M,) how many chosen words lie at distance H_min from each word.
    """

    is_chosen: NDArray[np.bool_]
    residual_N: NDArray[np.int64]
    dots: NDArray[np.int64]
    degrees: NDArray[np.int64]


class Tabu(NamedTuple):
    """The memory of a tabu search.

    Attributes:
        frozen_until: (M,) the step until which each word must rest.
        tenures: random numbers of steps to rest, two for each step.
        best_chosen: (M,) bool, the least costly choice seen.
        costs: (2,) see NOW and LEAST.
    """

    frozen_until: NDArray[np.int64]
    tenures: NDArray[np.int64]
    best_chosen: NDArray[np.bool_]
    costs: NDArray[np.int64]


class PairTable(NamedTuple):
    """Hash table of all pairs of unchosen words, keyed by the hash of the ones that a pair adds to the column sums.

    Attributes:
        slot_bits: the table has 2^slot_bits slots, addressed by the leading bits of a key.
        sieve_bits: the sieve has 2^sieve_bits bits.
        sieve: which leading bits of a key occur; small enough for a processor's cache, it turns most look-ups away.
        keys: the key in each slot.
        places: first * M' + second of the pair in each slot, or -1 if it is empty.
    """

    slot_bits: int
    sieve_bits: int
    sieve: NDArray[np.uint64]
    keys: NDArray[np.uint64]
    places: NDArray[np.int32]


class Sides(NamedTuple):
    """Which words may be swapped.

    Attributes:
        inside: positions of chosen words.
        inside_hashes: their hashes.
        outside: positions of the words whose pairs are in the table.
        passed: scratch, as long as ``inside``.
    """

    inside: NDArray[np.int64]
    inside_hashes: NDArray[np.uint64]
    outside: NDArray[np.int64]
    passed: NDArray[np.int64]


@kernel
def add_degrees(pool: Pool, chosen: NDArray[np.int64], degrees: NDArray[np.int64]) -> None:
    """Add to ``degrees`` (M,) the number of words of ``chosen`` at distance H_min from each word."""
    words, shared_at_min = pool.words, pool.shared_at_min
    for index in chosen:
        word = words[index]
        for v in range(len(words)):
            if popcount(words[v] & word) == shared_at_min:
                degrees[v] += 1


@kernel
def apply_swap(pool: Pool, choice: Choice, out: int, into: int) -> None:
    """Replace the chosen word ``out`` by the word ``into`` and bring every number up to date; O(M)."""
    words, length, shared_at_min = pool.words, pool.length, pool.shared_at_min
    residual_N, dots, degrees = choice.residual_N, choice.dots, choice.degrees
    old, new = words[out], words[into]
    choice.is_chosen[out] = False
    choice.is_chosen[into] = True
    for column in range(length):
        shift = np.uint64(length - 1 - column)
        residual_N[column] += length * (
            np.int64((new >> shift) & np.uint64(1)) - np.int64((old >> shift) & np.uint64(1))
        )
    for v in range(len(words)):
        with_new = popcount(words[v] & new)
        with_old = popcount(words[v] & old)
        dots[v] += length * (with_new - with_old)
        degrees[v] += np.int64(with_new == shared_at_min) - np.int64(with_old == shared_at_min)


@kernel
def tabu_swaps(pool: Pool, choice: Choice, tabu: Tabu, pair_weight: int, num_steps: int, clock: int) -> None:
    """``num_steps`` steps of a tabu search on uneven-ness + ``pair_weight`` * N * pairs at H_min.

    Each step drops the chosen word that costs most and takes the word that then costs least; both rest for a number
    of steps from ``tabu.tenures``. ``clock`` is the number of steps made before.
    """
    words, length, shared_at_min, num_words = pool.words, pool.length, pool.shared_at_min, len(pool.words)
    is_chosen, dots, degrees = choice.is_chosen, choice.dots, choice.degrees
    frozen_until, tenures, costs = tabu.frozen_until, tabu.tenures, tabu.costs
    weight = pair_weight * length
    for step in range(num_steps):
        now = clock + step
        # The best cost of a block is found without branches, which vectorises; then the first word that has it.
        worst, block = np.int64(-NO_SWAP), 0
        for start in range(0, num_words, BLOCK):
            most = np.int64(-NO_SWAP)
            for v in range(np.uint64(start), np.uint64(min(start + BLOCK, num_words))):
                cost = weight * degrees[v] + 2 * dots[v]
                if not is_chosen[v] or frozen_until[v] > now:
                    cost = np.int64(-NO_SWAP)
                most = max(most, cost)
            if most > worst:
                worst, block = most, start
        if worst == -NO_SWAP:
            return
        out = block
        while not is_chosen[out] or frozen_until[out] > now or weight * degrees[out] + 2 * dots[out] != worst:
            out += 1
        old = words[out]
        # Less 2 N N_act, which is the same for all.
        least, block = np.int64(NO_SWAP), 0
        for start in range(0, num_words, BLOCK):
            fewest = np.int64(NO_SWAP)
            for v in range(np.uint64(start), np.uint64(min(start + BLOCK, num_words))):
                shared = popcount(words[v] & old)
                cost = weight * (degrees[v] - np.int64(shared == shared_at_min)) + 2 * (dots[v] - length * shared)
                if is_chosen[v] or frozen_until[v] > now:
                    cost = np.int64(NO_SWAP)
                fewest = min(fewest, cost)
            if fewest < least:
                least, block = fewest, start
        if least == NO_SWAP:
            return
        into, cost = block - 1, np.int64(NO_SWAP)
        while cost != least:
            into += 1
            if not is_chosen[into] and frozen_until[into] <= now:
                shared = popcount(words[into] & old)
                cost = weight * (degrees[into] - np.int64(shared == shared_at_min))
                cost += 2 * (dots[into] - length * shared)
        apply_swap(pool, choice, out, into)
        costs[NOW] += least + 2 * length * pool.act - worst
        frozen_until[out] = now + tenures[2 * (now % (len(tenures) // 2))]
        frozen_until[into] = now + tenures[2 * (now % (len(tenures) // 2)) + 1]
        if costs[NOW] < costs[LEAST]:
            costs[LEAST] = costs[NOW]
            copy_to(tabu.best_chosen, is_chosen)


@kernel
def best_swap(
    pool: Pool,
    choice: Choice,
    min_distance: int,
    inside: NDArray[np.int64],
    outside: NDArray[np.int64],
    found: NDArray[np.int64],
) -> np.bool_:
    """Find the swap that lowers the uneven-ness most, and of equal ones the one with fewest new pairs at H_min.

    ``inside`` are the chosen words by falling ``dots``, ``outside`` the others by rising ``dots``: every distance is at
    least ``min_distance``, so once that bound does not beat the best swap no later word can. The swap goes to ``found``
    (OUT, INTO); returns False if none lowers the uneven-ness.
    """
    words, length, act, dots, degrees = pool.words, pool.length, pool.act, choice.dots, choice.degrees
    best, best_pairs = np.int64(0), np.int64(0)
    least_distance = length * min_distance
    for x in outside:
        if 2 * (dots[x] - dots[inside[0]]) + least_distance > best:
            break
        for y in inside:
            bound = 2 * (dots[x] - dots[y]) + least_distance
            if bound > best or bound >= 0:
                break
            change = 2 * (dots[x] - dots[y]) + 2 * length * (act - popcount(words[x] & words[y]))
            pairs = degrees[x] - degrees[y]
            if change < best or (change == best and change < 0 and pairs < best_pairs):
                best, best_pairs = change, pairs
                found[OUT], found[INTO] = y, x
    return best < 0


@kernel
def hash_pairs(hashes: NDArray[np.uint64], table: PairTable) -> None:
    """Enter every pair of the words with these hashes into ``table`` (empty before), under the sum of the two.

    Open addressing; of pairs with equal sums one is kept.
    """
    sieve, keys, places = table.sieve, table.keys, table.places
    mask = np.uint64(len(keys) - 1)
    to_slot, to_bit = np.uint64(64 - table.slot_bits), np.uint64(64 - table.sieve_bits)
    for first in range(len(hashes)):
        for second in range(first + 1, len(hashes)):
            key = hashes[first] + hashes[second]
            bit = key >> to_bit
            sieve[bit >> np.uint64(6)] |= np.uint64(1) << (bit & np.uint64(63))
            slot = key >> to_slot
            while places[slot] >= 0 and keys[slot] != key:
                slot = (slot + np.uint64(1)) & mask
            keys[slot] = key
            places[slot] = first * len(hashes) + second


@inner_kernel
def adds_exactly(pool: Pool, y1: int, y2: int, x1: int, x2: int, wanted_N: NDArray[np.int64]) -> bool:
    """Whether dropping words y1 and y2 and taking x1 and x2 adds ``wanted_N`` to the column sums."""
    words, length = pool.words, pool.length
    for column in range(length):
        shift = np.uint64(length - 1 - column)
        added = np.int64((words[x1] >> shift) & np.uint64(1)) + np.int64((words[x2] >> shift) & np.uint64(1))
        added -= np.int64((words[y1] >> shift) & np.uint64(1)) + np.int64((words[y2] >> shift) & np.uint64(1))
        if added != wanted_N[column]:
            return False
    return True


@kernel
def find_double_swap(
    pool: Pool,
    degrees: NDArray[np.int64],
    table: PairTable,
    sides: Sides,
    wanted_N: NDArray[np.int64],
    wanted_hash: np.uint64,
    out: int,
    into: int,
    found: NDArray[np.int64],
) -> np.int64:
    """Find two words to drop and two to take that together add exactly ``wanted_N`` to the column sums.

    ``out`` and ``into`` (a swap made besides, or -1) are spared. The double swap with the fewest new pairs at H_min
    goes to ``found`` (OUT, INTO, SECOND_OUT, SECOND_INTO); returns how many pairs it adds, or NO_SWAP. The hash is
    linear in the words, so each pair to drop tells the key of the pair to take; a match is checked column by column.
    """
    words, shared_at_min = pool.words, pool.shared_at_min
    inside, inside_hashes, outside, passed = sides.inside, sides.inside_hashes, sides.outside, sides.passed
    sieve, keys, places = table.sieve, table.keys, table.places
    fewest = np.int64(NO_SWAP)
    mask = np.uint64(len(keys) - 1)
    to_slot, to_bit = np.uint64(64 - table.slot_bits), np.uint64(64 - table.sieve_bits)
    for i in range(len(inside)):
        y1 = inside[i]
        partial = wanted_hash + inside_hashes[i]
        # Sieving a whole row without branches, and only then looking up, is more than twice as fast as one by one.
        num_passed = np.int64(0)
        for j in range(i + 1, len(inside)):
            bit = (partial + inside_hashes[j]) >> to_bit
            passed[num_passed] = j
            num_passed += np.int64((sieve[bit >> np.uint64(6)] >> (bit & np.uint64(63))) & np.uint64(1))
        for place in range(num_passed):
            j = passed[place]
            y2 = inside[j]
            key = partial + inside_hashes[j]
            slot = key >> to_slot
            while places[slot] >= 0 and keys[slot] != key:
                slot = (slot + np.uint64(1)) & mask
            if places[slot] < 0:
                continue
            x1 = outside[places[slot] // len(outside)]
            x2 = outside[places[slot] % len(outside)]
            if x1 == into or x2 == into or y1 == out or y2 == out:
                continue
            if not adds_exactly(pool, y1, y2, x1, x2, wanted_N):
                continue
            pairs = degrees[x1] + degrees[x2] - degrees[y1] - degrees[y2]
            pairs += np.int64(popcount(words[x1] & words[x2]) == shared_at_min)
            pairs += np.int64(popcount(words[y1] & words[y2]) == shared_at_min)
            pairs -= np.int64(popcount(words[x1] & words[y1]) == shared_at_min)
            pairs -= np.int64(popcount(words[x1] & words[y2]) == shared_at_min)
            pairs -= np.int64(popcount(words[x2] & words[y1]) == shared_at_min)
            pairs -= np.int64(popcount(words[x2] & words[y2]) == shared_at_min)
            if pairs < fewest:
                fewest = pairs
                found[OUT], found[INTO], found[SECOND_OUT], found[SECOND_INTO] = y1, x1, y2, x2
    return fewest
