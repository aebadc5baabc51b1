"""Rule B: choosing K of the words of G so that their columns are as even as possible (appendix A, lines 19-27).

Three stages, all bounded by counted steps, so that a seed gives the same choice on every machine:

1. a tabu search over swaps of one chosen word for another, on uneven-ness plus pairs at distance H_min;
2. steepest descent on uneven-ness alone, which ends a few units short of even;
3. a meet in the middle: all pairs of words that could be taken are entered into a table under a hash that is linear
   in the words, so for a pair to drop the pair that makes the columns exactly even is one look-up away. Half a million
   look-ups in a million entries decide 5 * 10^11 double swaps in a few milliseconds, and every further swap made
   beforehand asks the same table for something else.

Stages 2 and 3 repeat from perturbed choices until the columns are even. The same meet in the middle then finds pairs
of swaps that leave the columns as they are and lower the number of pairs at H_min.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from codedtool.budget import StopReason, Work
from codedtool.coding.problem import Problem
from codedtool.coding.solvers.candidate import Candidate, Findings
from codedtool.coding.solvers.double_swaps import DoubleSwaps
from codedtool.coding.solvers.levels import Levels, levels_of
from codedtool.coding.words import distance_histogram, words_to_table
from codedtool.errors import InputError

# One pair of classes at H_min weighs as much as this many units of uneven-ness (sum of squared column residuals).
_PAIR_WEIGHT = 2

# Words looked at by the first tabu search, which makes its steps about as long for a large G as for a small one.
_TABU_WORK = 80_000_000
_TABU_STEPS = (300, 20_000)

# How often stages 2 and 3 are tried, and how many third swaps a try looks at.
_ATTEMPTS = 20
_TARGETS = 400
_PERTURBATION_SWAPS = 8
_PERTURBATION_STEPS = 40

_POLISH_ROUNDS = 6

# Words visited by one slice of the tabu search: about 0.1 s.
_SLICE_WORK = 10_000_000


@dataclass(frozen=True)
class Selection:
    """K chosen words.

    Attributes:
        indices: (K,) int64, ascending positions in the words given.
        spread: S_max - S_min of the chosen words, with those that stay where there are any.
        deviation: sum over columns of how far S_n lies outside the one or two values that even columns have.
        pairs_at_min: how many pairs of chosen words lie at exactly the minimum distance given.
        method: how they were chosen, in words.
        stopped: why the search ended early, or None.
    """

    indices: NDArray[np.int64]
    spread: int
    deviation: int
    pairs_at_min: int
    method: str
    stopped: StopReason | None


def balance_greedy_set(problem: Problem, work: Work, findings: Findings) -> Candidate | None:
    """Solver: K words of the greedy set G by the search of this module."""
    assert findings.greedy is not None
    words = findings.greedy.words
    with work.stopwatch.timed("select"):
        selected = select_balanced(words, problem, work)
    return Candidate(words[selected.indices], "lexicode", selected.method)


def select_balanced(
    words: NDArray[np.uint64], problem: Problem, work: Work, *, levels: Levels | None = None
) -> Selection:
    """Choose K of M words with columns as even as the search finds, and few pairs at H_min among equally even choices.

    Args:
        words: (M,) uint64, distinct, of the problem's length and weight, pairwise at distance >= H_min.
        problem: K <= M words are chosen.
        levels: the column sums to aim for, where the words are chosen beside others that stay; None: those of K words
            on their own.
        work: its progress is told the phase "balancing columns" and the best spread. When its budget ends, the best
            choice so far is returned.

    Raises:
        InputError: fewer than K words.
    """
    if len(words) < problem.num_classes:
        raise InputError(f"K={problem.num_classes} words cannot be chosen from {len(words)}")
    search = _Balance(words, problem, work, levels or levels_of(problem))
    if len(words) == problem.num_classes:
        return search.selection("all of G")
    return search.run()


@cache
def compile_kernels() -> None:
    """Compile or load every kernel, on the words of four bits with two ones."""
    problem = Problem(2, 4, 2, 2)
    words = np.array([3, 5, 6, 9, 10, 12], dtype=np.uint64)
    search = _Balance(words, problem, Work(), levels_of(problem))
    search._count()
    search._tabu(1)
    search._descend()
    table = search._double_swaps()
    table.look_up(search._missing())
    search._swap(int(table.inside[0]), int(table.outside[0]))


class _Balance:
    """One choice of K words and the search that improves it; `pool` and `choice` are those of `balance_kernels`."""

    def __init__(self, words: NDArray[np.uint64], problem: Problem, work: Work, levels: Levels) -> None:
        from codedtool.coding.solvers.balance_kernels import Pool

        self.problem, self.work, self.levels = problem, work, levels
        self.words = np.ascontiguousarray(words, dtype=np.uint64)
        self.pool = Pool(self.words, problem.length, problem.act, problem.shared_at_min)
        self.table_MN = words_to_table(self.words, problem.length)
        self.target = levels.best_spread
        self.mean_sums = levels.mean_sums
        self.random = np.random.default_rng(work.seed)
        self.stop_reason: StopReason | None = None
        # Any odd numbers make a hash that is linear in the words; random ones make collisions rare.
        hashes = self.random.integers(0, 1 << 63, size=problem.length, dtype=np.uint64)
        self.column_hashes = hashes << np.uint64(1) | np.uint64(1)
        self.word_hashes = (self.table_MN * self.column_hashes).sum(axis=1, dtype=np.uint64)
        self.clock = 0
        self.frozen_until = np.zeros(len(self.words), dtype=np.int64)
        first = np.zeros(len(self.words), dtype=np.bool_)
        first[self.random.permutation(len(self.words))[: problem.num_classes]] = True
        self.is_chosen = first
        self.best_chosen = first.copy()
        self.best_figures = (len(self.words) * problem.length, 0, 0)

    def run(self) -> Selection:
        """All stages; returns the best choice seen."""
        self.work.progress("balancing columns", 0, None, "loading or compiling kernels")
        with self.work.budget.paused():
            compile_kernels()
        self._count()
        self._report()
        least, most = _TABU_STEPS
        self._tabu(min(most, max(least, _TABU_WORK // len(self.words))))
        method = "local search"
        for _ in range(_ATTEMPTS):
            if self._stopped():
                break
            self._descend()
            self._remember()
            if self.best_figures[0] <= self.target:
                break
            if self._complete(self._missing()):
                self._remember()
                method = "local search, meet in the middle"
                break
            self._perturb()
            self._tabu(_PERTURBATION_STEPS)
        if self.best_figures[0] <= self.target:
            self._polish()
        self.is_chosen = self.best_chosen
        return self.selection(method)

    def selection(self, method: str) -> Selection:
        """The present choice, with its figures counted afresh from the table."""
        indices = np.flatnonzero(self.is_chosen)
        spread, deviation = self._unevenness(self.table_MN[indices].sum(axis=0, dtype=np.int64))
        return Selection(
            indices=indices.astype(np.int64),
            spread=spread,
            deviation=deviation,
            pairs_at_min=distance_histogram(self.words[indices]).get(self.problem.min_distance, 0),
            method=method,
            stopped=self.stop_reason,
        )

    def _unevenness(self, sums_N: NDArray[np.int64]) -> tuple[int, int]:
        """Spread and deviation of column sums."""
        levels = self.levels
        outside = np.maximum(levels.low_N - sums_N, 0) + np.maximum(sums_N - levels.high_N, 0)
        all_N = levels.base_N + sums_N
        return int(all_N.max() - all_N.min()), int(outside.sum())

    def _sums(self) -> NDArray[np.int64]:
        """Column sums of the present choice."""
        return (self.choice.residual_N + self.mean_sums) // self.problem.length

    def _count(self) -> None:
        """Count for the present choice everything that the kernels then keep up to date."""
        from codedtool.coding.solvers import balance_kernels

        problem = self.problem
        sums_N = self.table_MN[self.is_chosen].sum(axis=0, dtype=np.int64)
        residual_N = problem.length * sums_N - self.mean_sums
        dots = self.table_MN.astype(np.int64) @ residual_N
        degrees = np.zeros(len(self.words), dtype=np.int64)
        self.choice = balance_kernels.Choice(self.is_chosen, residual_N, dots, degrees)
        indices = np.flatnonzero(self.is_chosen)
        rows = max(1, _SLICE_WORK // len(self.words))
        for start in range(0, len(indices), rows):
            if self._stopped():
                break
            balance_kernels.add_degrees(self.pool, indices[start : start + rows], degrees)

    def _figures(self) -> tuple[int, int, int]:
        """Spread, deviation and pairs at H_min of the present choice: smaller is better, in this order."""
        return (*self._unevenness(self._sums()), int(self.choice.degrees[self.is_chosen].sum()) // 2)

    def _remember(self) -> None:
        figures = self._figures()
        if figures < self.best_figures:
            self.best_figures, self.best_chosen = figures, self.is_chosen.copy()
        self._report()

    def _report(self) -> None:
        spread = self.best_figures[0] if self.best_figures[0] < len(self.words) else self._figures()[0]
        self.work.progress("balancing columns", 0, None, f"best spread {spread}")

    def _stopped(self) -> bool:
        self.stop_reason = self.work.stop_reason()
        return self.stop_reason is not None

    def _swap(self, out: int, into: int) -> None:
        from codedtool.coding.solvers import balance_kernels

        balance_kernels.apply_swap(self.pool, self.choice, out, into)

    def _return_to(self, chosen: NDArray[np.bool_]) -> None:
        """Make ``chosen`` the present choice, swap by swap: it is seldom far away."""
        outs, ins = np.flatnonzero(self.is_chosen & ~chosen), np.flatnonzero(chosen & ~self.is_chosen)
        for out, into in zip(outs.tolist(), ins.tolist(), strict=True):
            self._swap(out, into)

    def _tabu(self, num_steps: int) -> None:
        """Stage 1 from the present choice; ends at the best one it saw."""
        from codedtool.coding.solvers import balance_kernels

        # A rest longer than either side would leave nothing to swap.
        num_classes = self.problem.num_classes
        side = min(num_classes, len(self.words) - num_classes)
        longest = max(1, min(40, side // 4))
        slice_steps = max(1, _SLICE_WORK // len(self.words))
        best = self.is_chosen.copy()
        costs = np.zeros(2, dtype=np.int64)
        for start in range(0, num_steps, slice_steps):
            if self._stopped():
                break
            steps = min(slice_steps, num_steps - start)
            tenures = self.random.integers(1, longest + 1, size=2 * steps)
            tabu = balance_kernels.Tabu(self.frozen_until, tenures, best, costs)
            balance_kernels.tabu_swaps(self.pool, self.choice, tabu, _PAIR_WEIGHT, steps, self.clock)
            self.clock += steps
            self.work.progress("balancing columns", start + steps, num_steps, f"best spread {self._figures()[0]}")
        self._return_to(best)

    def _perturb(self) -> None:
        """A few random swaps, so that the next attempt ends somewhere else."""
        num_swaps = min(_PERTURBATION_SWAPS, self.problem.num_classes, len(self.words) - self.problem.num_classes)
        outs = self.random.choice(np.flatnonzero(self.is_chosen), num_swaps, replace=False)
        ins = self.random.choice(np.flatnonzero(~self.is_chosen), num_swaps, replace=False)
        for out, into in zip(outs.tolist(), ins.tolist(), strict=True):
            self._swap(out, into)

    def _descend(self) -> None:
        """Stage 2: the best single swap until none lowers the uneven-ness."""
        from codedtool.coding.solvers import balance_kernels

        dots = self.choice.dots
        found = np.zeros(2, dtype=np.int64)
        while not self._stopped():
            inside = np.flatnonzero(self.is_chosen)
            outside = np.flatnonzero(~self.is_chosen)
            inside = inside[np.argsort(-dots[inside], kind="stable")]
            outside = outside[np.argsort(dots[outside], kind="stable")]
            if not balance_kernels.best_swap(self.pool, self.choice, self.problem.min_distance, inside, outside, found):
                return
            self._swap(int(found[balance_kernels.OUT]), int(found[balance_kernels.INTO]))

    def _missing(self) -> NDArray[np.int64]:
        """The ones that each column lacks to the nearest even choice; the fullest columns get the remainder."""
        sums_N = self._sums()
        return self.levels.goal(sums_N) - sums_N

    def _double_swaps(self) -> DoubleSwaps:
        """The double swaps from the present choice."""
        return DoubleSwaps(self.pool, self.choice, self.column_hashes, self.word_hashes)

    def _complete(self, wanted_N: NDArray[np.int64]) -> bool:
        """Stage 3: two or three swaps that add exactly ``wanted_N``, applied if found.

        First without a third swap, then with each of the third swaps that leave the columns least uneven: every one
        is another target for the same table.
        """
        table = self._double_swaps()
        pairs = table.look_up(wanted_N)
        if pairs is not None:
            table.apply()
            return True
        inside, outside = table.inside, table.outside
        # How each swap changes the uneven-ness (`balance_kernels`), row by row.
        dots, words, problem = self.choice.dots, self.words, self.problem
        shared = np.bitwise_count(words[inside, None] & words[outside]).astype(np.int64)
        changes = (2 * (dots[outside] - dots[inside, None] + problem.length * (problem.act - shared))).ravel()
        num_targets = min(_TARGETS, len(changes))
        # Not argpartition: which of several equal swaps it returns depends on the processor.
        least = np.flatnonzero(changes <= np.partition(changes, num_targets - 1)[num_targets - 1])
        for place in least[np.argsort(changes[least], kind="stable")[:num_targets]].tolist():
            if self._stopped():
                return False
            out, into = int(inside[place // len(outside)]), int(outside[place % len(outside)])
            third_N = self.table_MN[into].astype(np.int64) - self.table_MN[out]
            if table.look_up(wanted_N - third_N, out, into) is not None:
                self._swap(out, into)
                table.apply()
                return True
        return False

    def _polish(self) -> None:
        """Fewer pairs at H_min at the same column sums, by double swaps that add nothing to any column."""
        self._return_to(self.best_chosen)
        unchanged_N = np.zeros(self.problem.length, dtype=np.int64)
        for _ in range(_POLISH_ROUNDS):
            if self._stopped():
                break
            table = self._double_swaps()
            pairs = table.look_up(unchanged_N)
            if pairs is None or pairs >= 0:
                break
            table.apply()
            self._remember()
