"""CP-SAT over all words: what it finds is counted again, and known optimal codes are reached."""

from __future__ import annotations

import numpy as np
import pytest

from codedtool.budget import Work
from codedtool.coding.problem import Problem
from codedtool.coding.search import find_scheme
from codedtool.coding.solvers.all_words import search_all_words
from codedtool.coding.words import distance_histogram, words_to_table


# Table 4 has 20 and 30 pairs at distance 4; even columns allow no fewer than 10 and 30.
@pytest.mark.parametrize(("act", "papers_pairs"), [(5, 20), (3, 30)])
def test_all_words_hold_balanced_schemes_with_no_more_close_pairs_than_table_4(act: int, papers_pairs: int) -> None:
    found = search_all_words(Problem(10, 10, act, 4), Work())
    assert found is not None
    assert words_to_table(found, 10).sum(axis=0).tolist() == [act] * 10
    assert (np.bitwise_count(found) == act).all()
    histogram = distance_histogram(found)
    assert min(histogram) == 4
    assert histogram[4] <= papers_pairs
    # The search at the highest distance finds the same words again, and proves the distance.
    result = find_scheme(10, 10, act, "max")
    assert np.array_equal(result.scheme.words, found)
    assert result.scheme.table.shape == (10, 10)
    assert (result.method, result.scheme.min_distance, result.scheme.spread) == ("all words", 4, 0)
    assert result.stopped is None
    assert result.hmin_is_optimal


@pytest.mark.parametrize("parameters", [(6, 3, 4, 4), (7, 3, 4, 7), (8, 4, 4, 14), (8, 4, 4, 8)])
def test_all_words_reach_known_optimal_codes(parameters: tuple[int, int, int, int]) -> None:
    N, act, H, K = parameters  # A(6,4,3)=4, A(7,4,3)=7 and A(8,4,4)=14 are Steiner systems' sizes
    found = search_all_words(Problem(K, N, act, H), Work())
    assert found is not None
    assert len(found) == K
    assert min(distance_histogram(found)) >= H


def test_all_words_finds_nothing_where_nothing_is() -> None:
    assert search_all_words(Problem(8, 7, 3, 4), Work()) is None
