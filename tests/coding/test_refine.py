"""CP-SAT's part: what it finds is counted again, what it calls impossible is impossible."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codedtool.budget import Budget, Work
from codedtool.coding.problem import Problem
from codedtool.coding.scheme import best_spread
from codedtool.coding.solvers.cp_sat import CpSatStatus
from codedtool.coding.solvers.lexicode import lexicode
from codedtool.coding.solvers.refine import refine_selection
from codedtool.coding.words import words_to_table

pytestmark = pytest.mark.quick


def greedy(length: int, act: int, min_distance: int) -> np.ndarray:
    return lexicode(length, act, min_distance).words


@pytest.mark.parametrize("act", [5, 3])
def test_cifar10s_greedy_sets_are_proved_unbalanceable(act: int) -> None:
    words = greedy(10, act, 4)
    result = refine_selection(words, Problem(10, 10, act, 4), Work())
    assert result.status is CpSatStatus.PROVED_IMPOSSIBLE


def test_a_balanced_choice_of_g_is_found_from_a_bad_hint() -> None:
    words = greedy(20, 4, 4)
    result = refine_selection(words, Problem(100, 20, 4, 4), Work(3), hint=np.arange(100))
    assert result.status is CpSatStatus.FOUND
    assert result.indices is not None
    assert words_to_table(words[result.indices], 20).sum(axis=0).tolist() == [20] * 20


def test_an_interrupted_search_says_unknown() -> None:
    budget = Budget()
    budget.interrupt()
    words = greedy(32, 16, 10)
    result = refine_selection(words, Problem(1000, 32, 16, 10), Work(budget=budget), deterministic_limit=600)
    assert result.status is CpSatStatus.UNKNOWN
    assert result.indices is None


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_small_answers_agree_with_trying_every_subset(data: st.DataObject) -> None:
    N = data.draw(st.integers(4, 8))
    act = data.draw(st.integers(1, N - 1))
    everything = greedy(N, act, 2)
    picked = data.draw(st.lists(st.integers(0, len(everything) - 1), min_size=3, max_size=10, unique=True))
    words = everything[sorted(picked)] if len(everything) >= 3 else everything
    K = data.draw(st.integers(2, min(4, len(words))))
    spread = best_spread(K, N, act)
    result = refine_selection(words, Problem(K, N, act, 2), Work())
    table = words_to_table(words, N)
    possible = any(np.ptp(table[list(rows)].sum(axis=0)) <= spread for rows in combinations(range(len(words)), K))
    assert (result.status is CpSatStatus.FOUND) == possible
    if result.indices is not None:
        assert np.ptp(table[result.indices].sum(axis=0)) <= spread
