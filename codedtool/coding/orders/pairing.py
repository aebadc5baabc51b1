"""Ordering the rows of one scheme against others, so that no two classes have close paths.

A class's path through the network is its codewords of all coded stages side by side. Which row of a scheme a class
gets changes none of the scheme's own rules, but it decides which pairs of classes are close in every stage at once:
the joint distance of two classes is the sum of their codewords' distances over all the schemes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codedtool.budget import StopReason, Work
from codedtool.coding.bounds.joint import JointBound, joint_bound
from codedtool.coding.orders.annealing import slacks
from codedtool.coding.scheme import CodingScheme
from codedtool.coding.words import MAX_LENGTH, all_distances
from codedtool.errors import InputError

# All 10! orders take less than a second; 11! would take ten times as long.
_EXACT_CLASSES = 10

# Two K x K tables of bytes: 2 GiB at the limit.
_MOST_CLASSES = 32768

# Proposals towards one goal, shared by several annealings where K is small: with many classes a slow one does better.
_ANNEALING_STEPS = 20_000_000
_MOST_ATTEMPTS = 8
_ATTEMPT_CLASSES = 1000

# Temperatures, in units of a pair that is 2 short: first and last of the annealing, and of the polishing after it.
_ANNEALING = (1.5, 0.2)
_POLISHING = (1.0, 0.2)
_TEMPERATURES = 100

# A pair that is 4 short costs 8 while annealing: fewer pairs in the end than with a steeper cost. The 20 of polishing
# gets rid of the few that stay below the minimum then.
_STEEPNESS = 1
_POLISHING_STEEPNESS = 4

# Shortest distances that cost more than this many below the goal cost the same: 32-bit sums of 128 stay exact.
_MOST_SHORT = 90

# Entries visited by one slice of work: about 0.1 s.
_SLICE_WORK = 40_000_000


@dataclass(frozen=True)
class JointOrder:
    """Which row of a scheme each class gets, and how far apart the paths of all schemes together are then.

    Attributes:
        scheme: the scheme with its rows in the found order.
        permutation: (K,) int64; class i gets row ``permutation[i]`` of the scheme as it was given.
        histogram: joint distance -> number of pairs of classes, ascending, counted with numpy; in the found order.
        given_histogram: the same for the order in which the scheme was given.
        bound: figures that no order of these schemes can exceed.
        exhausted: whether all orders were tried, so that the found one is the best there is.
        seed: the seed of every random choice.
        seconds: wall-clock seconds.
        stopped: why the search ended before its own end, or None.
    """

    scheme: CodingScheme
    permutation: NDArray[np.int64] = field(compare=False)
    histogram: dict[int, int]
    given_histogram: dict[int, int]
    bound: JointBound
    exhausted: bool
    seed: int
    seconds: float = field(compare=False)
    stopped: StopReason | None = None

    @property
    def joint_min_distance(self) -> int:
        """The smallest joint distance of two classes."""
        return min(self.histogram)

    @property
    def pairs_at_joint_min(self) -> int:
        """How many pairs of classes lie at it."""
        return self.histogram[self.joint_min_distance]

    @property
    def is_optimal(self) -> bool:
        """Whether no order has a higher joint minimum distance, or the same with fewer pairs at it."""
        figures = (self.joint_min_distance, self.pairs_at_joint_min)
        return self.exhausted or figures == (self.bound.min_distance, self.bound.pairs_at(self.joint_min_distance))

    def provenance(self) -> dict[str, Any]:
        """The part of an ordered scheme's JSON on the order, its figures and their bounds; plain JSON types."""
        least = self.joint_min_distance
        return {
            "joint_min_distance": least,
            "pairs_at_joint_min": self.pairs_at_joint_min,
            "joint_distance_histogram": {str(d): n for d, n in self.histogram.items()},
            "given_joint_distance_histogram": {str(d): n for d, n in self.given_histogram.items()},
            "joint_min_distance_bound": self.bound.min_distance,
            "pairs_at_joint_min_bound": self.pairs_at_joint_min if self.exhausted else self.bound.pairs_at(least),
            "joint_order_is_optimal": self.is_optimal,
            "joint_order_seed": self.seed,
            "joint_order_stopped": self.stopped,
            "permutation": self.permutation.tolist(),
        }


def joint_distance_histogram(schemes: Sequence[CodingScheme]) -> dict[int, int]:
    """Joint distance -> number of unordered pairs of classes at it, ascending; numpy only, O(K^2) time.

    Args:
        schemes: at least one scheme, all of one K; row k of each is class k.
    """
    return _joint_counts(np.stack([scheme.words for scheme in schemes]))


def _joint_counts(words_SK: NDArray[np.uint64]) -> dict[int, int]:
    """`joint_distance_histogram` of the words of S schemes."""
    num_classes = words_SK.shape[1]
    counts = np.zeros(MAX_LENGTH * len(words_SK) + 1, dtype=np.int64)
    rows = max(1, (1 << 22) // num_classes)
    for start in range(0, num_classes, rows):
        block = np.zeros((min(rows, num_classes - start), num_classes), dtype=np.int64)
        for words in words_SK:
            block += np.bitwise_count(words[start : start + rows, None] ^ words[None])
        counts += np.bincount(block.ravel(), minlength=len(counts))
    counts[0] -= num_classes
    return {int(d): int(counts[d]) // 2 for d in np.flatnonzero(counts)}


def order_jointly(scheme: CodingScheme, others: Sequence[CodingScheme], work: Work | None = None) -> JointOrder:
    """Order the rows of ``scheme`` so that the joint minimum distance is high, and the pairs at it few.

    A quadratic assignment problem with a bottleneck. Up to 10 classes all orders are tried (branch and bound). Above,
    simulated annealing (S. Kirkpatrick, C. D. Gelatt, M. P. Vecchi 1983) swaps rows of classes that are too close to
    another, towards a goal that rises by 2 whenever it is reached. Among the orders found while a goal is missed, the
    one with the fewest pairs at the minimum is kept. The result is never worse than the order given.

    Args:
        scheme: the scheme to order, K classes.
        others: one or more schemes of the same K, whose rows stay where they are.
        work: equal arguments and seed give the equal order unless the budget cut the search short. The budget is
            polled every 0.1 s. The progress is told the phase "ordering rows".

    Returns:
        The best order found; when the budget stopped the search, the best until then, with ``stopped`` set.

    Raises:
        InputError: no other scheme, schemes of different K, or K above 32768.
    """
    _check_arguments(scheme, others)
    work = work or Work()
    start = time.monotonic()
    search = _Search(scheme, others, work)
    try:
        search.run()
    except KeyboardInterrupt:
        search.stopped = "interrupted"
    ordered = CodingScheme(scheme.table[search.best])
    return JointOrder(
        scheme=ordered,
        permutation=search.best,
        histogram=joint_distance_histogram([ordered, *others]),
        given_histogram=joint_distance_histogram([scheme, *others]),
        bound=search.bound,
        exhausted=search.exhausted,
        seed=work.seed,
        seconds=time.monotonic() - start,
        stopped=search.stopped,
    )


def _check_arguments(scheme: CodingScheme, others: Sequence[CodingScheme]) -> None:
    """Raise InputError for arguments of `order_jointly` out of their range."""
    if not others:
        raise InputError("`others` is empty: give at least one scheme to order the rows against")
    for other in others:
        if other.num_classes != scheme.num_classes:
            raise InputError(
                f"schemes are ordered together class by class, but one has K={scheme.num_classes} rows and "
                f"another K={other.num_classes}; give schemes of one K"
            )
    check_orderable(scheme.num_classes)


def check_orderable(num_classes: int) -> None:
    """Raise InputError for more classes than `order_jointly` orders."""
    if num_classes > _MOST_CLASSES:
        raise InputError(
            f"rows are ordered for up to K={_MOST_CLASSES} classes (two K x K tables in memory), got K={num_classes}"
        )


class _Search:
    """One search; `best` is a valid order at any moment."""

    def __init__(self, scheme: CodingScheme, others: Sequence[CodingScheme], work: Work) -> None:
        self.words_K = scheme.words
        self.words_SK = np.stack([other.words for other in others])
        self.num_classes = scheme.num_classes
        self.work = work
        self.random = np.random.default_rng(work.seed)
        self.stopped: StopReason | None = None
        self.exhausted = False
        self.best = np.arange(self.num_classes)
        self.figures = self._figures(self.best)
        work.progress("ordering rows", 0, None, "bounding the joint distance of any order")
        self.bound = joint_bound(scheme, others, work)

    def run(self) -> None:
        """All orders of a few classes, or annealing towards ever higher goals."""
        self.work.progress("ordering rows", 0, None, "loading or compiling kernels")
        if self.num_classes <= _EXACT_CLASSES:
            self._try_all()
            return
        while not self._is_stopped():
            least, pairs = self.figures
            if least >= self.bound.min_distance and pairs <= self.bound.pairs_at(least):
                return
            if not self._approach(least + 2):
                return

    def _try_all(self) -> None:
        """The best of all K! orders, by branch and bound."""
        from codedtool.coding.orders import pairing_kernels

        others_KK = np.bitwise_count(self.words_SK[:, :, None] ^ self.words_SK[:, None]).sum(axis=0, dtype=np.int64)
        own_KK = all_distances(self.words_K)
        figures = np.array(self.figures)
        order, least, pairs = np.zeros((3, self.num_classes), dtype=np.int64)
        branch = pairing_kernels.Branch(order, np.zeros(self.num_classes, dtype=np.bool_), least, pairs)
        for row in range(self.num_classes):
            if self._is_stopped():
                return
            pairing_kernels.search_orders(others_KK, own_KK, row, figures, self.best, branch)
            self.figures = (int(figures[pairing_kernels.MIN_DISTANCE]), int(figures[pairing_kernels.NUM_PAIRS]))
            self._report(row + 1, self.num_classes, "all orders")
        self.exhausted = True

    def _approach(self, goal: int) -> bool:
        """Anneal towards joint distances of ``goal`` and more; returns whether it was reached."""
        annealing = _Annealing(self, goal)
        attempts = max(1, min(_MOST_ATTEMPTS, _ATTEMPT_CLASSES // self.num_classes))
        steps = _ANNEALING_STEPS // attempts
        for attempt in range(attempts):
            order = self.best
            for steepness, temperatures, num_steps in (
                (_STEEPNESS, _ANNEALING, steps),
                (_POLISHING_STEEPNESS, _POLISHING, steps // 2),
            ):
                order = annealing.cool(
                    order, steepness, temperatures, num_steps, f"attempt {attempt + 1} of {attempts}"
                )
                self._offer(order)
                if self.figures[0] >= goal:
                    return True
                if self._is_stopped():
                    return False
        return False

    def _offer(self, order: NDArray[np.int64]) -> None:
        """Keep ``order`` if it is better than the best."""
        least, pairs = self._figures(order)
        if (least, -pairs) > (self.figures[0], -self.figures[1]):
            self.best, self.figures = order.copy(), (least, pairs)

    def _figures(self, order: NDArray[np.int64]) -> tuple[int, int]:
        """Joint minimum distance and pairs at it, in the order given."""
        histogram = _joint_counts(np.vstack([self.words_K[order], self.words_SK]))
        least = min(histogram)
        return least, histogram[least]

    def _report(self, done: float, total: float, how: str) -> None:
        least, pairs = self.figures
        self.work.progress("ordering rows", done, total, f"joint minimum distance {least}, {pairs} pairs at it; {how}")

    def _is_stopped(self) -> bool:
        self.stopped = self.work.stop_reason()
        return self.stopped is not None


class _Annealing:
    """Simulated annealing towards one goal; holds the tables that the kernels keep up to date."""

    def __init__(self, search: _Search, goal: int) -> None:
        from codedtool.coding.orders import pairing_kernels

        self._search = search
        self._goal = goal
        num_classes = search.num_classes
        self._rows = max(1, _SLICE_WORK // num_classes)
        self._wanted = np.full((num_classes, num_classes), -1, dtype=np.int8)
        self._own = np.empty((num_classes, num_classes), dtype=np.int8)
        for first, last in self._slices():
            pairing_kernels.fill_wanted(search.words_SK, goal, _MOST_SHORT, first, last, self._wanted)

    def cool(
        self,
        order: NDArray[np.int64],
        steepness: int,
        temperatures: tuple[float, float],
        num_steps: int,
        attempt: str,
    ) -> NDArray[np.int64]:
        """Anneal from ``order`` while the temperature falls geometrically; returns the least costly order seen."""
        from codedtool.coding.orders import pairing_kernels

        search, num_classes = self._search, self._search.num_classes
        costs = np.zeros(num_classes, dtype=np.int64)
        pairs = pairing_kernels.Pairs(self._wanted, self._own, steepness)
        for first, last in self._slices():
            pairing_kernels.fill_own(search.words_K[order], first, last, self._own)
            pairing_kernels.add_costs(pairs, first, last, costs)
        in_conflict = np.zeros(num_classes, dtype=np.int64)
        place = np.full(num_classes, -1, dtype=np.int64)
        conflicts = np.flatnonzero(costs)
        in_conflict[: len(conflicts)] = conflicts
        place[conflicts] = np.arange(len(conflicts))
        cost = int(costs.sum()) // 2
        totals = np.array([cost, cost, len(conflicts)], dtype=np.int64)
        present = pairing_kernels.Order(order.copy(), order.copy(), costs, in_conflict, place, totals)
        random_state = search.random.integers(1, 1 << 63, size=1, dtype=np.uint64)
        hot, cold = temperatures
        per_slice = max(1, min(_SLICE_WORK // num_classes, num_steps // _TEMPERATURES))
        for done in range(0, num_steps, per_slice):
            if totals[pairing_kernels.COST] == 0 or search._is_stopped():
                break
            steps = min(per_slice, num_steps - done)
            temperature = hot * (cold / hot) ** (done / num_steps)
            pairing_kernels.anneal(pairs, present, slacks(temperature), random_state, steps)
            search._report(done + steps, num_steps, f"towards {self._goal}, {attempt}")
        return present.best_order

    def _slices(self) -> Iterator[tuple[int, int]]:
        """First and last + 1 of the rows that one slice of filling takes."""
        num_classes = len(self._own)
        for first in range(0, num_classes, self._rows):
            if self._search._is_stopped():
                return
            yield first, min(first + self._rows, num_classes)
