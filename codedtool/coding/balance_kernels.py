"""The compiled inside of `balance`: swaps of one chosen word for another, one at a time and two at a time.

K of M words are chosen. ``residual_N`` is ``N * S_n - K * N_act`` per column, zero everywhere exactly when all column
sums are rK. Per word v of all M, two numbers are kept up to date: ``dots[v]`` = residual_N . v, and ``degrees[v]``,
how many chosen words lie at distance H_min from v. Swapping y (chosen) for x changes the uneven-ness
``sum(residual_N^2) / N`` by ``2 (dots[x] - dots[y]) + N d(x, y)``, and the pairs at H_min by
``degrees[x] - degrees[y] - [d(x, y) = H_min]``.

Words of weight w at distance d share w - d/2 ones, so one popcount of an AND gives both.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from codedtool.coding.compiled import kernel


@kernel
def popcount(bits: np.uint64) -> np.int64:
    """The number of ones of a uint64."""
    bits = bits - ((bits >> np.uint64(1)) & np.uint64(0x5555555555555555))
    bits = (bits & np.uint64(0x3333333333333333)) + ((bits >> np.uint64(2)) & np.uint64(0x3333333333333333))
    bits = (bits + (bits >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((bits * np.uint64(0x0101010101010101)) >> np.uint64(56))


@kernel
def add_degrees(
    words: NDArray[np.uint64], chosen: NDArray[np.int64], overlap_at_min: int, degrees: NDArray[np.int64]
) -> None:
    """Add to ``degrees`` (M,) the number of words of ``chosen`` that share ``overlap_at_min`` ones with each word."""
    for index in chosen:
        word = words[index]
        for v in range(len(words)):
            if popcount(words[v] & word) == overlap_at_min:
                degrees[v] += 1


@kernel
def apply_swap(
    words: NDArray[np.uint64],
    length: int,
    overlap_at_min: int,
    out: int,
    into: int,
    is_chosen: NDArray[np.bool_],
    residual_N: NDArray[np.int64],
    dots: NDArray[np.int64],
    degrees: NDArray[np.int64],
) -> None:
    """Replace the chosen word ``out`` by the word ``into`` and bring every number up to date; O(M)."""
    old, new = words[out], words[into]
    is_chosen[out] = False
    is_chosen[into] = True
    for column in range(length):
        shift = np.uint64(length - 1 - column)
        residual_N[column] += length * (
            np.int64((new >> shift) & np.uint64(1)) - np.int64((old >> shift) & np.uint64(1))
        )
    for v in range(len(words)):
        with_new = popcount(words[v] & new)
        with_old = popcount(words[v] & old)
        dots[v] += length * (with_new - with_old)
        degrees[v] += np.int64(with_new == overlap_at_min) - np.int64(with_old == overlap_at_min)


@kernel
def tabu_swaps(
    words: NDArray[np.uint64],
    length: int,
    act: int,
    overlap_at_min: int,
    pair_weight: int,
    num_steps: int,
    clock: int,
    frozen_until: NDArray[np.int64],
    tenures: NDArray[np.int64],
    is_chosen: NDArray[np.bool_],
    residual_N: NDArray[np.int64],
    dots: NDArray[np.int64],
    degrees: NDArray[np.int64],
    best_chosen: NDArray[np.bool_],
    costs: NDArray[np.int64],
) -> None:
    """``num_steps`` steps of a tabu search on uneven-ness + ``pair_weight`` * N * pairs at H_min.

    Each step drops the chosen word that costs most and takes the word that then costs least; both rest for a number
    of steps from ``tenures``. ``costs`` is (now, best seen), relative to the start; ``best_chosen`` holds the best.
    """
    weight = pair_weight * length
    for step in range(num_steps):
        now = clock + step
        out, worst = -1, np.int64(0)
        for v in range(len(words)):
            if is_chosen[v] and frozen_until[v] <= now:
                cost = weight * degrees[v] + 2 * dots[v]
                if out < 0 or cost > worst:
                    out, worst = v, cost
        if out < 0:
            return
        old = words[out]
        into, least = -1, np.int64(0)
        for v in range(len(words)):
            if not is_chosen[v] and frozen_until[v] <= now:
                shared = popcount(words[v] & old)
                cost = weight * (degrees[v] - np.int64(shared == overlap_at_min)) + 2 * dots[v]
                cost += 2 * length * (act - shared)
                if into < 0 or cost < least:
                    into, least = v, cost
        if into < 0:
            return
        apply_swap(words, length, overlap_at_min, out, into, is_chosen, residual_N, dots, degrees)
        costs[0] += least - worst
        frozen_until[out] = now + tenures[2 * (now % (len(tenures) // 2))]
        frozen_until[into] = now + tenures[2 * (now % (len(tenures) // 2)) + 1]
        if costs[0] < costs[1]:
            costs[1] = costs[0]
            best_chosen[:] = is_chosen


@kernel
def best_swap(
    words: NDArray[np.uint64],
    length: int,
    act: int,
    min_distance: int,
    inside: NDArray[np.int64],
    outside: NDArray[np.int64],
    dots: NDArray[np.int64],
    degrees: NDArray[np.int64],
    found: NDArray[np.int64],
) -> np.bool_:
    """Put into ``found`` the (out, into) that lowers the uneven-ness most, with fewest new pairs; False if none does.

    ``inside`` are the chosen words by falling ``dots``, ``outside`` the others by rising ``dots``: every distance is at
    least ``min_distance``, so once that bound does not beat the best swap no later word can.
    """
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
                found[0], found[1] = y, x
    return best < 0


@kernel
def swap_changes(
    words: NDArray[np.uint64],
    length: int,
    act: int,
    inside: NDArray[np.int64],
    outside: NDArray[np.int64],
    dots: NDArray[np.int64],
    changes: NDArray[np.int64],
) -> None:
    """Put into ``changes[i * len(outside) + j]`` how the swap (inside[i], outside[j]) changes the uneven-ness."""
    for i in range(len(inside)):
        y = inside[i]
        for j in range(len(outside)):
            x = outside[j]
            changes[i * len(outside) + j] = 2 * (dots[x] - dots[y]) + 2 * length * (act - popcount(words[x] & words[y]))


@kernel
def hash_pairs(
    hashes: NDArray[np.uint64],
    slot_bits: int,
    sieve_bits: int,
    sieve: NDArray[np.uint64],
    keys: NDArray[np.uint64],
    places: NDArray[np.int32],
) -> None:
    """Enter every pair of words into an open-addressing table under the sum of their two ``hashes``.

    ``places`` holds first * len(hashes) + second, or -1 where the table is empty; of pairs with equal sums one is
    kept. The 2^sieve_bits bits of ``sieve`` say which leading bits of a sum occur: small enough for a cache, it turns
    most look-ups away. The table itself, 2^slot_bits long, goes by the leading bits too.
    """
    mask = np.uint64(len(keys) - 1)
    to_slot, to_bit = np.uint64(64 - slot_bits), np.uint64(64 - sieve_bits)
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


@kernel
def find_double_swap(
    words: NDArray[np.uint64],
    length: int,
    overlap_at_min: int,
    wanted_N: NDArray[np.int64],
    wanted_hash: np.uint64,
    out: int,
    into: int,
    inside: NDArray[np.int64],
    inside_hashes: NDArray[np.uint64],
    outside: NDArray[np.int64],
    slot_bits: int,
    sieve_bits: int,
    sieve: NDArray[np.uint64],
    keys: NDArray[np.uint64],
    places: NDArray[np.int32],
    degrees: NDArray[np.int64],
    found: NDArray[np.int64],
) -> np.int64:
    """Find two words to drop and two to take that together add exactly ``wanted_N`` to the column sums.

    Neither ``out`` nor ``into`` (a swap made besides, or -1) is among them. Puts (out, into, out, into) with the
    fewest new pairs into ``found`` and returns how many pairs at H_min it adds, or 2^62 if there is none. The hash is
    linear in the words, so the words to take are looked up by what those to drop leave wanting; a match is checked
    column by column.
    """
    fewest = np.int64(1) << np.int64(62)
    mask = np.uint64(len(keys) - 1)
    to_slot, to_bit = np.uint64(64 - slot_bits), np.uint64(64 - sieve_bits)
    passed = np.empty(len(inside), dtype=np.int64)
    for i in range(len(inside)):
        y1 = inside[i]
        partial = wanted_hash + inside_hashes[i]
        # Sieving a whole row without branches, and only then looking up, is more than twice as fast as one by one.
        num_passed = np.int64(0)
        for j in range(i + 1, len(inside)):
            bit = (partial + inside_hashes[j]) >> to_bit
            passed[num_passed] = j
            num_passed += np.int64((sieve[bit >> np.uint64(6)] >> (bit & np.uint64(63))) & np.uint64(1))
        for j in passed[:num_passed]:
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
            exact = True
            for column in range(length):
                shift = np.uint64(length - 1 - column)
                added = np.int64((words[x1] >> shift) & np.uint64(1)) + np.int64((words[x2] >> shift) & np.uint64(1))
                added -= np.int64((words[y1] >> shift) & np.uint64(1)) + np.int64((words[y2] >> shift) & np.uint64(1))
                if added != wanted_N[column]:
                    exact = False
                    break
            if not exact:
                continue
            pairs = degrees[x1] + degrees[x2] - degrees[y1] - degrees[y2]
            pairs += np.int64(popcount(words[x1] & words[x2]) == overlap_at_min)
            pairs += np.int64(popcount(words[y1] & words[y2]) == overlap_at_min)
            pairs -= np.int64(popcount(words[x1] & words[y1]) == overlap_at_min)
            pairs -= np.int64(popcount(words[x1] & words[y2]) == overlap_at_min)
            pairs -= np.int64(popcount(words[x2] & words[y1]) == overlap_at_min)
            pairs -= np.int64(popcount(words[x2] & words[y2]) == overlap_at_min)
            if pairs < fewest:
                fewest = pairs
                found[0], found[1], found[2], found[3] = y1, x1, y2, x2
    return fewest
