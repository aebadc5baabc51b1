"""Orders of rows against other schemes: all orders of a few classes as the witness, bounds that never lie."""

from __future__ import annotations

from itertools import combinations, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codedtool.budget import Budget, Work
from codedtool.coding.bounds import joint as bounds_joint
from codedtool.coding.bounds.joint import joint_bound
from codedtool.coding.orders import pairing
from codedtool.coding.orders.pairing import joint_distance_histogram, order_jointly
from codedtool.coding.scheme import CodingScheme
from codedtool.coding.solvers.lexicode import lexicode
from codedtool.errors import InputError
from tests.conftest import TABLE4_3OF10
from tests.paths import SCHEMES


@pytest.fixture(autouse=True)
def _short_annealing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairing, "_ANNEALING_STEPS", 2_000_000)


def distances(scheme: CodingScheme) -> np.ndarray:
    """(K, K) Hamming distances, by comparing digits."""
    return (scheme.table[:, None] != scheme.table[None]).sum(axis=-1)


def figures(joint_KK: np.ndarray) -> tuple[int, int]:
    """Joint minimum distance and pairs at it."""
    above = joint_KK[np.triu_indices(len(joint_KK), 1)]
    return int(above.min()), int((above == above.min()).sum())


def best_of_all_orders(scheme: CodingScheme, others: list[CodingScheme]) -> tuple[int, int]:
    """The best figures of all K! orders."""
    own = distances(scheme)
    fixed = sum(distances(other) for other in others)
    all_figures = (figures(fixed + own[np.ix_(order, order)]) for order in permutations(range(len(own))))
    return max(all_figures, key=lambda pair: (pair[0], -pair[1]))


@st.composite
def small_schemes(draw: st.DrawFn, num_classes: int) -> CodingScheme:
    """``num_classes`` distinct words of one weight and of 4 to 7 digits, in any order."""
    length = draw(st.integers(4, 7))
    act = draw(st.integers(1 if length >= num_classes else 2, length - 2))
    words = [sum(1 << p for p in places) for places in combinations(range(length), act)]
    chosen = draw(st.permutations(words))[:num_classes]
    return CodingScheme.from_words(np.array(chosen, dtype=np.uint64), length)


def lexicode_scheme(K: int, N: int, act: int, min_distance: int) -> CodingScheme:
    """The first K words of the greedy set."""
    return CodingScheme.from_words(lexicode(N, act, min_distance).words[:K], N)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_all_orders_of_few_classes_agree_and_respect_the_bound(data: st.DataObject) -> None:
    num_classes = data.draw(st.integers(3, 6))
    scheme, *others = (data.draw(small_schemes(num_classes)) for _ in range(data.draw(st.integers(2, 3))))
    found = order_jointly(scheme, others)
    best = best_of_all_orders(scheme, others)
    assert found.exhausted
    assert found.is_optimal
    assert (found.joint_min_distance, found.pairs_at_joint_min) == best
    bound = joint_bound(scheme, others)
    assert bound.min_distance >= best[0]
    assert bound.pairs_at(best[0]) <= best[1]


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_annealing_finds_the_optimum_of_few_classes(data: st.DataObject) -> None:
    num_classes = data.draw(st.integers(4, 6))
    scheme, other = data.draw(small_schemes(num_classes)), data.draw(small_schemes(num_classes))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pairing, "_EXACT_CLASSES", 2)
        patch.setattr(pairing, "_ANNEALING_STEPS", 40_000)
        found = order_jointly(scheme, [other])
    assert not found.exhausted
    assert (found.joint_min_distance, found.pairs_at_joint_min) == best_of_all_orders(scheme, [other])


def test_the_figures_are_those_of_the_returned_order() -> None:
    own, other = lexicode_scheme(60, 20, 4, 4), lexicode_scheme(60, 20, 8, 8)
    found = order_jointly(own, [other], Work(3))
    assert sorted(found.permutation.tolist()) == list(range(60))
    assert np.array_equal(found.scheme.table, own.table[found.permutation])
    # A permutation of rows: every rule of the scheme is as it was.
    assert sorted(found.scheme.words.tolist()) == sorted(own.words.tolist())
    joint = distances(found.scheme) + distances(other)
    assert (found.joint_min_distance, found.pairs_at_joint_min) == figures(joint)
    values, counts = np.unique(joint[np.triu_indices(60, 1)], return_counts=True)
    assert found.histogram == dict(zip(values.tolist(), counts.tolist(), strict=True))
    assert figures(distances(own) + distances(other)) == (
        min(found.given_histogram),
        found.given_histogram[min(found.given_histogram)],
    )
    again = order_jointly(own, [other], Work(3))
    assert again == found
    assert np.array_equal(again.permutation, found.permutation)


def test_a_bound_that_must_be_quick_still_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    own, first, second = (lexicode_scheme(30, 16, act, 4) for act in (4, 5, 6))
    best = joint_bound(own, [first, second])
    stopped = joint_bound(own, [first, second], Work(budget=Budget(0.0)))
    monkeypatch.setattr(bounds_joint, "_MOST_ENTRIES", 0)
    for weaker in (stopped, joint_bound(own, [first, second])):
        assert weaker.min_distance >= best.min_distance
        assert weaker.fewest_pairs >= 1
    assert stopped.min_distance > best.min_distance


def test_three_schemes_are_ordered_together() -> None:
    own, first, second = (lexicode_scheme(30, 16, act, 4) for act in (4, 5, 6))
    found = order_jointly(own, [first, second])
    joint = distances(found.scheme) + distances(first) + distances(second)
    assert (found.joint_min_distance, found.pairs_at_joint_min) == figures(joint)
    given = figures(distances(own) + distances(first) + distances(second))
    assert (found.joint_min_distance, -found.pairs_at_joint_min) > (given[0], -given[1])
    assert found.joint_min_distance <= found.bound.min_distance


@pytest.mark.parametrize(
    ("own", "other", "paper", "bound"),
    [("c10_3of10", "c10_5of10", 8, 8), ("c100_4of20", "c100_8of20", 12, 14)],
)
def test_the_shipped_pairs_reach_the_papers_joint_distance(own: str, other: str, paper: int, bound: int) -> None:
    scheme, fixed = CodingScheme.load(SCHEMES / f"{own}.npy"), CodingScheme.load(SCHEMES / f"{other}.npy")
    found = order_jointly(scheme, [fixed])
    assert found.joint_min_distance >= paper
    assert found.bound.min_distance == bound
    assert found.pairs_at_joint_min < found.given_histogram[paper] // 2


def test_interruption_returns_a_valid_order_no_worse_than_the_one_given() -> None:
    own, other = lexicode_scheme(60, 20, 4, 4), lexicode_scheme(60, 20, 8, 8)
    budget = Budget()
    calls = []

    def interrupt(phase: str, done: float, total: float | None, note: str = "") -> None:
        calls.append(note)
        if len(calls) == 10:
            budget.interrupt()

    found = order_jointly(own, [other], Work(budget=budget, progress=interrupt))
    assert found.stopped == "interrupted"
    assert sorted(found.scheme.words.tolist()) == sorted(own.words.tolist())
    given = min(found.given_histogram)
    assert (found.joint_min_distance, -found.pairs_at_joint_min) >= (given, -found.given_histogram[given])
    assert len(calls) < 20


def test_histogram_counts_every_pair_of_the_joint_table(scheme: CodingScheme) -> None:
    joint = 2 * distances(scheme)
    values, counts = np.unique(joint[np.triu_indices(len(TABLE4_3OF10), 1)], return_counts=True)
    assert joint_distance_histogram([scheme, scheme]) == dict(zip(values.tolist(), counts.tolist(), strict=True))


def test_refusals_name_the_argument_and_the_value(scheme: CodingScheme) -> None:
    with pytest.raises(InputError, match="at least one scheme"):
        order_jointly(scheme, [])
    with pytest.raises(InputError, match="K=10 rows and another K=9"):
        order_jointly(scheme, [CodingScheme(scheme.table[:9])])
    with pytest.raises(InputError, match="`seed` must be 0 or more, got -1"):
        order_jointly(scheme, [scheme], Work(-1))
