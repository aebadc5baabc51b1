"""CP-SAT's part: what it finds is counted again, what it calls impossible is impossible."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codedtool.budget import Budget
from codedtool.coding.scheme import best_spread
from codedtool.coding.solvers.lexicode import lexicode
from codedtool.coding.solvers.refine import RefineStatus, refine_selection, search_all_words
from codedtool.coding.words import distance_histogram, words_to_table


def greedy(length: int, act: int, min_distance: int) -> np.ndarray:
    return lexicode(length, act, min_distance, budget=Budget()).words


@pytest.mark.parametrize("act", [5, 3])
def test_cifar10s_greedy_sets_are_proved_unbalanceable(act: int) -> None:
    words = greedy(10, act, 4)
    result = refine_selection(words, 10, act, 10, spread=0, seed=0, budget=Budget(), deterministic_limit=60)
    assert result.status is RefineStatus.PROVED_IMPOSSIBLE


# Table 4 has 20 and 30 pairs at distance 4; even columns allow no fewer than 10 and 30.
@pytest.mark.parametrize(("act", "papers_pairs"), [(5, 20), (3, 30)])
def test_all_words_hold_balanced_schemes_with_no_more_close_pairs_than_table_4(act: int, papers_pairs: int) -> None:
    found = search_all_words(10, act, 4, 10, spread=0, seed=0, budget=Budget(), deterministic_limit=60)
    assert found is not None
    assert words_to_table(found, 10).sum(axis=0).tolist() == [act] * 10
    assert (np.bitwise_count(found) == act).all()
    histogram = distance_histogram(found)
    assert min(histogram) == 4
    assert histogram[4] <= papers_pairs
    again = search_all_words(10, act, 4, 10, spread=0, seed=0, budget=Budget(), deterministic_limit=60)
    assert again is not None
    assert np.array_equal(found, again)


def test_a_balanced_choice_of_g_is_found_from_a_bad_hint() -> None:
    words = greedy(20, 4, 4)
    result = refine_selection(
        words, 20, 4, 100, spread=0, hint=np.arange(100), seed=3, budget=Budget(), deterministic_limit=60
    )
    assert result.status is RefineStatus.FOUND
    assert result.indices is not None
    assert words_to_table(words[result.indices], 20).sum(axis=0).tolist() == [20] * 20


def test_an_interrupted_search_says_unknown() -> None:
    budget = Budget()
    budget.interrupt()
    words = greedy(32, 16, 10)
    result = refine_selection(words, 32, 16, 1000, spread=0, seed=0, budget=budget, deterministic_limit=600)
    assert result.status is RefineStatus.UNKNOWN
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
    result = refine_selection(words, N, act, K, spread=spread, seed=0, budget=Budget(), deterministic_limit=60)
    table = words_to_table(words, N)
    possible = any(np.ptp(table[list(rows)].sum(axis=0)) <= spread for rows in combinations(range(len(words)), K))
    assert (result.status is RefineStatus.FOUND) == possible
    if result.indices is not None:
        assert np.ptp(table[result.indices].sum(axis=0)) <= spread


@pytest.mark.parametrize("parameters", [(6, 3, 4, 4), (7, 3, 4, 7), (8, 4, 4, 14), (8, 4, 4, 8)])
def test_all_words_reach_known_optimal_codes(parameters: tuple[int, int, int, int]) -> None:
    N, act, H, K = parameters  # A(6,4,3)=4, A(7,4,3)=7 and A(8,4,4)=14 are Steiner systems' sizes
    found = search_all_words(
        N, act, H, K, spread=best_spread(K, N, act), seed=0, budget=Budget(), deterministic_limit=60
    )
    assert found is not None
    assert len(found) == K
    assert min(distance_histogram(found)) >= H


def test_all_words_finds_nothing_where_nothing_is() -> None:
    assert search_all_words(7, 3, 4, 8, spread=1, seed=0, budget=Budget(), deterministic_limit=60) is None
