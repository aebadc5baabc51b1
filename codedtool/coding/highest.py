"""The highest distance at which a search finds K words: the distances that are tried, and the time for each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from codedtool.budget import Work
from codedtool.coding.problem import Problem
from codedtool.coding.result import Attempt, NotFoundError, SchemeResult, SearchInterrupted
from codedtool.errors import InfeasibleError

# The least weight of a distance when a time limit is shared: enough for searches to end by themselves on a busy machine
# too. And the share of K words from which on a distance whose time was too short is tried again.
_LEAST_WEIGHT = 0.3
_PROMISING = 0.5

Find = Callable[[Problem, Work], SchemeResult]


def find_highest(problems: Sequence[Problem], find: Find, work: Work) -> SchemeResult:
    """The result at the first of ``problems``, one at each distance, falling, at which K words are found.

    A time limit is shared among the distances by how likely each is (`Problem.likelihood`), so that one which leads
    nowhere leaves time for the next. What is left in the end goes to the distances whose share was too short, where
    half of the K words were found in it.

    Args:
        problems: at least one.
        find: the search at one distance; raises InfeasibleError where it finds no K words.
        work: its budget's time limit is the one to be shared.

    Raises:
        InfeasibleError: no distance succeeded; the message says which were tried.
        SearchInterrupted: on an interruption; holds the best scheme so far.
    """
    search = _Downwards(find, work)
    try:
        search.run(problems)
    except SearchInterrupted as interruption:
        raise SearchInterrupted(interruption.best or search.result()) from None
    result = search.result()
    assert result is not None
    return result


class _Downwards:
    """The search from one distance to the next."""

    def __init__(self, find: Find, work: Work) -> None:
        self._find, self._work = find, work
        self._found: SchemeResult | None = None
        self._tried: list[Attempt] = []
        # Problems to be tried again in the time left, the highest distance first.
        self._cut: list[Problem] = []

    def run(self, problems: Sequence[Problem]) -> None:
        for place, problem in enumerate(problems):
            error = self._try(problem, _share(problems[place:]))
            if error is None:
                break
            if place + 1 == len(problems) or self._work.stop_reason() is not None:
                distances = ", ".join(str(one.min_distance) for one in self._tried)
                raise InfeasibleError(f"{error} (tried: distance {distances})")
        # The lowest distance is the likeliest.
        while self._cut and self._work.stop_reason() is None:
            self._try(self._cut.pop(), 1 / (len(self._cut) + 1))

    def result(self) -> SchemeResult | None:
        """The best result, with all that was tried."""
        if self._found is None:
            return None
        # Cut short last time it was tried, which for each distance is what counts.
        last = {one.min_distance: one.stopped for one in self._tried}
        reasons = [last[distance] for distance in last if distance > self._found.scheme.min_distance]
        stopped = self._found.stopped or next((reason for reason in reasons if reason is not None), None)
        return replace(self._found, tried=tuple(self._tried), stopped=stopped, seconds=self._work.stopwatch.seconds())

    def _try(self, problem: Problem, share: float) -> InfeasibleError | None:
        """Search at one distance with a share of the time left; the error if it finds no K words."""
        begin = self._work.budget.clock()
        error: InfeasibleError | None = None
        most_words, stopped, is_impossible = 0, None, False
        try:
            result = self._find(problem, self._work.share(share))
            most_words, stopped = problem.num_classes, result.stopped
            self._offer(result)
        except NotFoundError as not_found:
            error, most_words, stopped = not_found, not_found.most_words, not_found.stopped
        except InfeasibleError as impossible:
            error, is_impossible = impossible, True
        seconds = self._work.budget.clock() - begin
        self._tried.append(Attempt(problem.min_distance, most_words, stopped, seconds, is_impossible))
        is_first = all(one.min_distance != problem.min_distance for one in self._tried[:-1])
        if stopped == "time limit" and is_first and most_words >= _PROMISING * problem.num_classes:
            self._cut.append(problem)
        return error

    def _offer(self, result: SchemeResult) -> None:
        """Keep the result if its distance is higher than the best so far, or as high with more even columns."""
        best = self._found
        if best is None or _merit(result) > _merit(best):
            self._found = result


def _merit(result: SchemeResult) -> tuple[int, int]:
    return result.scheme.min_distance, -result.scheme.spread


def _share(problems: Sequence[Problem]) -> float:
    """The share of the first distance in the time left: by its likelihood, and those of the ones down to a sure one."""
    weights = []
    for problem in problems:
        weights.append(max(_LEAST_WEIGHT, problem.likelihood))
        if problem.likelihood == 1:
            break
    return weights[0] / sum(weights)
