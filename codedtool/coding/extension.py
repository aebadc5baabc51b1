"""More classes later: a scheme whose first rows are those of a given one, word for word."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from codedtool.budget import Budget, Progress, StopReason, Work, silent
from codedtool.coding.arguments import checked_distance, whole
from codedtool.coding.highest import find_highest
from codedtool.coding.orders.joint import check_companions
from codedtool.coding.orders.rest import order_rest
from codedtool.coding.problem import Problem
from codedtool.coding.result import Extension, NotFoundError, SchemeResult, SearchInterrupted
from codedtool.coding.scheme import CodingScheme
from codedtool.coding.solvers.beside import (
    Beside,
    choose_from_continued_greedy_set,
    choose_from_greedy_set,
    draw_beside,
    search_exactly,
)
from codedtool.coding.solvers.candidate import Candidate
from codedtool.coding.solvers.table import is_practical
from codedtool.errors import InfeasibleError, InputError

# The largest C(N, N_act) whose words algorithm 1 compares one by one with given ones in a practical time.
_MOST_CONTINUED = 20_000_000


def extend_scheme(
    scheme: CodingScheme,
    num_classes: int,
    min_distance: int | Literal["max"] | None = None,
    *,
    companions: Sequence[CodingScheme] = (),
    seed: int = 0,
    budget: Budget | None = None,
    progress: Progress = silent,
) -> SchemeResult:
    """Add codewords to a scheme; its own rows stay word for word and come first.

    The new codewords keep the distance to the old ones and to each other, and make the columns of all rows together
    as even as the search finds. Short lists of words are searched exactly. Otherwise the new codewords are chosen
    from algorithm 1's greedy set (appendix A) as far as it fits the old ones, or drawn at random with even columns by
    construction.

    >>> from codedtool import find_scheme
    >>> eight = find_scheme(8, 10, 3, 4).scheme
    >>> result = extend_scheme(eight, 10)
    >>> bool((result.scheme.table[:8] == eight.table).all()), result.scheme.min_distance, result.extension.is_optimal
    (True, 4, True)

    Args:
        scheme: the scheme to extend, with fewer than K rows.
        num_classes: K, the number of codewords of the result.
        min_distance: H_min that all codewords keep, at most the given scheme's; an odd value is the next even one;
            None: the given scheme's; "max": the highest at which the search succeeds.
        companions: schemes of the other coded stages, each with K rows. The new rows are ordered so that no two
            classes have close codewords in all stages together.
        seed: of every random choice; equal arguments and seed give the equal scheme unless a time limit cut it.
        budget: time limit and interrupt flag; default no limit.
        progress: called with the phase and how far it is.

    Raises:
        InputError: K is not above the given scheme's, or H_min is above the given scheme's.
        InfeasibleError: proved impossible, or not found; the message says which, and how many codewords were reached.
        SearchInterrupted: on Ctrl-C or `Budget.interrupt`; holds the best scheme so far.
    """
    work = Work.started(seed, budget, progress)
    if whole("num_classes", num_classes) <= scheme.num_classes:
        raise InputError(f"`num_classes` must be above the {scheme.num_classes} of the given scheme, got {num_classes}")
    check_companions(companions, num_classes)
    highest = scheme.min_distance
    if min_distance is None:
        min_distance = highest
    if min_distance != "max" and checked_distance(min_distance) > highest:
        raise InputError(
            f"`min_distance` must be at most {highest}, got {min_distance}: the given scheme's own codewords are no "
            "farther apart"
        )

    def find(problem: Problem, share: Work) -> SchemeResult:
        problem.check_number_of_words()
        problem.check_bound()
        return _Search(scheme, problem, companions, share).run()

    if min_distance != "max":
        return find(Problem(num_classes, scheme.length, scheme.act, min_distance), work)
    every = [Problem(num_classes, scheme.length, scheme.act, distance) for distance in range(highest, 0, -2)]
    return find_highest(every, find, work)


@dataclass
class _Search:
    """One search at one distance; keeps the best new words where an interruption can find them."""

    scheme: CodingScheme
    problem: Problem
    companions: Sequence[CodingScheme]
    work: Work
    best: Candidate | None = None
    spread_bound: int = 0
    reached: int = 0
    ended: StopReason | None = None

    def run(self) -> SchemeResult:
        """Run the solvers until the columns are as even as possible; the result is verified."""
        self.beside = Beside(self.problem, self.scheme.words)
        self.spread_bound = self.beside.levels.best_spread
        try:
            self._solve()
            # A time limit that ends while many words are checked has cut nothing short.
            self.ended = self.work.stop_reason()
            result = self._result()
            if result is None:
                if self.work.stop_reason() == "interrupted":
                    raise SearchInterrupted(None)
                most_words = self.scheme.num_classes + self.reached
                raise NotFoundError(self._not_found(), most_words, self.work.stop_reason())
            result = order_rest(result, self.scheme.num_classes, self.companions, self.work)
        except KeyboardInterrupt as interruption:
            if isinstance(interruption, SearchInterrupted):
                raise
            raise SearchInterrupted(self._result()) from None
        if self.work.stop_reason() == "interrupted":
            raise SearchInterrupted(result)
        return result

    def _solve(self) -> None:
        beside, work = self.beside, self.work
        if is_practical("all words", self.problem):
            with work.stopwatch.timed("select"):
                exact = search_exactly(beside, work)
            if exact.spread_bound is None:
                raise InfeasibleError(
                    f"K={self.problem.num_classes} codewords cannot exist: no {beside.num_new} codewords lie at "
                    f"distance {self.problem.min_distance} from the {len(beside.given)} given ones and from each "
                    "other; lower `min_distance` or `num_classes`"
                )
            self.spread_bound = exact.spread_bound
            if exact.candidate is not None:
                self._offer(exact.candidate)
        solvers: list[Callable[[Beside, Work], Candidate | int]] = []
        if is_practical("lexicode", self.problem):
            solvers.append(choose_from_greedy_set)
        solvers.append(draw_beside)
        if self.problem.num_words <= _MOST_CONTINUED:
            solvers.append(choose_from_continued_greedy_set)
        for solver in solvers:
            if not self._is_done():
                with work.stopwatch.timed("select"):
                    self._offer(solver(beside, work))

    def _is_done(self) -> bool:
        is_best = self.best is not None and self.beside.spread(self.best.words) <= self.spread_bound
        return is_best or self.work.stop_reason() is not None

    def _offer(self, candidate: Candidate | int) -> None:
        """Keep the candidate if its columns are more even than the best's; or note how many words were reached."""
        if isinstance(candidate, int):
            self.reached = max(self.reached, candidate)
            return
        if self.best is None or self.beside.spread(candidate.words) < self.beside.spread(self.best.words):
            self.best = candidate

    def _result(self) -> SchemeResult | None:
        if self.best is None:
            return None
        new: NDArray[np.uint64] = np.sort(self.best.words)
        if not self.beside.keeps_rules(new):
            raise AssertionError("the solver's words break a rule")
        scheme = CodingScheme.from_words(np.concatenate([self.scheme.words, new]), self.problem.length)
        result = SchemeResult.of(
            scheme,
            method=self.best.method,
            selection=self.best.selection,
            seed=self.work.seed,
            seconds=self.work.stopwatch.seconds(),
            stopped="interrupted" if self.work.stop_reason() == "interrupted" else self.ended,
        )
        extension = Extension(self.scheme.num_classes, self.scheme.sha256, self.spread_bound, scheme.spread)
        return replace(result, extension=extension)

    def _not_found(self) -> str:
        problem, num_new = self.problem, self.beside.num_new
        is_stopped = self.work.stop_reason() is not None
        limit = "within the time limit " if is_stopped else ""
        advice = "raise `time_limit`, or lower" if is_stopped else "try another `seed`, or lower"
        return (
            f"{self.reached} of {num_new} new codewords were found {limit}at distance {problem.min_distance} from the "
            f"{self.scheme.num_classes} given ones and from each other, which makes "
            f"K={self.scheme.num_classes + self.reached}; {problem.num_classes} are not proved impossible (at most "
            f"{problem.bound.best} lie at this distance without the given ones); {advice} `min_distance` or "
            "`num_classes`"
        )
