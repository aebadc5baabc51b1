"""Words of linear codes: all of them, at the designed distance, in orbits with even columns."""

from __future__ import annotations

import numpy as np
import pytest

from codedtool.budget import Budget, Work
from codedtool.coding.problem import Problem
from codedtool.coding.solvers.algebra.cyclic import (
    _Halves,
    _Span,
    exponents_for,
    extended_cyclic_basis,
    linear_code_words,
    shortened,
)
from codedtool.coding.solvers.even_choice import choose_balanced_union, choose_even
from tests.coding.codes import assert_code, column_sums


def test_imagenet_16_of_32_at_distance_12() -> None:
    code = linear_code_words(32, 16, 12)
    assert code is not None
    assert len(code.words) == 1054
    assert_code(code.words, 32, 16, 12)
    chosen = choose_balanced_union(code.words, code.orbit, 32, 1000, Work())
    assert chosen is not None
    words = code.words[chosen]
    assert (column_sums(words, 32) == 500).all()
    assert set(words.tolist()) == {w ^ 0xFFFFFFFF for w in words.tolist()}


@pytest.mark.parametrize(("act", "min_distance", "size"), [(8, 8, 27_288), (16, 16, 30_828)])
def test_21841_classes_of_64(act: int, min_distance: int, size: int) -> None:
    code = linear_code_words(64, act, min_distance)
    assert code is not None
    assert len(code.words) == size
    chosen = choose_even(code.words, code.orbit, Problem(21_841, 64, act, min_distance), Work())
    words = code.words[chosen]
    assert len(words) == 21_841
    assert_code(words, 64, act, min_distance)
    sums = column_sums(words, 64)
    assert sums.max() - sums.min() == 1


@pytest.mark.parametrize("degree", [3, 4, 5])
def test_extended_bch_codes_have_their_designed_distance(degree: int) -> None:
    dimensions = {3: {4: 4}, 4: {4: 11, 6: 7, 8: 5}, 5: {4: 26, 6: 21, 8: 16, 12: 11, 16: 6}}[degree]
    for distance, dimension in dimensions.items():
        basis = extended_cyclic_basis(degree, exponents_for(degree, distance))
        assert len(basis) == dimension
        if dimension <= 16:
            words = np.zeros(1, dtype=np.uint64)
            for word in basis:
                words = np.concatenate([words, words ^ word])
            assert np.bitwise_count(words[1:]).min() == distance


@pytest.mark.parametrize(("length", "act", "distance"), [(16, 6, 6), (16, 8, 4), (13, 6, 4), (15, 8, 6), (12, 4, 4)])
def test_listed_words_are_all_words_of_the_code(length: int, act: int, distance: int) -> None:
    basis = shortened(extended_cyclic_basis(4, exponents_for(4, distance)), length)
    words = np.zeros(1, dtype=np.uint64)
    for word in basis:
        words = np.concatenate([words, words ^ word])
    code = linear_code_words(length, act, distance)
    assert code is not None
    assert code.words.tolist() == sorted(words[np.bitwise_count(words) == act].tolist())


def test_halves_and_span_list_the_same_words() -> None:
    basis = extended_cyclic_basis(5, exponents_for(5, 8))
    for act, size in ((6, 0), (7, 0), (8, 620)):
        span = _Span(basis, act)(Work())[0]
        halves = _Halves(basis, 32, act)(Work())[0]
        assert sorted(span.tolist()) == sorted(halves.tolist())
        assert len(span) == size


def test_the_64_28_code_has_distance_16() -> None:
    basis = extended_cyclic_basis(6, exponents_for(6, 16))
    assert len(basis) == 28
    for weight in range(2, 16, 2):
        assert len(_Span(basis, weight)(Work())[0]) == 0
    assert (np.bitwise_count(basis) % 2 == 0).all()


def test_orbits_of_a_linear_code_are_even() -> None:
    code = linear_code_words(64, 16, 16)
    assert code is not None
    for number in range(0, int(code.orbit.max()) + 1, 50):
        sums = column_sums(code.words[code.orbit == number], 64)
        assert sums.max() == sums.min()


def test_a_stopped_listing_gives_what_it_has() -> None:
    budget = Budget()
    budget.interrupt()
    assert linear_code_words(64, 16, 16, Work(budget=budget)) is None
