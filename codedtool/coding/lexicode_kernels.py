"""The compiled inside of `lexicode`: whole blocks of words decided at once, as bitsets.

A word is ``top | mid | low``, most significant first; ``mid | low`` is its suffix, and a block is all words that share
top and mid. Within a block the low parts all have the same number of ones s, and bit i of the block's bitset is the
i-th integer of weight s, so the order of the bits is the order of the words.

Distances between words of one weight are even; ``reach`` is the largest that still conflicts (H_min - 2). A kept word
whose top and mid lie at distance p from a block's excludes exactly the low parts within ``reach - p`` of its own.
These balls are precomputed: row ``balls_start[s] + (half_radius * 2^num_low + centre) * num_limbs[s]`` of ``balls``
holds the low parts of weight s within the radius of the centre. Two low parts lie at a distance whose parity is that
of their weights' difference, which is the parity of every radius they are asked for, so half of it says it all.

Indexes of the innermost loops are unsigned: numba then leaves out the test for negative ones and they vectorise.
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
def fill_balls(
    num_low: int,
    lightest: int,
    heaviest: int,
    num_radii: int,
    members: NDArray[np.int64],
    members_start: NDArray[np.int64],
    num_limbs: NDArray[np.int64],
    balls_start: NDArray[np.int64],
    balls: NDArray[np.uint64],
) -> None:
    """Set the bits of ``balls`` (zeros before) for the low parts of weight ``lightest..heaviest``.

    ``members[members_start[s]:members_start[s + 1]]`` are the low parts of weight s, ascending.
    """
    for weight in range(lightest, heaviest + 1):
        limbs = num_limbs[weight]
        first = members_start[weight]
        for centre in range(1 << num_low):
            if not lightest <= popcount(np.uint64(centre)) <= heaviest:
                continue
            for index in range(members_start[weight + 1] - first):
                half = popcount(np.uint64(centre ^ members[first + index])) >> 1
                if half < num_radii:
                    row = balls_start[weight] + ((half << num_low) | centre) * limbs
                    balls[row + (index >> 6)] |= np.uint64(1) << np.uint64(index & 63)
            for wider in range(1, num_radii):
                row = balls_start[weight] + ((wider << num_low) | centre) * limbs
                inner = row - (limbs << num_low)
                for limb in range(limbs):
                    balls[row + limb] |= balls[inner + limb]


@kernel
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


@kernel
def group_candidates(
    top: np.uint64,
    num_low: int,
    num_mid: int,
    half_reach: int,
    source: NDArray[np.uint64],
    num_source: int,
    groups: NDArray[np.int64],
    occupied: NDArray[np.uint64],
    unsorted: NDArray[np.int32],
    unsorted_lows: NDArray[np.int32],
    lows: NDArray[np.int32],
) -> None:
    """Sort the words that may conflict under ``top`` by (distance of their top, their mid).

    Afterwards ``lows[groups[k]:groups[k + 1]]`` are the low parts of group ``k = distance * 2^num_mid + mid``, and
    bit ``mid`` of ``occupied[distance]`` says whether there are any.
    ``unsorted`` and ``unsorted_lows`` are room for the same before sorting.
    """
    shift = np.uint64(num_low + num_mid)
    low_mask = np.uint64((1 << num_low) - 1)
    mid_mask = np.uint64((1 << num_mid) - 1)
    groups[:] = 0
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
            groups[np.uint64(group + 2)] += 1
            count += np.uint64(1)
    for k in range(2, len(groups)):
        groups[k] += groups[k - 1]
    for i in range(count):
        start = np.uint64(unsorted[i] + 1)
        lows[np.uint64(groups[start])] = unsorted_lows[i]
        groups[start] += 1


@kernel
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

    ``first_row`` is where the ball of centre 0 begins.
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


@kernel
def find_free(
    mid: int,
    size: int,
    limbs: np.uint64,
    num_low: int,
    num_mid: int,
    balls: NDArray[np.uint64],
    balls_start: int,
    steps: NDArray[np.int64],
    rings: NDArray[np.uint64],
    occupied: NDArray[np.uint64],
    groups: NDArray[np.int64],
    lows: NDArray[np.int32],
    fresh_mids: NDArray[np.int32],
    fresh_lows: NDArray[np.int32],
    num_fresh: np.uint64,
    half_radii: NDArray[np.int64],
    free: NDArray[np.uint64],
) -> np.uint64:
    """Leave in ``free`` the words of block ``mid`` that conflict with no word kept before; returns zero if none is.

    Words kept under the same top (``fresh``) come first, then the groups of `group_candidates` by their distance to
    the block: the largest balls first, and no more than needed. See `advance` for ``steps`` and ``rings``.
    """
    for limb in range(limbs):
        free[limb] = ~np.uint64(0)
    if size & 63:
        free[limbs - np.uint64(1)] = (np.uint64(1) << np.uint64(size & 63)) - np.uint64(1)
    one = np.uint64(1)
    for i in range(num_fresh):
        half = half_radii[popcount(np.uint64(fresh_mids[i] ^ mid))]
        if half >= 0:
            first_row = balls_start + (half << num_low) * np.int64(limbs)
            if exclude(free, limbs, balls, first_row, fresh_lows, np.uint64(i), np.uint64(i) + one) == 0:
                return np.uint64(0)
    for i in range(np.uint64(len(steps))):
        mids = occupied[np.uint64(steps[i, 0])] & rings[np.uint64(mid), np.uint64(steps[i, 1])]
        if mids == 0:
            continue
        first_row = balls_start + (steps[i, 2] << num_low) * np.int64(limbs)
        while mids != 0:
            lowest = mids & (~mids + one)
            mids ^= lowest
            group = np.uint64((steps[i, 0] << num_mid) + popcount(lowest - one))
            start = np.uint64(groups[group])
            if exclude(free, limbs, balls, first_row, lows, start, np.uint64(groups[group + one])) == 0:
                return np.uint64(0)
    return one


@kernel
def advance(
    num_tops: int,
    act: int,
    half_reach: int,
    num_low: int,
    num_mid: int,
    num_top: int,
    members: NDArray[np.int64],
    members_start: NDArray[np.int64],
    num_limbs: NDArray[np.int64],
    balls: NDArray[np.uint64],
    balls_start: NDArray[np.int64],
    half_radii: NDArray[np.int64],
    steps: NDArray[np.int64],
    rings: NDArray[np.uint64],
    cuts: NDArray[np.int64],
    state: NDArray[np.int64],
    near_counts: NDArray[np.int64],
    kept: NDArray[np.uint64],
    near: NDArray[np.uint64],
    scratch: NDArray[np.int32],
    groups: NDArray[np.int64],
    occupied: NDArray[np.uint64],
    fresh_mids: NDArray[np.int32],
    fresh_lows: NDArray[np.int32],
    free: NDArray[np.uint64],
) -> None:
    """Decide the words of the next ``num_tops`` tops, fewer when ``kept`` might become full or no top is left.

    ``state`` is (next top, last top decided or -1, number of kept words); tops run from 0 to ``2^num_top - 1``.
    ``near[level, :near_counts[level]]`` are the kept words that may conflict under the last top without its last
    ``cuts[level]`` bits, each level filtered from the one before it, the first from all of ``kept``.

    ``half_radii[p]`` is half the radius that is left at distance p, negative beyond the reach. ``steps`` are the
    distances at which kept words can reach a block, nearest first: (distance of the tops, distance of the mids, half
    the radius left). ``rings[mid, p]`` has the bits of the mids at distance p from a mid.
    """
    num_suffix = num_low + num_mid
    lows = scratch[2]
    num_levels = len(cuts)
    top, last, num_kept = state[0], state[1], state[2]
    while num_tops > 0:
        ones = popcount(np.uint64(top))
        if ones > act:
            # No top that shares the bits above the lowest one, and that one, has fewer ones: on past all of them.
            top += top & -top
            continue
        if ones < act - num_suffix:
            top |= top + 1
            continue
        if top >= 1 << num_top or num_kept + (1 << num_suffix) > len(kept):
            break

        source, num_source = kept, num_kept
        for level in range(num_levels):
            cut = cuts[level]
            if last < 0 or (top >> cut) != (last >> cut):
                near_counts[level] = keep_near(
                    np.uint64(top >> cut), np.uint64(cut + num_suffix), half_reach, source, num_source, near[level]
                )
            source, num_source = near[level], near_counts[level]
        group_candidates(
            np.uint64(top),
            num_low,
            num_mid,
            half_reach,
            source,
            num_source,
            groups,
            occupied,
            scratch[0],
            scratch[1],
            lows,
        )

        num_fresh = 0
        for mid in range(1 << num_mid):
            weight = act - ones - popcount(np.uint64(mid))
            if weight < 0 or weight > num_low:
                continue
            limbs = num_limbs[weight]
            first = members_start[weight]
            some = find_free(
                mid,
                members_start[weight + 1] - first,
                np.uint64(limbs),
                num_low,
                num_mid,
                balls,
                balls_start[weight],
                steps,
                rings,
                occupied,
                groups,
                lows,
                fresh_mids,
                fresh_lows,
                np.uint64(num_fresh),
                half_radii,
                free,
            )
            if some == 0:
                continue
            for limb in range(limbs):
                while free[limb] != 0:
                    lowest = free[limb] & (~free[limb] + np.uint64(1))
                    low = members[first + 64 * limb + popcount(lowest - np.uint64(1))]
                    word = (np.uint64(top) << np.uint64(num_suffix)) | np.uint64((mid << num_low) | low)
                    kept[num_kept] = word
                    num_kept += 1
                    for level in range(num_levels):
                        near[level, near_counts[level]] = word
                        near_counts[level] += 1
                    fresh_mids[num_fresh] = mid
                    fresh_lows[num_fresh] = low
                    own = np.uint64(num_fresh)
                    first_row = balls_start[weight] + (half_radii[0] << num_low) * limbs
                    exclude(free, np.uint64(limbs), balls, first_row, fresh_lows, own, own + np.uint64(1))
                    num_fresh += 1
        last = top
        top += 1
        num_tops -= 1
    state[0], state[1], state[2] = top, last, num_kept
