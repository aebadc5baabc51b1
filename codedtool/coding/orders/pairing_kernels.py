"""The compiled inside of `pairing`: annealing over orders of rows, and an exact search over all orders of a few.

Let P hold the distances between classes that the other schemes give, and Q those of the scheme being ordered, so that
classes i and k lie at P[i, k] + Q[i, k]. Towards a goal g, a pair that is short of it by 2h > 0 costs
h^2 (1 + steepness (h - 1)): 1 at g - 2, nothing from g on.

The tables hold bytes, because nearly all time is spent on sums over a row: the compiler adds 16 or 32 entries at once.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from codedtool.coding.bits import copy_to, popcount, scaled, scrambled, xorshift
from codedtool.coding.compiled import inner_kernel, kernel

BITS = "7a3a47ae6c02"  # checksum of bits.py

# Places of the totals of an annealing: cost now, least cost seen, and the number of classes in conflict.
COST, LEAST_COST, NUM_CONFLICTS = 0, 1, 2

# Places of the figures of an order: joint minimum distance, and pairs at it.
MIN_DISTANCE, NUM_PAIRS = 0, 1


class Pairs(NamedTuple):
    """Every pair of classes, towards one goal g.

    Attributes:
        wanted: (K, K) int8, g - P where that is positive, -1 elsewhere and on the diagonal.
        own: (K, K) int8, Q in the present order; its diagonal is 127, which is never short.
        steepness: of the cost, see the module's docstring.
    """

    wanted: NDArray[np.int8]
    own: NDArray[np.int8]
    steepness: int


class Order(NamedTuple):
    """The present order of rows, and the classes whose pairs are short of the goal.

    Attributes:
        order: (K,) the row of each class.
        best_order: (K,) the order of least cost seen.
        costs: (K,) the cost of the pairs of each class together.
        in_conflict: the classes with costs, as far as NUM_CONFLICTS of the totals.
        place: (K,) where each class stands in ``in_conflict``, or -1.
        totals: (3,) see COST, LEAST_COST, NUM_CONFLICTS.
    """

    order: NDArray[np.int64]
    best_order: NDArray[np.int64]
    costs: NDArray[np.int64]
    in_conflict: NDArray[np.int64]
    place: NDArray[np.int64]
    totals: NDArray[np.int64]


class Branch(NamedTuple):
    """Scratch of `search_orders`, which decides the rows class by class.

    Attributes:
        order: (K,) the row of each class that is decided, or -1.
        taken: (K,) bool, which rows are given away.
        least, pairs: (K,) the smallest joint distance among the classes before each one, and how many pairs have it.
    """

    order: NDArray[np.int64]
    taken: NDArray[np.bool_]
    least: NDArray[np.int64]
    pairs: NDArray[np.int64]


@kernel
def fill_wanted(
    words_SK: NDArray[np.uint64], goal: int, most: int, first: int, last: int, wanted: NDArray[np.int8]
) -> None:
    """Fill rows first..last-1 of ``wanted`` from the words of the S other schemes; at most ``most`` per entry."""
    for i in range(first, last):
        for k in range(wanted.shape[1]):
            distance = np.int64(0)
            for s in range(len(words_SK)):
                distance += popcount(words_SK[s, i] ^ words_SK[s, k])
            short = min(np.int64(goal) - distance, np.int64(most))
            wanted[i, k] = np.int8(max(short, np.int64(-1)))
        wanted[i, i] = -1


@kernel
def fill_own(words_K: NDArray[np.uint64], first: int, last: int, own: NDArray[np.int8]) -> None:
    """Fill rows first..last-1 of ``own`` from the words of the scheme being ordered, in their present order."""
    for i in range(first, last):
        for k in range(own.shape[1]):
            own[i, k] = np.int8(popcount(words_K[i] ^ words_K[k]))
        own[i, i] = 127


@kernel
def add_costs(pairs: Pairs, first: int, last: int, costs: NDArray[np.int64]) -> None:
    """Put into ``costs[first:last]`` the cost of all pairs of each of these classes."""
    wanted, own = pairs.wanted, pairs.own
    for i in range(first, last):
        total = np.int64(0)
        for k in range(len(own)):
            total += cost_of(np.int64(wanted[i, k]) - np.int64(own[i, k]), pairs.steepness)
        costs[i] = total


@inner_kernel
def cost_of(short: np.int64, steepness: int) -> np.int64:
    """The cost of a pair whose joint distance is ``short`` below the goal."""
    h = max(short, np.int64(0)) >> np.int64(1)
    return h * h * (1 + steepness * (h - 1))


@kernel
def anneal(
    pairs: Pairs, order: Order, slacks: NDArray[np.int64], random_state: NDArray[np.uint64], num_steps: int
) -> None:
    """``num_steps`` proposals: a class with a pair short of the goal swaps its row with any other class.

    A swap is made if it raises the cost by no more than a random entry of ``slacks`` (2^10 quantiles of the
    exponential distribution at the present temperature: Metropolis' rule). The entry is drawn first, so that the sums
    are cut off as soon as they exceed it. Ends at cost 0.
    """
    wanted, own, steepness = pairs.wanted, pairs.own, pairs.steepness
    costs, totals, in_conflict = order.costs, order.totals, order.in_conflict
    num_classes = len(own)
    slope = np.int32(steepness)
    bits = random_state[0]
    for _ in range(num_steps):
        if totals[COST] == 0:
            break
        bits = xorshift(bits)
        draw = scrambled(bits)
        # 27 bits choose the class in conflict, 27 the other one, the last 10 the slack.
        i = in_conflict[scaled(draw >> np.uint64(37), totals[NUM_CONFLICTS])]
        j = scaled((draw >> np.uint64(10)) & np.uint64(0x7FFFFFF), num_classes)
        if i == j:
            continue
        between = cost_of(np.int64(wanted[i, j]) - np.int64(own[i, j]), steepness)
        before = costs[i] + costs[j] - 2 * between
        limit = before + slacks[np.int64(draw & np.uint64(0x3FF))]
        after = np.int64(0)
        wanted_i, wanted_j, own_i, own_j = wanted[i], wanted[j], own[i], own[j]
        start = 0
        while start < num_classes and after <= limit:
            stop = min(start + 128, num_classes)
            total = np.int32(0)
            for k in range(start, stop):
                h_i = max(np.int32(wanted_i[k]) - np.int32(own_j[k]), np.int32(0)) >> np.int32(1)
                h_j = max(np.int32(wanted_j[k]) - np.int32(own_i[k]), np.int32(0)) >> np.int32(1)
                cost_i = np.int32(h_i * h_i) * np.int32(np.int32(1) + slope * np.int32(h_i - np.int32(1)))
                cost_j = np.int32(h_j * h_j) * np.int32(np.int32(1) + slope * np.int32(h_j - np.int32(1)))
                total = np.int32(total + cost_i + cost_j)
            after += np.int64(total)
            start = stop
        if after > limit:
            continue
        swap_rows(pairs, order, i, j)
        order.order[i], order.order[j] = order.order[j], order.order[i]
        totals[COST] += after - before
        if totals[COST] < totals[LEAST_COST]:
            totals[LEAST_COST] = totals[COST]
            copy_to(order.best_order, order.order)
    random_state[0] = bits


@inner_kernel
def swap_rows(pairs: Pairs, order: Order, i: int | np.int64, j: int | np.int64) -> None:
    """Give class i the row of class j and the reverse; bring ``own``, ``costs`` and the conflicts up to date."""
    wanted, own, steepness, costs = pairs.wanted, pairs.own, pairs.steepness, order.costs
    costs[i] = costs[j] = cost_of(np.int64(wanted[i, j]) - np.int64(own[i, j]), steepness)
    for k in range(len(own)):
        if k in (i, j):
            continue
        to_i, to_j = own[i, k], own[j, k]
        want_i, want_j = np.int64(wanted[i, k]), np.int64(wanted[j, k])
        new_i, new_j = cost_of(want_i - np.int64(to_j), steepness), cost_of(want_j - np.int64(to_i), steepness)
        old_i, old_j = cost_of(want_i - np.int64(to_i), steepness), cost_of(want_j - np.int64(to_j), steepness)
        own[i, k] = own[k, i] = to_j
        own[j, k] = own[k, j] = to_i
        costs[i] += new_i
        costs[j] += new_j
        if new_i + new_j != old_i + old_j:
            costs[k] += new_i + new_j - old_i - old_j
            list_conflict(order, k)
    list_conflict(order, i)
    list_conflict(order, j)


@inner_kernel
def list_conflict(order: Order, k: int | np.int64) -> None:
    """Enter class k into the list of classes in conflict, or take it off, according to its cost."""
    costs, in_conflict, place, totals = order.costs, order.in_conflict, order.place, order.totals
    if costs[k] > 0 and place[k] < 0:
        place[k] = totals[NUM_CONFLICTS]
        in_conflict[totals[NUM_CONFLICTS]] = k
        totals[NUM_CONFLICTS] += 1
    elif costs[k] == 0 and place[k] >= 0:
        totals[NUM_CONFLICTS] -= 1
        last = in_conflict[totals[NUM_CONFLICTS]]
        in_conflict[place[k]] = last
        place[last] = place[k]
        place[k] = -1


@kernel
def search_orders(
    others_KK: NDArray[np.int64],
    own_KK: NDArray[np.int64],
    first_row: int,
    figures: NDArray[np.int64],
    best_order: NDArray[np.int64],
    branch: Branch,
) -> None:
    """Try every order that gives class 0 the row ``first_row``; branch and bound, for K <= 10.

    ``figures`` (MIN_DISTANCE, NUM_PAIRS) are those of ``best_order``; both are replaced when a better order is
    found. Deciding the rows class by class, the minimum can only fall and the pairs at it, while it stays, only grow:
    a beginning that is no better than the best whole order is not continued.
    """
    num_classes = len(own_KK)
    order, taken, least, pairs = branch.order, branch.taken, branch.least, branch.pairs
    for k in range(num_classes):
        order[k], taken[k] = -1, False
    least[1], pairs[1] = 1 << 30, 0
    order[0] = first_row
    taken[first_row] = True
    depth = 1
    while depth > 0:
        if order[depth] >= 0:
            taken[order[depth]] = False
        row = order[depth] + 1
        while row < num_classes and taken[row]:
            row += 1
        if row == num_classes:
            order[depth] = -1
            depth -= 1
            continue
        order[depth] = row
        taken[row] = True
        low, count = least[depth], pairs[depth]
        for k in range(depth):
            distance = others_KK[depth, k] + own_KK[row, order[k]]
            if distance < low:
                low, count = distance, 0
            if distance == low:
                count += 1
        if low < figures[MIN_DISTANCE] or (low == figures[MIN_DISTANCE] and count >= figures[NUM_PAIRS]):
            continue
        if depth == num_classes - 1:
            figures[MIN_DISTANCE], figures[NUM_PAIRS] = low, count
            copy_to(best_order, order)
            continue
        depth += 1
        least[depth], pairs[depth] = low, count
