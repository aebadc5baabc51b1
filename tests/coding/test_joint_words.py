"""Words chosen for their joint distance: the figures that are kept, the bound, and what is out of reach."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codedtool.budget import Budget, Work
from codedtool.coding.orders.joint import arrange_jointly
from codedtool.coding.orders.joint_words import choose_jointly, highest_joint_distance
from codedtool.coding.scheme import CodingScheme
from codedtool.coding.search import find_scheme
from codedtool.errors import InputError
from tests.paths import SCHEMES

pytestmark = pytest.mark.quick


def joint_distances(*schemes: CodingScheme) -> list[int]:
    side_by_side = np.hstack([scheme.table for scheme in schemes])
    return [int((a != b).sum()) for a, b in combinations(side_by_side, 2)]


@pytest.fixture(scope="module")
def pair() -> tuple[CodingScheme, CodingScheme]:
    return CodingScheme.load(SCHEMES / "c10_5of10.npy"), CodingScheme.load(SCHEMES / "c10_3of10.npy")


def test_cifar10_gets_the_highest_joint_distance_that_even_columns_allow(
    pair: tuple[CodingScheme, CodingScheme],
) -> None:
    five, three = pair
    assert min(joint_distances(five, three)) == 8
    chosen = choose_jointly(five, [three])
    assert chosen is not None
    assert (chosen.num_classes, chosen.length, chosen.act) == (10, 10, 5)
    assert (chosen.s_min, chosen.s_max) == (5, 5)
    assert chosen.min_distance >= five.min_distance
    # The mean over pairs is 460 / 45 = 10.2 for any schemes with these columns.
    assert min(joint_distances(chosen, three)) == highest_joint_distance([five, three]) == 10
    assert choose_jointly(five, [three]) == chosen


def test_no_words_of_the_other_stage_do_as_well(pair: tuple[CodingScheme, CodingScheme]) -> None:
    five, three = pair
    # 20 pairs of table 4's 5/10 words are at distance 4; only 15 pairs of 3/10 words can be at 6.
    chosen = choose_jointly(three, [five])
    assert chosen is None or min(joint_distances(five, chosen)) == 8


@given(st.integers(0, 2**32 - 1), st.integers(3, 12), st.integers(3, 9))
@settings(max_examples=60, deadline=None)
def test_the_bound_holds_for_any_schemes(seed: int, num_classes: int, length: int) -> None:
    rng = np.random.default_rng(seed)
    schemes = []
    for _ in range(2):
        act = int(rng.integers(1, length))
        words = list(combinations(range(length), act))
        if len(words) < num_classes:
            return
        table = np.zeros((num_classes, length), dtype=np.uint8)
        for row, index in enumerate(rng.choice(len(words), num_classes, replace=False)):
            table[row, list(words[index])] = 1
        schemes.append(CodingScheme(table))
    assert min(joint_distances(*schemes)) <= highest_joint_distance(schemes)


def test_many_classes_uneven_columns_and_a_spent_budget_are_left_alone(
    pair: tuple[CodingScheme, CodingScheme],
) -> None:
    five, three = pair
    hundred = [CodingScheme.load(SCHEMES / f"c100_{name}.npy") for name in ("4of20", "8of20")]
    assert choose_jointly(hundred[0], hundred[1:]) is None
    uneven = CodingScheme(np.array([[1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 0, 1]], dtype=np.uint8))
    assert choose_jointly(uneven, [uneven]) is None
    budget = Budget()
    budget.interrupt()
    assert choose_jointly(five, [three], Work(budget=budget)) is None


def test_a_search_that_takes_long_is_stopped_in_its_midst() -> None:
    scheme = find_scheme(16, 24, 12, 4).scheme
    other = find_scheme(16, 16, 6, 4).scheme
    budget, told = Budget(), []

    def interrupt(phase: str, done: float, total: float | None, note: str = "") -> None:
        told.append((phase, note))
        if len(told) == 3:
            budget.interrupt()

    assert choose_jointly(scheme, [other], Work(budget=budget, progress=interrupt)) is None
    # The first distance takes CP-SAT many seconds; each report comes a tenth of a second after the one before.
    assert told == [("choosing words jointly", told[0][1])] * 3


def test_any_seed_can_be_given(pair: tuple[CodingScheme, CodingScheme]) -> None:
    five, three = pair
    assert choose_jointly(five, [three], Work(seed=2**63)) == choose_jointly(five, [three], Work(seed=0))


def test_a_result_says_what_was_done_for_the_other_schemes(pair: tuple[CodingScheme, CodingScheme]) -> None:
    _, three = pair
    chosen = find_scheme(10, 10, 5, 4, companions=[three])
    assert (chosen.method, chosen.selection) == ("all words", "CP-SAT, with the other schemes")
    assert chosen.joint is not None
    assert chosen.seconds["total"] >= chosen.joint.seconds
    # A method that was asked for decides about the words.
    kept, alone = (find_scheme(10, 10, 5, 4, method="lexicode", companions=others) for others in ([three], []))
    assert kept.method == "lexicode"
    assert sorted(kept.scheme.words.tolist()) == sorted(alone.scheme.words.tolist())
    cut = arrange_jointly(alone, [three], Work(budget=Budget(0.0)), choose_words=True)
    assert (alone.stopped, cut.stopped) == (None, "time limit")


def test_more_classes_than_can_be_ordered_are_refused_before_the_search(
    pair: tuple[CodingScheme, CodingScheme],
) -> None:
    with pytest.raises(InputError, match="rows are ordered for up to K=32768 classes"):
        find_scheme(32769, 64, 16, 4, companions=[pair[0]])
