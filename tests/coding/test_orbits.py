"""Unions of orbits and the words of linear codes: distances, evenness and known sizes, counted again with numpy."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from numpy.typing import NDArray

from codedtool.budget import Budget, Work
from codedtool.coding.problem import Problem
from codedtool.coding.solvers.algebra import orbits_kernels
from codedtool.coding.solvers.algebra.groups import catalogue
from codedtool.coding.solvers.algebra.orbits import orbit_code
from codedtool.coding.solvers.even_choice import choose_even
from codedtool.errors import InputError
from tests.coding.codes import assert_code, column_sums


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
        listing = orbits_kernels.Listing(
            words=np.zeros(1000, dtype=np.uint64),
            sizes=np.zeros(1000, dtype=np.int64),
            num_kept=np.zeros(1, dtype=np.int64),
            rest=np.zeros(1, dtype=np.uint64),
            points=np.zeros(act, dtype=np.int64),
        )
        for bits in group.column_orbits():
            if bits[-1] + 1 >= act:
                listing.rest[0] = (1 << (act - 1)) - 1
                shared = act - min_distance // 2
                while not orbits_kernels.enumerate_orbits(shifted, act, shared, bits[-1], 100, listing):
                    pass
        sizes = listing.sizes[: listing.num_kept[0]].tolist()
        assert Counter(sizes) == brute_orbits(length, act, min_distance, elements), group.name


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
    codes = [orbit_code(14, 5, 6, Work(seed), num_classes=28) for seed in (3, 3, 4)]
    assert all(code is not None for code in codes)
    words = [code.words.tolist() for code in codes if code is not None]
    assert words[0] == words[1]
    assert words[0] != words[2]


def test_imagenet_8_of_32_at_distance_8() -> None:
    code = orbit_code(32, 8, 8, num_classes=1000)
    assert code is not None
    assert len(code.words) >= 1000
    assert_code(code.words, 32, 8, 8)
    chosen = choose_even(code.words, code.orbit, Problem(1000, 32, 8, 8), Work())
    assert (column_sums(code.words[chosen], 32) == 250).all()
    assert len(set(chosen.tolist())) == 1000


def test_a_stopped_search_gives_what_it_has() -> None:
    budget = Budget()
    budget.interrupt()
    assert orbit_code(16, 6, 6, Work(budget=budget)) is None


def test_bad_arguments_are_named() -> None:
    with pytest.raises(InputError, match="`min_distance` must be even and at least 2, got 5"):
        orbit_code(10, 5, 5)
    with pytest.raises(InputError, match="`groups`: no group 'Z11' acts on 10 columns"):
        orbit_code(10, 5, 4, groups=["Z11"])


def test_importing_costs_no_numba_and_no_ortools() -> None:
    code = "import sys, codedtool.coding.solvers.table; sys.exit(any(m in sys.modules for m in ('numba', 'ortools')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
