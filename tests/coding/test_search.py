"""find_scheme: which method wins where, what is refused, and the targets of higher distance and larger scale."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from codedtool.budget import Budget, Work
from codedtool.coding.problem import Problem
from codedtool.coding.result import SchemeResult, SearchInterrupted
from codedtool.coding.scheme import CodingScheme
from codedtool.coding.search import find_scheme, scheme_from_words
from codedtool.coding.solvers.candidate import Findings
from codedtool.coding.solvers.table import SOLVERS
from codedtool.errors import InfeasibleError, InputError


def check(result: SchemeResult, K: int, N: int, act: int, H: int, spread: int) -> None:
    """The figures of a result, counted again by hand for small K and from the table for any."""
    table = result.scheme.table
    assert table.shape == (K, N)
    assert (table.sum(axis=1) == act).all()
    assert np.ptp(table.sum(axis=0, dtype=np.int64)) == spread
    assert result.scheme.min_distance >= H
    assert result.stopped is None
    if K <= 1000:
        gram = table.astype(np.float32) @ table.astype(np.float32).T
        np.fill_diagonal(gram, 0)
        assert 2 * (act - gram.max()) >= H


@pytest.mark.parametrize(
    ("parameters", "highest", "method"),
    [
        ((100, 20, 8), 8, "lexicode"),
        ((100, 20, 4), 4, "lexicode"),
        ((1000, 32, 16), 12, "linear code"),
        ((1000, 32, 8), 8, "orbits"),
    ],
)
def test_the_highest_distance_is_reached_with_even_columns_and_proved(
    parameters: tuple[int, int, int], highest: int, method: str
) -> None:
    result = find_scheme(*parameters, "max")
    check(result, *parameters, highest, spread=0)
    assert result.method == method
    assert result.hmin_is_optimal


@pytest.mark.parametrize(
    ("parameters", "spread", "method"),
    [
        ((21841, 64, 8, 8), 1, "linear code"),
        ((21841, 64, 16, 16), 1, "linear code"),
        ((100_000, 64, 16, 12), 0, "random greedy"),
    ],
)
def test_schemes_of_any_scale(parameters: tuple[int, int, int, int], spread: int, method: str) -> None:
    if parameters[0] == 100_000:
        parameters = (30_000, *parameters[1:])  # the whole size is a benchmark's: counting its pairs takes 15 s
        spread = 0
    result = find_scheme(*parameters)
    check(result, *parameters, spread=spread)


def test_the_seed_decides_and_the_papers_parameters_stay_with_the_lexicode() -> None:
    one, same, other = (find_scheme(1000, 32, 8, 6, seed=seed) for seed in (0, 0, 1))
    assert one.method == "lexicode"
    assert one.scheme == same.scheme != other.scheme
    assert one.greedy_size == 11_556
    check(one, 1000, 32, 8, 6, spread=0)


def test_methods_can_be_chosen() -> None:
    orbits = find_scheme(100, 20, 4, 4, method="orbits")
    check(orbits, 100, 20, 4, 4, spread=0)
    assert orbits.greedy_size is None
    uneven = find_scheme(100, 20, 4, 4, refine="none")
    assert uneven.selection == "first words"
    assert uneven.scheme.spread > 0


def test_what_is_not_found_is_not_called_impossible() -> None:
    with pytest.raises(InfeasibleError, match="keeps 1068, and they are not proved impossible"):
        find_scheme(3000, 32, 8, 8, method="lexicode")
    with pytest.raises(InfeasibleError, match=r"or raise `length`; `refine` auto tries other words too"):
        find_scheme(64, 16, 6, 6, refine="local")
    with pytest.raises(InfeasibleError, match="at most 13"):
        find_scheme(14, 10, 3, 4)
    with pytest.raises(InputError, match="`num_classes` must be at least 2, got 1"):
        find_scheme(1, 10, 3, 4)


@pytest.mark.parametrize("method", ["auto", "lexicode", "orbits"])
def test_a_time_limit_of_nothing_is_named_as_the_cause(method: Any) -> None:
    with pytest.raises(InfeasibleError, match="within the time limit; raise `time_limit`"):
        find_scheme(1000, 32, 8, 6, method=method, budget=Budget(0))


def test_a_time_limit_that_ends_while_the_result_is_checked_cut_nothing_short(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    usual = CodingScheme.distance_histogram

    def slow(scheme: CodingScheme) -> dict[int, int]:
        now[0] = 100.0
        found: dict[int, int] = usual.func(scheme)
        return found

    monkeypatch.setattr(CodingScheme, "distance_histogram", property(slow))
    budget = Budget(10.0, clock=lambda: now[0])
    assert find_scheme(10, 10, 3, 4, method="lexicode", budget=budget).stopped is None
    assert budget.stop_reason() == "time limit"


def test_a_time_limit_that_is_too_short_says_how_far_it_came() -> None:
    with pytest.raises(InfeasibleError, match="not found within the time limit"):
        find_scheme(21841, 64, 16, 14, method="lexicode", budget=Budget(0.5))


def test_an_interrupted_search_hands_over_its_best() -> None:
    budget = Budget()

    def interrupt(phase: str, done: float, total: float | None, note: str = "") -> None:
        if phase == "balancing columns":
            budget.interrupt()

    with pytest.raises(SearchInterrupted) as caught:
        find_scheme(1000, 32, 8, 6, budget=budget, progress=interrupt)
    best = caught.value.best
    assert best is not None
    assert best.scheme.num_classes == 1000
    assert best.scheme.min_distance >= 6


class CountingClock:
    """Each look at it is one second later."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def test_the_highest_distance_counts_the_seconds_of_all_distances_tried() -> None:
    clock = CountingClock()
    tried = []

    def listen(phase: str, done: float, total: float | None, note: str = "") -> None:
        if phase == "bounding":
            tried.append(clock.now)

    started = clock.now
    result = find_scheme(13, 10, 3, "max", method="lexicode", budget=Budget(clock=clock), progress=listen)
    # The bounds do not exclude 13 words at distance 4, but algorithm 1 keeps 10: two distances are tried.
    assert len(tried) == 2
    assert clock.now - started >= result.seconds["total"] >= clock.now - tried[0]
    assert result.seconds["total"] >= result.seconds["enumerate"] + result.seconds["select"]


def test_companions_are_joined_in_the_library(scheme: CodingScheme) -> None:
    result = find_scheme(10, 20, 4, 4, companions=[scheme], refine="local")
    check(result, 10, 20, 4, 4, spread=0)
    assert result.joint is not None
    both = np.hstack([result.scheme.table, scheme.table]).astype(int)
    closest = min(int((both[i] != both[j]).sum()) for i in range(10) for j in range(i))
    assert closest == result.joint.joint_min_distance >= 8
    assert result.provenance()["joint"] == result.to_json()["joint"] == result.joint.provenance()
    alone = find_scheme(10, 20, 4, 4, refine="local")
    assert alone.joint is None
    assert "joint" not in alone.provenance()
    with pytest.raises(InputError, match="`companions`: one scheme has K=10 rows, `num_classes` asks for 9"):
        find_scheme(9, 20, 4, 4, companions=[scheme])


def test_given_words_keep_their_rows_and_can_be_ordered_beside_companions(scheme: CodingScheme) -> None:
    words = ["".join(map(str, row)) for row in scheme.table]
    assert scheme_from_words(words, 10, 10, 3, 4).scheme == scheme
    joined = scheme_from_words(words, 10, 10, 3, 4, companions=[scheme])
    assert joined.joint is not None
    assert sorted(joined.scheme.words.tolist()) == sorted(scheme.words.tolist())


def test_an_interruption_while_rows_are_ordered_hands_over_the_scheme(scheme: CodingScheme) -> None:
    budget = Budget()

    def interrupt(phase: str, done: float, total: float | None, note: str = "") -> None:
        if phase == "ordering rows":
            budget.interrupt()

    with pytest.raises(SearchInterrupted) as caught:
        find_scheme(10, 20, 4, 4, companions=[scheme], budget=budget, progress=interrupt)
    assert caught.value.best is not None
    assert caught.value.best.joint is not None
    assert caught.value.best.scheme.spread == 0


@pytest.mark.parametrize("name", SOLVERS)
def test_every_solver_of_the_table_keeps_the_rules_or_returns_none(name: str) -> None:
    problem, work, findings = Problem(8, 8, 4, 4), Work(), Findings()
    if SOLVERS[name].needs_greedy_set:
        assert not SOLVERS[name].can_start(problem, findings)
        findings.best = SOLVERS["lexicode"].solve(problem, work, findings)
    assert SOLVERS[name].can_start(problem, findings)
    candidate = SOLVERS[name].solve(problem, work, findings)
    assert candidate is not None
    found = CodingScheme.from_words(candidate.words, 8)
    assert (found.num_classes, found.act) == (8, 4)
    assert found.min_distance >= 4
    # Two words at most lie at distance 8, so three do not exist.
    if name in ("all words", "linear code", "orbits", "sampler"):
        assert SOLVERS[name].solve(Problem(3, 8, 4, 8), work, Findings()) is None
