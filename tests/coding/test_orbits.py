"""Unions of orbits and the words of linear codes: distances, evenness and known sizes, counted again with numpy."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from numpy.typing import NDArray

from codedtool.budget import Budget, silent
from codedtool.coding.solvers.algebra import orbits_kernels
from codedtool.coding.solvers.algebra.cyclic import (
    _Halves,
    _Span,
    exponents_for,
    extended_cyclic_basis,
    linear_code_words,
    shortened,
)
from codedtool.coding.solvers.algebra.groups import catalogue
from codedtool.coding.solvers.algebra.orbits import orbit_code
from codedtool.coding.solvers.even_choice import choose_balanced_union, choose_even
from codedtool.coding.words import distance_histogram, words_to_table
from codedtool.errors import InputError


def assert_code(words: NDArray[np.uint64], length: int, act: int, min_distance: int) -> None:
    """Rule A, rule C and the order of the words, by numpy alone."""
    assert (np.diff(words) > 0).all()
    assert int(words.max()) < 1 << length
    assert (np.bitwise_count(words) == act).all()
    assert min(distance_histogram(words)) >= min_distance


def column_sums(words: NDArray[np.uint64], length: int) -> NDArray[np.int64]:
    return words_to_table(words, length).sum(axis=0, dtype=np.int64)


def brute_orbits(length: int, act: int, min_distance: int, elements: NDArray[np.uint8]) -> Counter[int]:
    """How many admissible orbits of each size there are, straight from the definition."""
    found = set()
    for bits in itertools.combinations(range(length), act):
        orbit = frozenset(sum(1 << int(e[b]) for b in bits) for e in elements)
        if all((a ^ b).bit_count() >= min_distance for a, b in itertools.combinations(orbit, 2)):
            found.add(orbit)
    return Counter(len(orbit) for orbit in found)


@pytest.mark.parametrize(("length", "act", "min_distance"), [(7, 3, 4), (8, 4, 4), (9, 3, 4), (10, 4, 6)])
def test_enumerated_orbits_are_all_admissible_orbits(length: int, act: int, min_distance: int) -> None:
    for group in catalogue(length)[::3]:
        elements = group.elements()
        shifted = np.uint64(1) << elements.astype(np.uint64)
        words, sizes = np.zeros(1000, dtype=np.uint64), np.zeros(1000, dtype=np.int64)
        counts = np.zeros(2, dtype=np.int64)
        for bits in group.column_orbits():
            if bits[-1] + 1 >= act:
                rest = np.array([(1 << (act - 1)) - 1], dtype=np.uint64)
                shared = act - min_distance // 2
                while not orbits_kernels.enumerate_orbits(
                    shifted, act, shared, bits[-1], rest, 100, words, sizes, counts
                ):
                    pass
        assert Counter(sizes[: counts[0]].tolist()) == brute_orbits(length, act, min_distance, elements), group.name


@pytest.mark.parametrize(
    ("length", "act", "min_distance", "size"),
    [
        (7, 3, 4, 7),  # the Fano plane
        (10, 4, 4, 30),  # S(3,4,10)
        (11, 5, 4, 66),  # S(4,5,11)
        (12, 6, 4, 132),  # S(5,6,12)
        (13, 4, 6, 13),  # the projective plane of order 3
        (16, 6, 6, 112),  # in the Nordstrom-Robinson code
        (17, 5, 6, 68),  # S(3,5,17)
        (19, 3, 4, 57),
        (22, 14, 8, 330),  # complements of weight 8
        (23, 7, 8, 253),  # S(4,7,23)
        (24, 8, 8, 759),  # S(5,8,24)
        (28, 4, 4, 819),  # S(3,4,28)
    ],
)
def test_known_values_are_reached(length: int, act: int, min_distance: int, size: int) -> None:
    code = orbit_code(length, act, min_distance, num_classes=size)
    assert code is not None
    assert_code(code.words, length, act, min_distance)
    assert len(code.words) == size
    assert code.stopped is None


def test_orbits_are_orbits_of_the_group_named() -> None:
    code = orbit_code(16, 6, 6, num_classes=112)
    assert code is not None
    group = next(g for g in catalogue(16) if g.name == code.group)
    assert set(code.orbit.tolist()) == set(range(code.num_orbits))
    for number in range(code.num_orbits):
        words = code.words[code.orbit == number]
        bits = [b for b in range(16) if int(words[0]) >> b & 1]
        assert {sum(1 << int(e[b]) for b in bits) for e in group.elements()} == set(words.tolist())


def test_the_seed_decides_the_code() -> None:
    codes = [orbit_code(14, 5, 6, num_classes=28, seed=seed) for seed in (3, 3, 4)]
    assert all(code is not None for code in codes)
    words = [code.words.tolist() for code in codes if code is not None]
    assert words[0] == words[1]
    assert words[0] != words[2]


def test_imagenet_8_of_32_at_distance_8() -> None:
    code = orbit_code(32, 8, 8, num_classes=1000)
    assert code is not None
    assert len(code.words) >= 1000
    assert_code(code.words, 32, 8, 8)
    chosen = choose_even(code.words, code.orbit, 32, 8, 1000, 8, seed=0, budget=Budget())
    assert (column_sums(code.words[chosen], 32) == 250).all()
    assert len(set(chosen.tolist())) == 1000


def test_imagenet_16_of_32_at_distance_12() -> None:
    code = linear_code_words(32, 16, 12)
    assert code is not None
    assert len(code.words) == 1054
    assert_code(code.words, 32, 16, 12)
    chosen = choose_balanced_union(code.words, code.orbit, 32, 1000)
    assert chosen is not None
    words = code.words[chosen]
    assert (column_sums(words, 32) == 500).all()
    assert set(words.tolist()) == {w ^ 0xFFFFFFFF for w in words.tolist()}


@pytest.mark.parametrize(("act", "min_distance", "size"), [(8, 8, 27_288), (16, 16, 30_828)])
def test_21841_classes_of_64(act: int, min_distance: int, size: int) -> None:
    code = linear_code_words(64, act, min_distance)
    assert code is not None
    assert len(code.words) == size
    chosen = choose_even(code.words, code.orbit, 64, act, 21_841, min_distance, seed=0, budget=Budget())
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
        span = _Span(basis, act)(Budget(), silent)[0]
        halves = _Halves(basis, 32, act)(Budget(), silent)[0]
        assert sorted(span.tolist()) == sorted(halves.tolist())
        assert len(span) == size


def test_the_64_28_code_has_distance_16() -> None:
    basis = extended_cyclic_basis(6, exponents_for(6, 16))
    assert len(basis) == 28
    for weight in range(2, 16, 2):
        assert len(_Span(basis, weight)(Budget(), silent)[0]) == 0
    assert (np.bitwise_count(basis) % 2 == 0).all()


def test_orbits_of_a_linear_code_are_even() -> None:
    code = linear_code_words(64, 16, 16)
    assert code is not None
    for number in range(0, int(code.orbit.max()) + 1, 50):
        sums = column_sums(code.words[code.orbit == number], 64)
        assert sums.max() == sums.min()


def test_a_union_that_cannot_be() -> None:
    words = np.array([0b0011, 0b1100, 0b0101, 0b1010], dtype=np.uint64)
    orbit = np.array([0, 0, 1, 1])
    assert choose_balanced_union(words, orbit, 4, 2).tolist() in ([0, 1], [2, 3])
    assert choose_balanced_union(words, orbit, 4, 3) is None
    assert choose_balanced_union(words, np.array([0, 1, 0, 1]), 4, 2) is None


def test_a_stopped_search_gives_what_it_has() -> None:
    budget = Budget()
    budget.interrupt()
    assert orbit_code(16, 6, 6, budget=budget) is None
    stopped = linear_code_words(64, 16, 16, budget=budget)
    assert stopped is None


def test_bad_arguments_are_named() -> None:
    with pytest.raises(InputError, match="min_distance must be even and at least 2, got 5"):
        orbit_code(10, 5, 5)
    with pytest.raises(InputError, match="no group 'Z11' acts on 10 columns"):
        orbit_code(10, 5, 4, groups=["Z11"])


def test_importing_costs_no_numba_and_no_ortools() -> None:
    code = "import sys, codedtool.coding.solvers.table; sys.exit(any(m in sys.modules for m in ('numba', 'ortools')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
