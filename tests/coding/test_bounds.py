"""The upper bounds: known answers, exact maxima by clique search, Steiner systems, and certificates checked exactly."""

from __future__ import annotations

import random
import subprocess
import sys
from fractions import Fraction
from itertools import combinations, pairwise
from math import comb, floor, nextafter, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ortools.linear_solver import pywraplp

from codedtool.coding.bounds import bounds_table, highest_possible_distance, johnson, upper_bound
from codedtool.coding.bounds.delsarte import DelsarteCertificate, delsarte_certificate, eigenvalue
from codedtool.errors import InfeasibleError, InputError

pytestmark = pytest.mark.quick

# N, act, H: Johnson, with pair counting, Delsarte's value to two digits, best, source.
KNOWN = [
    (10, 5, 6, 8, 6, 6.00, 6, "pair counting"),
    (10, 3, 6, 3, 3, 3.33, 3, "Johnson"),
    (20, 8, 10, 60, 20, 21.59, 20, "pair counting"),
    (20, 4, 6, 30, 30, 31.67, 30, "Johnson"),
    (32, 16, 14, 7324, 582, 295.91, 295, "Delsarte"),
    (32, 8, 10, 440, 436, 442.86, 436, "pair counting"),
    (10, 3, 4, 13, 13, 15.00, 13, "Johnson"),
]

# N, act, H: A(N, H, act). Steiner systems meet Johnson's recursion with equality.
STEINER = [
    (7, 3, 4, 7),  # S(2, 3, 7), the Fano plane
    (8, 4, 4, 14),  # S(3, 4, 8)
    (9, 3, 4, 12),  # S(2, 3, 9)
    (13, 3, 4, 26),  # S(2, 3, 13)
    (10, 4, 4, 30),  # S(3, 4, 10)
    (13, 4, 6, 13),  # S(2, 4, 13), the projective plane of order 3
    (16, 4, 6, 20),  # S(2, 4, 16), the affine plane of order 4
    (12, 6, 4, 132),  # S(5, 6, 12)
    (11, 5, 4, 66),  # S(4, 5, 11)
    (24, 8, 8, 759),  # S(5, 8, 24)
    (23, 7, 8, 253),  # S(4, 7, 23)
    (22, 6, 8, 77),  # S(3, 6, 22)
    (21, 5, 8, 21),  # S(2, 5, 21)
]
# Words of weight N/2 in Hadamard codes, and two maxima of the tables of Brouwer, Shearer, Sloane and Smith (1990).
PUBLISHED = [(12, 6, 6, 22), (16, 8, 8, 30), (24, 12, 12, 46), (32, 16, 16, 62), (10, 3, 4, 13), (10, 5, 4, 36)]

# The greedy codes of algorithm 1: they exist, so no bound may be smaller.
LEXICODES = [
    (10, 5, 4, 22),
    (10, 3, 4, 10),
    (20, 8, 8, 130),
    (20, 4, 4, 189),
    (32, 8, 6, 11556),
    (32, 8, 8, 1068),
    (32, 16, 12, 366),
    (32, 16, 10, 2399),
]

lengths_and_acts = st.integers(2, 64).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n - 1)))


def all_bounds(length: int, act: int, min_distance: int) -> list[int]:
    bound = upper_bound(length, act, min_distance)
    each = [bound.johnson, bound.pair_counting, bound.best]
    return each if bound.delsarte is None else [*each, bound.delsarte]


def words_of_weight(length: int, act: int) -> list[int]:
    return sorted(sum(1 << i for i in ones) for ones in combinations(range(length), act))


def largest_code(length: int, act: int, min_distance: int) -> int:
    """A(N, H, w) by branch and bound over cliques; the first word is fixed, as permuting columns makes any word it."""
    words = words_of_weight(length, act)
    far = [sum(1 << j for j, b in enumerate(words) if (a ^ b).bit_count() >= min_distance) for a in words]
    best = 1

    def grow(size: int, candidates: int) -> None:
        nonlocal best
        # Colour classes of pairwise too close words: a clique takes at most one of each.
        order: list[tuple[int, int]] = []
        uncoloured, colour = candidates, 0
        while uncoloured:
            colour, free = colour + 1, uncoloured
            while free:
                v = free.bit_length() - 1
                order.append((v, colour))
                uncoloured &= ~(1 << v)
                free &= ~(1 << v) & ~far[v]
        for v, colours in reversed(order):
            if size + colours <= best:
                return
            best = max(best, size + 1)
            grow(size + 1, candidates & far[v])
            candidates &= ~(1 << v)

    grow(1, far[0])
    return best


@pytest.mark.parametrize(("length", "act", "distance", "johnson", "counting", "value", "best", "source"), KNOWN)
def test_known_answers(
    length: int, act: int, distance: int, johnson: int, counting: int, value: float, best: int, source: str
) -> None:
    bound = upper_bound(length, act, distance)
    assert (bound.johnson, bound.pair_counting, bound.delsarte) == (johnson, counting, floor(value))
    assert bound.delsarte_value == pytest.approx(value, abs=0.005)
    assert (bound.best, bound.source) == (best, source)


@pytest.mark.parametrize(("length", "act", "distance", "exact"), STEINER)
def test_steiner_systems_meet_johnsons_recursion(length: int, act: int, distance: int, exact: int) -> None:
    assert upper_bound(length, act, distance).johnson == exact
    assert min(all_bounds(length, act, distance)) == exact


@pytest.mark.parametrize(("length", "act", "distance", "exact"), PUBLISHED)
def test_published_maxima_are_met(length: int, act: int, distance: int, exact: int) -> None:
    assert min(all_bounds(length, act, distance)) == exact


@pytest.mark.parametrize(("length", "act", "distance", "size"), LEXICODES)
def test_greedy_codes_fit_below_every_bound(length: int, act: int, distance: int, size: int) -> None:
    assert min(all_bounds(length, act, distance)) >= size


@pytest.mark.parametrize("length", range(2, 9))
def test_no_bound_is_below_the_exact_maximum(length: int) -> None:
    for act in range(1, length):
        for distance in range(2, length + 3, 2):
            exact = largest_code(length, act, distance)
            assert min(all_bounds(length, act, distance)) >= exact, (act, distance)


@settings(max_examples=60, deadline=None)
@given(st.integers(4, 14), st.integers(1, 13), st.integers(1, 7), st.randoms(use_true_random=False))
def test_random_greedy_codes_fit_below_every_bound(length: int, act: int, half: int, shuffler: random.Random) -> None:
    act = min(act, length - 1)
    words = words_of_weight(length, act)
    shuffler.shuffle(words)
    code: list[int] = []
    for word in words[:1500]:
        if all((word ^ other).bit_count() >= 2 * half for other in code):
            code.append(word)
    assert min(all_bounds(length, act, 2 * half)) >= len(code)


def test_pair_counting_stops_only_where_it_says() -> None:
    for length in range(2, 65):
        for act in range(1, length // 2 + 1):
            for half in range(1, act + 1):
                excess = half * length - act * (length - act)
                bound = johnson.pair_counting_bound(length, act, half)
                if excess > 0:
                    assert bound is not None
                    assert bound <= half * length // excess
                else:
                    assert bound is None
                    shortest = length // (4 * half) + 1
                    assert all(johnson.pairs_add_up(m, length, act, half) for m in range(1, shortest + 1))


@pytest.mark.parametrize(("length", "act"), [(4, 2), (6, 3), (7, 3), (8, 2), (9, 4)])
def test_eigenvalues_are_those_of_the_distance_graphs(length: int, act: int) -> None:
    words = np.array(words_of_weight(length, act), dtype=np.uint64)
    distances = np.bitwise_count(words[:, None] ^ words[None, :])
    for i in range(act + 1):
        expected = sorted(
            eigenvalue(length, act, i, k)
            for k in range(act + 1)
            for _ in range(comb(length, k) - (comb(length, k - 1) if k else 0))
        )
        found = np.linalg.eigvalsh((distances == 2 * i).astype(float))
        np.testing.assert_allclose(found, expected, atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(lengths_and_acts, st.data())
def test_every_programme_has_an_exact_certificate(length_and_act: tuple[int, int], data: st.DataObject) -> None:
    length, act = length_and_act
    half = data.draw(st.integers(1, min(act, length - act)))
    certificate = delsarte_certificate(length, act, 2 * half)
    assert certificate.holds()
    # At the optimum nothing can be taken off: any smaller multiple of the same proof must be refused.
    less = tuple(y * Fraction(10**9 - 1, 10**9) for y in certificate.multipliers)
    assert not DelsarteCertificate(length, act, 2 * half, less).holds()
    bound = upper_bound(length, act, 2 * half)
    if half > 1:
        assert bound.delsarte == floor(certificate.value)
        assert bound.delsarte_value is not None
        assert nextafter(bound.delsarte_value, 0) < certificate.value <= bound.delsarte_value


def test_a_certificate_with_a_negative_or_missing_multiplier_does_not_hold() -> None:
    multipliers = delsarte_certificate(20, 8, 10).multipliers
    negative = (multipliers[0] + 100, *multipliers[1:-1], Fraction(-1))
    assert not DelsarteCertificate(20, 8, 10, negative).holds()
    assert not DelsarteCertificate(20, 8, 10, multipliers[:-1]).holds()
    assert not DelsarteCertificate(20, 8, 8, multipliers).holds()


def test_distance_two_programme_counts_all_words() -> None:
    for length, act in [(2, 1), (9, 4), (31, 11), (64, 32)]:
        assert delsarte_certificate(length, act, 2).value == comb(length, act)


def glop_value(length: int, act: int, half: int) -> float:
    """The same programme by OR-Tools' GLOP, in floating point; x_i = b_i sqrt(v_i) keeps the coefficients small."""
    solver = pywraplp.Solver.CreateSolver("GLOP")
    relations = range(half, act + 1)
    roots = {i: sqrt(eigenvalue(length, act, i, 0)) for i in relations}
    x = {i: solver.NumVar(0, solver.infinity(), "") for i in relations}
    for k in range(1, act + 1):
        scale = sqrt((comb(length, k) - comb(length, k - 1)) / comb(length, act))
        row = solver.Constraint(-scale, solver.infinity())
        for i in relations:
            row.SetCoefficient(x[i], eigenvalue(length, act, i, k) * scale / roots[i])
    for i in relations:
        solver.Objective().SetCoefficient(x[i], roots[i])
    solver.Objective().SetMaximization()
    assert solver.Solve() == pywraplp.Solver.OPTIMAL
    return 1 + solver.Objective().Value()


@settings(max_examples=60, deadline=None)
@given(st.integers(4, 28), st.integers(2, 14), st.integers(1, 14))
def test_the_exact_simplex_finds_what_glop_finds(length: int, act: int, half: int) -> None:
    act = min(act, length // 2)
    half = min(half, act)
    assert float(delsarte_certificate(length, act, 2 * half).value) == pytest.approx(glop_value(length, act, half))


@settings(max_examples=25, deadline=None)
@given(lengths_and_acts)
def test_tables_fall_with_the_distance_and_mirror_the_complement(length_and_act: tuple[int, int]) -> None:
    length, act = length_and_act
    table = bounds_table(length, act)
    assert [row.min_distance for row in table] == list(range(2, 2 * min(act, length - act) + 1, 2))
    assert table[0].best == comb(length, act)
    assert table[0].source == "all words"
    for upper, lower in pairwise(table):
        assert upper.johnson >= lower.johnson
        assert upper.pair_counting >= lower.pair_counting
        assert upper.best >= lower.best >= 1
        assert (upper.delsarte or upper.best) >= (lower.delsarte or 1)
    for row in table:
        assert row.pair_counting <= row.johnson
        assert row.best == min(x for x in (row.johnson, row.pair_counting, row.delsarte) if x is not None)
        mirrored = upper_bound(length, length - act, row.min_distance)
        assert (mirrored.johnson, mirrored.pair_counting, mirrored.delsarte) == (
            row.johnson,
            row.pair_counting,
            row.delsarte,
        )


def test_odd_distances_mean_the_even_one_above() -> None:
    assert upper_bound(20, 8, 9) == upper_bound(20, 8, 10)
    assert upper_bound(20, 8, 9).min_distance == 10


@pytest.mark.parametrize("distance", [7, 8, 64, 10**6])
def test_beyond_the_largest_distance_one_word_is_left(distance: int) -> None:
    bound = upper_bound(10, 3, distance)
    assert (bound.best, bound.source, bound.delsarte) == (1, "Johnson", None)


def test_without_delsarte_the_other_bounds_stay() -> None:
    bound = upper_bound(32, 16, 14, delsarte=False)
    assert (bound.delsarte, bound.delsarte_value, bound.best, bound.source) == (None, None, 582, "pair counting")


@pytest.mark.parametrize(
    ("num_classes", "length", "act", "highest"),
    [
        (10, 10, 5, 4),
        (10, 10, 3, 4),
        (100, 20, 8, 8),
        (100, 20, 4, 4),
        (295, 32, 16, 14),
        (296, 32, 16, 12),
        (1000, 32, 8, 8),
        (comb(10, 3), 10, 3, 2),
        (1, 10, 3, 6),
    ],
)
def test_highest_possible_distance(num_classes: int, length: int, act: int, highest: int) -> None:
    assert highest_possible_distance(num_classes, length, act) == highest


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 40).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n - 1))), st.data())
def test_highest_possible_distance_is_the_last_row_with_room(
    length_and_act: tuple[int, int], data: st.DataObject
) -> None:
    length, act = length_and_act
    num_classes = data.draw(st.integers(1, comb(length, act)))
    with_room = [row.min_distance for row in bounds_table(length, act) if row.best >= num_classes]
    assert highest_possible_distance(num_classes, length, act) == max(with_room)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((1, 1, 2), "`length` must be between 2 and 64, got 1"),
        ((65, 8, 2), "`length` must be between 2 and 64, got 65"),
        ((10, 0, 2), "`act` must be between 1 and N-1=9, got 0"),
        ((10, 10, 2), "`act` must be between 1 and N-1=9, got 10"),
        ((10, 3, 1), "`min_distance` must be at least 2"),
        ((10, 3, -4), "got -4"),
        ((10, 2.5, 4), "`act` must be a whole number, got 2.5"),
        ((10, 3, "4"), "`min_distance` must be a whole number, got '4'"),
    ],
)
def test_bad_arguments_are_named(arguments: tuple[int, int, int], named: str) -> None:
    with pytest.raises(InputError, match=named):
        upper_bound(*arguments)


def test_bad_arguments_of_the_other_doors_are_named() -> None:
    with pytest.raises(InputError, match="`length` must be"):
        bounds_table(99, 3)
    with pytest.raises(InputError, match="`num_classes` must be at least 1, got 0"):
        highest_possible_distance(0, 10, 3)
    with pytest.raises(InfeasibleError, match=r"`num_classes` is 121, more than the C\(10, 3\) = 120"):
        highest_possible_distance(121, 10, 3)
    for distance in (3, 0, 8):
        with pytest.raises(InputError, match=f"got {distance}"):
            delsarte_certificate(10, 3, distance)


def test_the_bounds_import_no_ortools() -> None:
    code = "import sys; from codedtool.coding.bounds import upper_bound; upper_bound(32, 16, 14); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "codedtool.coding.bounds.delsarte" in done.stdout.split()
    assert "ortools" not in done.stdout.split()
