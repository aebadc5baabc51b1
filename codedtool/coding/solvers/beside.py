"""Codewords beside given ones: solvers for the rows that a scheme gains when classes are added to it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from codedtool.budget import Work
from codedtool.coding.problem import Problem
from codedtool.coding.solvers.balance import select_balanced
from codedtool.coding.solvers.candidate import Candidate
from codedtool.coding.solvers.cp_sat import CpSatStatus, solve
from codedtool.coding.solvers.levels import Levels, levels_beside
from codedtool.coding.solvers.lexicode import lexicode
from codedtool.coding.solvers.sampler import sample_words
from codedtool.coding.words import distance_histogram, words_to_table

# CP-SAT's deterministic time for one spread, about seconds.
_CP_SAT_LIMIT = 10.0

# Comparisons in one slice of the continued algorithm 1: about 0.1 s. And the most words that it keeps.
_SLICE_WORK = 100_000_000
_MOST_KEPT = 1 << 16


@dataclass(frozen=True)
class Beside:
    """The problem of an extension.

    Attributes:
        problem: K of all words together, N, N_act and H_min.
        given: (K_given,) uint64, the words that stay, pairwise at distance >= H_min.
    """

    problem: Problem
    given: NDArray[np.uint64]

    @property
    def num_new(self) -> int:
        """How many words are to be found."""
        return self.problem.num_classes - len(self.given)

    @property
    def levels(self) -> Levels:
        """The column sums that the new words should have."""
        base_N = words_to_table(self.given, self.problem.length).sum(axis=0, dtype=np.int64)
        return levels_beside(base_N, self.num_new, self.problem.act)

    def spread(self, new: NDArray[np.uint64]) -> int:
        """S_max - S_min of the given words and these."""
        sums_N = self.levels.base_N + words_to_table(new, self.problem.length).sum(axis=0, dtype=np.int64)
        return int(sums_N.max() - sums_N.min())

    def keeps_rules(self, new: NDArray[np.uint64]) -> bool:
        """Whether these are as many new words as asked for, of the right weight, far enough from all others."""
        words = np.concatenate([self.given, new])
        return (
            len(new) == self.num_new
            and bool((np.bitwise_count(new) == self.problem.act).all())
            and min(distance_histogram(words)) >= self.problem.min_distance
        )

    def far_from_given(self, words: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """Those of ``words`` that lie at distance >= H_min from every given word."""
        is_far = np.ones(len(words), dtype=np.bool_)
        for given in self.given:
            is_far &= np.bitwise_count(words ^ given) >= self.problem.min_distance
        return words[is_far]


@dataclass(frozen=True)
class ExactAnswer:
    """CP-SAT's answer for a short list of words.

    Attributes:
        candidate: the new words, or None if none were found.
        spread_bound: no new words at this distance give a smaller S_max - S_min; None: no new words exist at all.
    """

    candidate: Candidate | None
    spread_bound: int | None


def search_exactly(beside: Beside, work: Work) -> ExactAnswer:
    """The new words with the smallest S_max - S_min, by CP-SAT over all words far enough from the given ones.

    Spreads are tried upwards from the smallest that any words could have, so that each is found or refuted.

    Args:
        beside: C(N, N_act) is at most a few thousand.
        work: its progress is told the phase "CP-SAT"; its budget is polled ten times a second.
    """
    from ortools.sat.python import cp_model

    problem, levels = beside.problem, beside.levels
    all_words = (sum(1 << bit for bit in bits) for bits in combinations(range(problem.length), problem.act))
    words = beside.far_from_given(np.array(sorted(all_words), dtype=np.uint64))
    table_MN = words_to_table(words, problem.length)

    def attempt(spread: int | None) -> tuple[CpSatStatus, NDArray[np.uint64] | None]:
        model = cp_model.CpModel()
        chosen = [model.new_bool_var("") for _ in range(len(words))]
        model.add(sum(chosen) == beside.num_new)
        for columns in combinations(range(problem.length), max(problem.shared_at_min + 1, 0)):
            model.add_at_most_one(chosen[v] for v in np.flatnonzero(table_MN[:, columns].all(axis=1)))
        if spread is not None:
            lowest = model.new_int_var(0, problem.num_classes, "")
            for column, base in enumerate(levels.base_N.tolist()):
                column_sum = base + sum(chosen[v] for v in np.flatnonzero(table_MN[:, column]))
                model.add(column_sum >= lowest)
                model.add(column_sum <= lowest + spread)
        result = solve(model, chosen, work, _CP_SAT_LIMIT)
        if result.indices is None:
            return result.status, None
        found = words[result.indices]
        good = beside.keeps_rules(found) and (spread is None or beside.spread(found) <= spread)
        return (CpSatStatus.FOUND, found) if good else (CpSatStatus.UNKNOWN, None)

    if len(words) < beside.num_new:
        return ExactAnswer(None, None)
    status, found = attempt(None)
    if status is CpSatStatus.PROVED_IMPOSSIBLE:
        return ExactAnswer(None, None)
    if found is None:
        return ExactAnswer(None, levels.best_spread)
    bound, proved = levels.best_spread, True
    for spread in range(levels.best_spread, beside.spread(found)):
        if work.stop_reason() is not None:
            break
        status, better = attempt(spread)
        if better is not None:
            found = better
            break
        proved = proved and status is CpSatStatus.PROVED_IMPOSSIBLE
        bound = spread + 1 if proved else bound
    return ExactAnswer(Candidate(found, "all words", "CP-SAT"), bound)


def draw_beside(beside: Beside, work: Work) -> Candidate | int:
    """New words of the random greedy search, with columns as even as they can be; or their number if too few."""
    sample = sample_words(beside.problem, work, given=beside.given)
    if len(sample.words) < beside.num_new:
        return len(sample.words)
    return Candidate(sample.words, "random greedy", f"{sample.num_draws} draws beside the given codewords")


def choose_from_greedy_set(beside: Beside, work: Work) -> Candidate | int:
    """New words chosen from algorithm 1's G without those near a given word; or their number if they are too few."""
    problem = beside.problem
    greedy = lexicode(problem.length, problem.act, problem.min_distance, work.share(0.5))
    return _balanced(beside, beside.far_from_given(greedy.words), "lexicode", work)


def choose_from_continued_greedy_set(beside: Beside, work: Work) -> Candidate | int:
    """New words chosen from the words that algorithm 1 keeps if it begins with the given ones; or their number."""
    from codedtool.coding.solvers import beside_kernels as kernels

    problem, num_given = beside.problem, len(beside.given)
    num_words = math.comb(problem.length, problem.act)
    kept = np.zeros(num_given + max(_MOST_KEPT, beside.num_new), dtype=np.uint64)
    kept[:num_given] = beside.given
    state = np.zeros(kernels.STATE_SIZE, dtype=np.uint64)
    state[kernels.NEXT], state[kernels.KEPT] = (1 << problem.act) - 1, num_given
    while state[kernels.DONE] < num_words and state[kernels.KEPT] < len(kept) and work.stop_reason() is None:
        work.progress("enumerating words", int(state[kernels.DONE]), num_words, "beside the given codewords")
        kernels.continue_greedy(problem.shared_at_min, num_words, _SLICE_WORK, kept, state)
    return _balanced(beside, kept[num_given : int(state[kernels.KEPT])], "lexicode beside the given codewords", work)


def _balanced(beside: Beside, words: NDArray[np.uint64], method: str, work: Work) -> Candidate | int:
    """As many of ``words``, which are far enough apart, as are needed, with even columns; their number if too few."""
    num_new = beside.num_new
    if len(words) < num_new:
        return len(words)
    if num_new == 1:
        spreads = [beside.spread(words[place : place + 1]) for place in range(len(words))]
        best = int(np.argmin(spreads))
        return Candidate(words[best : best + 1], method, "the most even")
    selected = select_balanced(words, beside.problem.with_classes(num_new), work, levels=beside.levels)
    return Candidate(words[selected.indices], method, selected.method)
