"""The compiled inside of `lexicode`: whole blocks of words decided at once, as bitsets.

A word is ``top | mid | low``, most significant first; ``mid | low`` is its suffix, and a block is all words that share
top and mid. Within a block the low parts all have the same number of ones s, and bit i of the block's bitset is the
i-th integer of weight s, so the order of the bits is the order of the words.

Distances between words of one weight are even; the *reach* is the largest that still conflicts (H_min - 2). A kept word
whose top and mid lie at distance p from a block's excludes exactly the low parts within ``reach - p`` of its own.
Two low parts lie at a distance whose parity is that of their weights' difference. That is also the parity of every
radius they are asked for, so it is enough to store half of each radius.

Indexes of the innermost loops are unsigned: numba then leaves out the test for negative ones and they vectorise.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from codedtool.coding.bits import lowest_bit, popcount
from codedtool.coding.compiled import inner_kernel, kernel

BITS = "7a3a47ae6c02"  # checksum of bits.py

# Places of the state array: the next top to decide, the last top decided or -1, and the number of kept words.
NEXT_TOP, LAST_TOP, NUM_KEPT = 0, 1, 2
STATE_SIZE = 3


class Split(NamedTuple):
    """How many bits the top, the mid and the low part of a word have."""

    top: int
    mid: int
    low: int


class Balls(NamedTuple):
    """The balls around every low part, as bitsets over the low parts of one weight s.

    Attributes:
        members: low parts, grouped by weight, ascending.
        members_start: the low parts of weight s are ``members[members_start[s]:members_start[s + 1]]``.
        num_limbs: per weight, the 64-bit limbs of one bitset.
        bits: the bitsets; row ``start[s] + (half_radius * 2^num_low + centre) * num_limbs[s]`` begins the ball of the
            low parts of weight s within the radius of ``centre``.
        start: per weight, where its bitsets begin.
    """

    members: NDArray[np.int64]
    members_start: NDArray[np.int64]
    num_limbs: NDArray[np.int64]
    bits: NDArray[np.uint64]
    start: NDArray[np.int64]


class Reach(NamedTuple):
    """How far a kept word excludes others.

    Attributes:
        half_reach: half the reach.
        half_radii: half the radius left at each distance of top and mid together; negative beyond the reach.
        step_top, step_mid, step_half: the distances of tops and of mids at which a kept word can reach a block, nearest
            first, and half the radius left there.
        rings: ``rings[mid, p]`` has the bits of the mids at distance p from ``mid``.
    """

    half_reach: int
    half_radii: NDArray[np.int64]
    step_top: NDArray[np.int64]
    step_mid: NDArray[np.int64]
    step_half: NDArray[np.int64]
    rings: NDArray[np.uint64]


class Kept(NamedTuple):
    """The words kept so far, ascending, and those of them near the present top.

    Attributes:
        words: all of them, as far as the state's NUM_KEPT.
        cuts: numbers of low bits of a top to leave out, falling.
        near: ``near[level, :near_counts[level]]`` may conflict under the last top without its last ``cuts[level]``
            bits. Each level is filtered from the one before it, the first from ``words``.
        near_counts: how many words each level holds.
    """

    words: NDArray[np.uint64]
    cuts: NDArray[np.int64]
    near: NDArray[np.uint64]
    near_counts: NDArray[np.int64]


class Groups(NamedTuple):
    """The kept words that may conflict under one top, sorted by (distance of their top, their mid).

    Attributes:
        starts: ``lows[starts[k]:starts[k + 1]]`` are the low parts of group ``k = distance * 2^num_mid + mid``.
        occupied: bit ``mid`` of ``occupied[distance]`` says whether the group has any.
        lows: low parts in the groups' order.
        unsorted, unsorted_lows: room for groups and low parts before sorting.
    """

    starts: NDArray[np.int64]
    occupied: NDArray[np.uint64]
    lows: NDArray[np.int32]
    unsorted: NDArray[np.int32]
    unsorted_lows: NDArray[np.int32]


class Block(NamedTuple):
    """Scratch: the words kept under the present top (mids and lows), and the words of a block that are still free."""

    fresh_mids: NDArray[np.int32]
    fresh_lows: NDArray[np.int32]
    free: NDArray[np.uint64]


@inner_kernel
def keep_near(
    prefix: np.uint64,
    shift: np.uint64,
    half_reach: int,
    source: NDArray[np.uint64],
    num_source: int,
    out: NDArray[np.uint64],
) -> np.int64:
    """Copy to ``out`` the words that may conflict with a word whose leading bits are ``prefix``; returns how many.

    Two words of one weight at distance 2h each have h ones that the other lacks, so a word is dropped as soon as
    either prefix has more than ``half_reach`` ones of its own.
    """
    num_out = np.uint64(0)
    for i in range(np.uint64(num_source)):
        word = source[i]
        other = word >> shift
        out[num_out] = word
        if popcount(other & ~prefix) <= half_reach and popcount(prefix & ~other) <= half_reach:
            num_out += np.uint64(1)
    return np.int64(num_out)


@inner_kernel
def group_candidates(
    top: np.uint64, split: Split, half_reach: int, source: NDArray[np.uint64], num_source: int, groups: Groups
) -> None:
    """Fill ``groups`` with those of ``source[:num_source]`` that may conflict with a word under ``top``."""
    num_low, num_mid = split.low, split.mid
    starts, occupied, unsorted, unsorted_lows = groups.starts, groups.occupied, groups.unsorted, groups.unsorted_lows
    lows = groups.lows
    shift = np.uint64(num_low + num_mid)
    low_mask = np.uint64((1 << num_low) - 1)
    mid_mask = np.uint64((1 << num_mid) - 1)
    starts[:] = 0
    occupied[:] = 0
    count = np.uint64(0)
    for i in range(np.uint64(num_source)):
        word = source[i]
        other = word >> shift
        gone = popcount(other & ~top)
        new = popcount(top & ~other)
        if gone <= half_reach and new <= half_reach:
            mid = (word >> np.uint64(num_low)) & mid_mask
            occupied[np.uint64(gone + new)] |= np.uint64(1) << mid
            group = ((gone + new) << num_mid) | np.int64(mid)
            unsorted[count] = group
            unsorted_lows[count] = np.int64(word & low_mask)
            # Two places on, so that placing the words below leaves each start one place on, where it belongs.
            starts[np.uint64(group + 2)] += 1
            count += np.uint64(1)
    for k in range(2, len(starts)):
        starts[k] += starts[k - 1]
    for i in range(count):
        start = np.uint64(unsorted[i] + 1)
        lows[np.uint64(starts[start])] = unsorted_lows[i]
        starts[start] += 1


@inner_kernel
def exclude(
    free: NDArray[np.uint64],
    limbs: np.uint64,
    balls: NDArray[np.uint64],
    first_row: int,
    centres: NDArray[np.int32],
    start: np.uint64,
    stop: np.uint64,
) -> np.uint64:
    """Clear the balls of ``centres[start:stop]`` from the bitset ``free``; returns zero as soon as nothing is left.

    ``first_row`` is where the ball of centre 0 begins in ``balls``.
    """
    left = np.uint64(1)
    for i in range(start, stop):
        row = np.uint64(first_row) + np.uint64(centres[i]) * limbs
        left = np.uint64(0)
        for limb in range(limbs):
            free[limb] &= ~balls[row + limb]
            left |= free[limb]
        if left == 0:
            break
    return left


@inner_kernel
def find_free(
    mid: int,
    weight: int | np.int64,
    split: Split,
    balls: Balls,
    reach: Reach,
    groups: Groups,
    block: Block,
    num_fresh: np.uint64,
) -> np.uint64:
    """Leave in ``block.free`` the words of block ``mid`` that conflict with no kept word; returns zero if none is.

    ``weight`` is the weight of the block's low parts. The ``num_fresh`` words kept under the same top come first, then
    the groups by their distance to the block: the largest balls first, and no more than needed.
    """
    num_low, bits, free = split.low, balls.bits, block.free
    limbs = np.uint64(balls.num_limbs[weight])
    balls_start = balls.start[weight]
    size = balls.members_start[weight + 1] - balls.members_start[weight]
    for limb in range(limbs):
        free[limb] = ~np.uint64(0)
    if size & 63:
        free[limbs - np.uint64(1)] = (np.uint64(1) << np.uint64(size & 63)) - np.uint64(1)
    one = np.uint64(1)
    fresh_mids, fresh_lows, half_radii = block.fresh_mids, block.fresh_lows, reach.half_radii
    for i in range(num_fresh):
        half = half_radii[popcount(np.uint64(fresh_mids[i] ^ mid))]
        if half >= 0:
            first_row = balls_start + (half << num_low) * np.int64(limbs)
            if exclude(free, limbs, bits, first_row, fresh_lows, np.uint64(i), np.uint64(i) + one) == 0:
                return np.uint64(0)
    step_top, step_mid, step_half = reach.step_top, reach.step_mid, reach.step_half
    starts, occupied, lows, rings = groups.starts, groups.occupied, groups.lows, reach.rings
    for i in range(np.uint64(len(step_top))):
        mids = occupied[np.uint64(step_top[i])] & rings[np.uint64(mid), np.uint64(step_mid[i])]
        if mids == 0:
            continue
        first_row = balls_start + (step_half[i] << num_low) * np.int64(limbs)
        while mids != 0:
            group = np.uint64((step_top[i] << split.mid) + lowest_bit(mids))
            mids &= mids - one
            start = np.uint64(starts[group])
            if exclude(free, limbs, bits, first_row, lows, start, np.uint64(starts[group + one])) == 0:
                return np.uint64(0)
    return one


@kernel
def advance(
    num_tops: int,
    act: int,
    split: Split,
    balls: Balls,
    reach: Reach,
    kept: Kept,
    groups: Groups,
    block: Block,
    state: NDArray[np.int64],
) -> None:
    """Decide the words of the next ``num_tops`` tops, fewer when ``kept`` might become full or no top is left.

    Tops run from 0 to ``2^split.top - 1``.
    """
    num_low, num_mid = split.low, split.mid
    num_suffix = num_low + num_mid
    num_levels = len(kept.cuts)
    words, near, near_counts, cuts = kept.words, kept.near, kept.near_counts, kept.cuts
    top, last, num_kept = state[NEXT_TOP], state[LAST_TOP], state[NUM_KEPT]
    while num_tops > 0:
        ones = popcount(np.uint64(top))
        if ones > act:
            # No top that shares the bits above the lowest one, and that one, has fewer ones: on past all of them.
            top += top & -top
            continue
        if ones < act - num_suffix:
            top |= top + 1
            continue
        if top >= 1 << split.top or num_kept + (1 << num_suffix) > len(words):
            break

        source, num_source = words, num_kept
        for level in range(num_levels):
            cut = cuts[level]
            if last < 0 or (top >> cut) != (last >> cut):
                near_counts[level] = keep_near(
                    np.uint64(top >> cut),
                    np.uint64(cut + num_suffix),
                    reach.half_reach,
                    source,
                    num_source,
                    near[level],
                )
            source, num_source = near[level], near_counts[level]
        group_candidates(np.uint64(top), split, reach.half_reach, source, num_source, groups)

        num_fresh = 0
        for mid in range(1 << num_mid):
            weight = act - ones - popcount(np.uint64(mid))
            if weight < 0 or weight > num_low:
                continue
            if find_free(mid, weight, split, balls, reach, groups, block, np.uint64(num_fresh)) == 0:
                continue
            limbs = balls.num_limbs[weight]
            first = balls.members_start[weight]
            free = block.free
            for limb in range(limbs):
                while free[limb] != 0:
                    low = balls.members[first + 64 * limb + lowest_bit(free[limb])]
                    word = (np.uint64(top) << np.uint64(num_suffix)) | np.uint64((mid << num_low) | low)
                    words[num_kept] = word
                    num_kept += 1
                    for level in range(num_levels):
                        near[level, near_counts[level]] = word
                        near_counts[level] += 1
                    block.fresh_mids[num_fresh] = mid
                    block.fresh_lows[num_fresh] = low
                    own = np.uint64(num_fresh)
                    first_row = balls.start[weight] + (reach.half_radii[0] << num_low) * limbs
                    exclude(free, np.uint64(limbs), balls.bits, first_row, block.fresh_lows, own, own + np.uint64(1))
                    num_fresh += 1
        last = top
        top += 1
        num_tops -= 1
    state[NEXT_TOP], state[LAST_TOP], state[NUM_KEPT] = top, last, num_kept
