"""Finding a coding scheme: the search that is composed of the bounds, the solvers and the orders of rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from codedtool.budget import Budget, Progress, StopReason, Work, silent
from codedtool.coding.ahead import Ahead
from codedtool.coding.highest import find_highest
from codedtool.coding.orders.joint import arrange_jointly, check_companions
from codedtool.coding.problem import Problem
from codedtool.coding.result import NotFoundError, SchemeResult, SearchInterrupted
from codedtool.coding.scheme import CodingScheme
from codedtool.coding.solvers.candidate import Candidate, Findings
from codedtool.coding.solvers.table import SOLVERS, is_practical
from codedtool.errors import InputError

Method = Literal["auto", "lexicode", "orbits"]
Refine = Literal["auto", "local", "cp-sat", "none"]


def find_scheme(
    num_classes: int,
    length: int,
    act: int,
    min_distance: int | Literal["max"],
    *,
    companions: Sequence[CodingScheme] = (),
    method: Method = "auto",
    refine: Refine = "auto",
    seed: int = 0,
    budget: Budget | None = None,
    progress: Progress = silent,
) -> SchemeResult:
    """Find K codewords of length N and weight N_act at distance >= H_min with columns as even as possible.

    >>> result = find_scheme(num_classes=10, length=10, act=3, min_distance=4)
    >>> result.scheme
    CodingScheme(K=10, N=10, act=3)
    >>> result.scheme.min_distance, result.scheme.spread, result.hmin_is_optimal
    (4, 0, True)

    Algorithm 1 (appendix A) gives the greedy set G; the balance engine chooses K of it. Where G is too small or stays
    less even than it could be, the search is over all words if their list is small (the paper's brute force), and
    otherwise over words of linear codes and unions of orbits of permutation groups, whose columns are even by
    construction. Where the words are too many to list, those and a random greedy search come first. Upper bounds
    refuse impossible problems at once.

    Args:
        num_classes: K >= 2.
        length: N, 2..64.
        act: N_act, 1..N-1.
        min_distance: H_min >= 2 (words of one weight lie at even distances: an odd value is the next even one),
            or "max" for the highest at which K words are found.
        companions: schemes of the other coded stages, each with K rows that stay as they are. The result's rows are
            chosen (few classes) and ordered so that no two classes have close codewords in all stages together.
        method: "lexicode" chooses from G only; "orbits" from linear codes and unions of orbits only; "auto" as above.
        refine: "auto" | "local" (no CP-SAT) | "cp-sat" (CP-SAT before other methods) | "none" (the first K words of G).
        seed: of every random choice; equal arguments and seed give the equal scheme unless a time limit cut it.
        budget: time limit and interrupt flag; default no limit.
        progress: called with the phase and how far it is.

    Raises:
        InputError: an argument out of range.
        InfeasibleError: proved impossible, or not found; the message gives the bound, or how many words were found.
        SearchInterrupted: on Ctrl-C or `Budget.interrupt`; holds the best scheme so far.
    """
    work = Work.started(seed, budget, progress)
    problem = Problem(num_classes, length, act, 2 if min_distance == "max" else min_distance)
    check_companions(companions, num_classes)
    problem.check_number_of_words()
    if min_distance == "max":
        every = list(problem.at_each_distance())
        result = find_highest(every, lambda one, share: _find(one, method, refine, share), work)
    else:
        result = _find(problem, method, refine, work)
    return arrange_jointly(result, companions, work, choose_words=method == "auto")


def scheme_from_words(
    words: Sequence[str],
    num_classes: int,
    length: int,
    act: int,
    min_distance: int,
    *,
    companions: Sequence[CodingScheme] = (),
    seed: int = 0,
    budget: Budget | None = None,
    progress: Progress = silent,
) -> SchemeResult:
    """The scheme whose rows are the given codewords, in their order, checked by the same rules as a found one.

    Args:
        words: K strings of N binary digits, leftmost digit first as in table 4.
        num_classes, length, act, min_distance: K, N, N_act and the H_min that the words must keep.
        companions: schemes of the other coded stages; with them the rows are ordered as in `find_scheme`.
        seed, budget, progress: as in `find_scheme`; the seed is used with ``companions`` only.

    Raises:
        InputError: not K words of N digits 0/1 with N_act ones, equal words, or a pair closer than ``min_distance``.
    """
    work = Work.started(seed, budget, progress)
    Problem(num_classes, length, act, min_distance)
    check_companions(companions, num_classes)
    if len(words) != num_classes:
        raise InputError(f"`words` gives {len(words)} codewords, `num_classes` asks for {num_classes}")
    for row, word in enumerate(words):
        if len(word) != length or set(word) - {"0", "1"}:
            raise InputError(f"`words`: word {row} is {word!r}, a codeword has {length} digits 0 or 1")
        if word.count("1") != act:
            raise InputError(f"`words`: word {row} ({word}) has {word.count('1')} ones, rule A asks for {act}")
    scheme = CodingScheme.from_words(np.array([int(word, 2) for word in words], dtype=np.uint64), length)
    if scheme.min_distance < min_distance:
        raise InputError(
            f"`words`: the closest codewords lie at distance {scheme.min_distance}, "
            f"`min_distance` asks for {min_distance}"
        )
    progress("bounding", 0, None, "upper bounds on the number of words")
    result = SchemeResult.of(scheme, method="given", selection="given", seed=0, seconds=work.stopwatch.seconds())
    return arrange_jointly(result, companions, work, choose_words=False)


def _find(problem: Problem, method: Method, refine: Refine, work: Work) -> SchemeResult:
    """The search at one distance; the bounds come first."""
    distance = problem.min_distance
    work.progress("bounding", 0, None, f"upper bounds on the number of words at distance {distance}")
    problem.check_bound()
    search = _Search(problem, method, refine, work)
    try:
        result = search.run()
    except KeyboardInterrupt:
        raise SearchInterrupted(search.best()) from None
    if result.stopped == "interrupted":
        raise SearchInterrupted(result)
    return result


class _Search:
    """One search at one distance; keeps the best candidate where an interruption can find it."""

    def __init__(self, problem: Problem, method: Method, refine: Refine, work: Work) -> None:
        self._problem, self._method, self._refine, self._work = problem, method, refine, work
        self._findings = Findings()
        self._ended: StopReason | None = None

    def run(self) -> SchemeResult:
        """Run the solvers of the plan until the columns are as even as possible; the result is verified."""
        solvers = [SOLVERS[name] for name in self._plan()]
        with Ahead() as ahead:
            for place, solver in enumerate(solvers):
                if _spread(self._findings.best, self._problem) <= self._problem.best_spread or self._is_stopped():
                    break
                if not solver.can_start(self._problem, self._findings):
                    continue
                if solver.compile_kernels is not None:
                    later = (one.compile_kernels for one in solvers[place + 1 :] if one.compile_kernels is not None)
                    ahead.prepare(solver.compile_kernels, next(later, None), self._work)
                self._offer(solver.solve(self._problem, self._work, self._findings))
        # A time limit that ends while many words are checked has cut nothing short.
        self._ended = self._work.stop_reason()
        result = self.best()
        if result is None:
            if self._work.stop_reason() == "interrupted":
                raise SearchInterrupted(None)
            raise NotFoundError(self._not_found(), self._findings.most_words, self._work.stop_reason())
        return result

    def _plan(self) -> list[str]:
        """Names of the solvers to run, in this order."""
        structured = ["linear code", "orbits"]
        if self._method == "orbits":
            return structured
        greedy = ["lexicode"] if self._refine == "none" else ["lexicode", "balance"]
        refined = ["cp-sat"] if self._refine in ("auto", "cp-sat") else []
        if self._method == "lexicode":
            return [*greedy, *refined]
        if self._refine in ("none", "local"):
            return greedy
        if is_practical("all words", self._problem):
            return [*greedy, *refined, "all words"]
        if is_practical("lexicode", self._problem):
            first_refined = refined if self._refine == "cp-sat" else []
            return [*greedy, *first_refined, *structured, "sampler", *refined]
        return [*structured, "sampler", *greedy, *refined]

    def best(self) -> SchemeResult | None:
        """The best candidate so far as a result, or None if there is none."""
        found, greedy, problem = self._findings.best, self._findings.greedy, self._problem
        if found is None:
            return None
        scheme = CodingScheme.from_words(np.sort(found.words), problem.length)
        is_interrupted = self._work.stop_reason() == "interrupted"
        figures = (scheme.num_classes, scheme.act)
        if figures != (problem.num_classes, problem.act) or scheme.min_distance < problem.min_distance:
            raise AssertionError(f"the solver's words break a rule: {scheme!r}, H_min {scheme.min_distance}")
        return SchemeResult.of(
            scheme,
            method=found.method,
            selection=found.selection,
            seed=self._work.seed,
            greedy_size=None if greedy is None else len(greedy.words),
            seconds=self._work.stopwatch.seconds(),
            stopped="interrupted"
            if is_interrupted
            else self._ended or (greedy.stopped if greedy is not None and greedy.cut_short else None),
        )

    def _offer(self, candidate: Candidate | None) -> None:
        """Keep the candidate if its columns are more even than those of the best so far."""
        if _spread(candidate, self._problem) < _spread(self._findings.best, self._problem):
            self._findings.best = candidate

    def _is_stopped(self) -> bool:
        return self._work.stop_reason() is not None

    def _not_found(self) -> str:
        """The message of a search without result: why, and which arguments to change."""
        greedy, problem = self._findings.greedy, self._problem
        asked = f"K={problem.num_classes} codewords at distance {problem.min_distance} were not found"
        if self._is_stopped() and (greedy is None or not greedy.num_done):
            return f"{asked} within the time limit; raise `time_limit`, or lower `min_distance` or `num_classes`"
        if greedy is None:
            return f"{asked}; lower `min_distance` or `num_classes`, raise `length`, or try another `method` or `seed`"
        if not greedy.complete:
            share = greedy.num_done / greedy.num_words
            if greedy.stopped == "out of reach":
                return (
                    f"{asked}: algorithm 1 keeps {len(greedy.words)} of the first {share:.3g} of all "
                    f"{greedy.num_words} words; lower `min_distance` or `num_classes`, or raise `length`"
                )
            if greedy.stopped == "word limit":
                return (
                    f"{asked} among the {len(greedy.words)} words that algorithm 1 may keep, of {share:.3g} of all "
                    f"{greedy.num_words}; try another `method` or `seed`"
                )
            return (
                f"{asked} within the time limit: algorithm 1 decided {share:.3g} of {greedy.num_words} words and kept "
                f"{len(greedy.words)}; raise `time_limit`, or lower `min_distance` or `num_classes`"
            )
        others = "" if self._refine in ("auto", "cp-sat") else "; `refine` auto tries other words too"
        return (
            f"{asked}: algorithm 1 over all {greedy.num_words} words keeps {len(greedy.words)}, and they are not "
            f"proved impossible; lower `min_distance` or `num_classes`, or raise `length`{others}"
        )


def _spread(candidate: Candidate | None, problem: Problem) -> float:
    """S_max - S_min of a candidate; infinite for None."""
    if candidate is None:
        return math.inf
    return CodingScheme.from_words(candidate.words, problem.length).spread
