"""Words drawn at random: far enough apart, exactly even, and the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codedtool.budget import Budget, Work
from codedtool.coding.problem import Problem
from codedtool.coding.scheme import best_spread
from codedtool.coding.solvers.sampler import sample_words
from codedtool.coding.words import distance_histogram, words_to_table


def spread(words: np.ndarray, length: int) -> int:
    sums = words_to_table(words, length).sum(axis=0, dtype=np.int64)
    return int(sums.max() - sums.min())


@pytest.mark.parametrize(
    ("num_classes", "length", "act", "min_distance"),
    [(10, 10, 5, 4), (100, 20, 8, 6), (1000, 32, 8, 6), (1000, 32, 16, 8), (777, 61, 13, 10), (2000, 64, 8, 8)],
)
def test_words_keep_all_three_rules(num_classes: int, length: int, act: int, min_distance: int) -> None:
    words = sample_words(Problem(num_classes, length, act, min_distance)).words
    assert len(words) == num_classes
    assert (np.diff(words) > 0).all()
    assert (np.bitwise_count(words) == act).all()
    assert min(distance_histogram(words)) >= min_distance
    assert spread(words, length) == best_spread(num_classes, length, act)


def test_21841_words_of_64_at_distance_14() -> None:
    words = sample_words(Problem(21_841, 64, 16, 14)).words
    assert len(words) == 21_841
    assert (np.bitwise_count(words) == 16).all()
    assert min(distance_histogram(words)) >= 14
    assert spread(words, 64) == 1


@pytest.mark.slow
def test_100000_words_of_64_at_distance_12() -> None:
    words = sample_words(Problem(100_000, 64, 16, 12)).words
    assert len(words) == 100_000
    assert (np.bitwise_count(words) == 16).all()
    assert min(distance_histogram(words)) >= 12
    assert spread(words, 64) == 0


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_size_is_even_at_distance_2_while_words_are_plenty(data: st.DataObject) -> None:
    length = data.draw(st.integers(12, 64))
    act = data.draw(st.integers(3, length - 3))
    num_classes = data.draw(st.integers(2, 100))
    words = sample_words(Problem(num_classes, length, act, 2), Work(data.draw(st.integers(0, 5)))).words
    assert len(set(words.tolist())) == num_classes
    assert int(words.max()) < 1 << length
    assert (np.bitwise_count(words) == act).all()
    assert spread(words, length) == best_spread(num_classes, length, act)


def test_the_seed_decides_the_words() -> None:
    one, again, other = (sample_words(Problem(500, 32, 16, 8), Work(seed)).words.tolist() for seed in (1, 1, 2))
    assert one == again
    assert one != other


def test_too_many_words_are_given_up() -> None:
    # A(10, 6, 3) = 3.
    sample = sample_words(Problem(4, 10, 3, 6))
    assert len(sample.words) == 3
    assert sample.stopped is None


def test_a_stop_keeps_the_words_so_far() -> None:
    budget = Budget()
    budget.interrupt()
    sample = sample_words(Problem(20_000, 64, 16, 14), Work(budget=budget))
    assert sample.stopped == "interrupted"
    assert 0 < len(sample.words) < 20_000
    assert min(distance_histogram(sample.words)) >= 14
