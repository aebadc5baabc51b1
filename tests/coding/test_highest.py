"""The highest distance: how a time limit is shared, what is tried again, and what the result says was tried."""

from __future__ import annotations

from dataclasses import replace

import pytest

from codedtool.budget import Budget, StopReason, Work
from codedtool.coding.bounds import upper_bound
from codedtool.coding.highest import find_highest
from codedtool.coding.problem import Problem
from codedtool.coding.result import NotFoundError, SchemeResult, SearchInterrupted
from codedtool.coding.scheme import CodingScheme
from codedtool.coding.search import find_scheme
from codedtool.errors import InfeasibleError

pytestmark = pytest.mark.quick

# 13 words of 10 digits with 3 ones: distance 4 is not excluded, and two words are at most 6 apart.
K, N, ACT = 13, 10, 3


class Clock:
    """A clock that only the searches move."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def result_at(distance: int) -> SchemeResult:
    """A result whose words are at one of the distances 2 and 4."""
    digits = [{0, 1, 2}, {0, 3, 4}, {1, 3, 5}] if distance == 4 else [{0, 1, other} for other in (2, 3, 4)]
    scheme = CodingScheme([[int(digit in one) for digit in range(N)] for one in digits])
    assert scheme.min_distance == distance
    return SchemeResult.of(scheme, method="given", selection="given", seed=0, seconds={})


class Searches:
    """Stands for the search at one distance: how many seconds it needs, and how many words it has found until then.

    ``needed`` and ``words`` are given by distance; a search that needs infinitely long never finds K words.
    """

    def __init__(
        self, needed: dict[int, float], words: dict[int, int] | None = None, limit: float | None = 100
    ) -> None:
        self.needed, self.words = needed, words or {}
        self.clock = Clock()
        self.budget = Budget(limit, clock=self.clock)
        self.calls: list[tuple[int, float | None]] = []

    def find(self, problem: Problem, work: Work) -> SchemeResult:
        distance, share = problem.min_distance, work.budget.time_limit
        self.calls.append((distance, share))
        needed = self.needed[distance]
        if share is not None and needed > share:
            self.clock.now += share
            raise NotFoundError("too slow", self.words.get(distance, 0), "time limit")
        if needed == float("inf"):
            raise NotFoundError("nothing found", self.words.get(distance, 0), None)
        self.clock.now += needed
        return result_at(distance)

    def run(self) -> SchemeResult:
        problems = [Problem(K, N, ACT, distance) for distance in (6, 4, 2)]
        return find_highest(problems, self.find, Work.started(0, self.budget, lambda *_: None))


def test_an_unlikely_distance_leaves_most_of_the_time_to_the_next() -> None:
    searches = Searches({6: 1000, 4: 1000, 2: 1})
    result = searches.run()
    (_, first), (_, second), (_, third) = searches.calls
    assert first is not None
    assert second is not None
    assert 0 < first < 25
    assert first + second < 75
    assert third == pytest.approx(100 - first - second)
    assert result.scheme.min_distance == 2
    # A longer search might have found words at distance 4 or 6.
    assert result.stopped == "time limit"
    assert [(one.min_distance, one.stopped) for one in result.tried] == [
        (6, "time limit"),
        (4, "time limit"),
        (2, None),
    ]


def test_without_a_limit_no_search_is_cut_short() -> None:
    searches = Searches({6: float("inf"), 4: 1000, 2: 1}, limit=None)
    result = searches.run()
    assert searches.calls == [(6, None), (4, None)]
    assert (result.scheme.min_distance, result.stopped) == (4, None)


def test_the_time_left_goes_to_a_distance_that_was_half_found() -> None:
    few, many, slow = (Searches({6: 1000, 4: needed, 2: 1}, {4: n}) for needed, n in ((60, 6), (60, 7), (99, 7)))
    assert few.run().scheme.min_distance == 2
    assert [distance for distance, _ in few.calls] == [6, 4, 2]
    # Half of 13 words were there.
    found = many.run()
    assert [distance for distance, _ in many.calls] == [6, 4, 2, 4]
    assert found.scheme.min_distance == 4
    assert [one.most_words for one in found.tried] == [0, 7, 13, 13]
    in_vain = slow.run()
    assert [distance for distance, _ in slow.calls] == [6, 4, 2, 4]
    assert (in_vain.scheme.min_distance, in_vain.stopped) == (2, "time limit")


def test_what_was_found_nowhere_is_said_with_every_distance() -> None:
    with pytest.raises(InfeasibleError, match=r"nothing found \(tried: distance 6, 4, 2\)"):
        Searches(dict.fromkeys((6, 4, 2), float("inf")), limit=None).run()
    with pytest.raises(InfeasibleError, match=r"too slow \(tried: distance 6\)"):
        Searches(dict.fromkeys((6, 4, 2), 1.0), limit=0).run()


def test_an_interruption_hands_over_the_lower_distance() -> None:
    searches = Searches({6: 1000, 4: 60, 2: 1}, {4: 7})

    def find(problem: Problem, work: Work) -> SchemeResult:
        if len(searches.calls) == 3:
            raise SearchInterrupted(None)
        return searches.find(problem, work)

    problems = [Problem(K, N, ACT, distance) for distance in (6, 4, 2)]
    with pytest.raises(SearchInterrupted) as caught:
        find_highest(problems, find, Work.started(0, searches.budget, lambda *_: None))
    assert caught.value.best is not None
    assert caught.value.best.scheme.min_distance == 2


@pytest.mark.parametrize("stopped", [None, "time limit"])
def test_more_even_columns_are_looked_for_in_the_time_left(stopped: StopReason | None) -> None:
    uneven = CodingScheme([[1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 0, 1]])
    even = CodingScheme([[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]])
    calls = []

    def find(problem: Problem, work: Work) -> SchemeResult:
        calls.append(problem.min_distance)
        found = SchemeResult.of(
            uneven if len(calls) == 1 else even, method="given", selection="given", seed=0, seconds={}
        )
        return replace(found, stopped=stopped if len(calls) == 1 else None)

    result = find_highest([Problem(3, 4, 2, 2)], find, Work())
    assert (result.scheme, len(calls)) == ((uneven, 1) if stopped is None else (even, 2))


def test_a_result_says_what_was_tried() -> None:
    result = find_scheme(K, N, ACT, "max", method="lexicode")
    # Algorithm 1 keeps 10 words at distance 4.
    assert [(one.min_distance, one.most_words, one.stopped) for one in result.tried] == [(4, 10, None), (2, K, None)]
    assert result.provenance()["tried"] == [
        {"min_distance": 4, "most_words": 10, "is_impossible": False, "stopped": None},
        {"min_distance": 2, "most_words": K, "is_impossible": False, "stopped": None},
    ]
    assert [set(one) for one in result.to_json()["tried"]] == [{*result.tried[0].provenance(), "seconds"}] * 2
    assert find_scheme(K, N, ACT, 2, method="lexicode").to_json()["tried"] == []


def test_the_likelihood_is_sure_where_a_greedy_search_suffices_and_falls_to_nothing_at_the_bound() -> None:
    for num_classes in (2, 30, 200, 1000):
        likelihoods = [problem.likelihood for problem in Problem(num_classes, 24, 12, 2).at_each_distance()]
        assert likelihoods == sorted(likelihoods)
        assert likelihoods[-1] == 1
    # 2,704,156 words, of which 1 + 12^2 + 66^2 lie closer than 6 to one: a greedy search keeps 601 at least.
    assert Problem(600, 24, 12, 6).likelihood == 1
    assert 0 < Problem(602, 24, 12, 6).likelihood < 1
    assert Problem(upper_bound(24, 12, 6).best, 24, 12, 6).likelihood == 0


@pytest.mark.slow
@pytest.mark.parametrize(("parameters", "highest"), [((200, 24, 12), 8), ((300, 32, 8), 8), ((500, 28, 14), 10)])
def test_hopeless_distances_end_by_themselves(parameters: tuple[int, int, int], highest: int) -> None:
    result = find_scheme(*parameters, "max")
    assert (result.scheme.min_distance, result.scheme.spread, result.stopped) == (highest, 0, None)
    assert all(one.most_words < parameters[0] for one in result.tried[:-1])
