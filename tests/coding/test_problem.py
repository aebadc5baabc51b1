"""A problem is checked once and knows its figures; the work that goes with it counts its seconds."""

from __future__ import annotations

import math

import pytest

from codedtool.budget import Budget, Stopwatch, Work, silent
from codedtool.coding.bounds import bounds_table, upper_bound
from codedtool.coding.problem import Problem
from codedtool.errors import InfeasibleError, InputError

pytestmark = pytest.mark.quick


class CountingClock:
    """Each look at it is one second later."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def test_its_figures_are_those_of_its_numbers() -> None:
    problem = Problem(1000, 32, 8, 6)
    assert problem.num_words == math.comb(32, 8)
    assert problem.best_spread == 0
    assert Problem(999, 32, 8, 6).best_spread == 1
    assert problem.bound == upper_bound(32, 8, 6)
    # Two words of weight 8 that share 5 ones differ in 2 * (8 - 5) digits.
    assert problem.shared_at_min == 5
    assert problem.with_classes(10) == Problem(10, 32, 8, 6)


def test_an_odd_distance_is_the_even_one_above() -> None:
    assert Problem(12, 10, 5, 3) == Problem(12, 10, 5, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1, 10, 3, 4), "`num_classes` must be at least 2, got 1"),
        ((10, 65, 3, 4), "`length` must be between 2 and 64, got 65"),
        ((10, 1, 1, 4), "`length` must be between 2 and 64, got 1"),
        ((10, 10, 10, 4), "`act` must be between 1 and N-1=9, got 10"),
        ((10, 10, 3, 0), "`min_distance` must be at least 2 .*, got 0"),
        ((10, 10, 3, 4.0), "`min_distance` must be a whole number, got 4.0"),
        ((True, 10, 3, 4), "`num_classes` must be a whole number, got True"),
    ],
)
def test_what_is_no_problem_is_named(arguments: tuple[int, int, int, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Problem(*arguments)


def test_what_cannot_exist_is_refused_with_the_bound() -> None:
    with pytest.raises(InfeasibleError, match=r"C\(10, 3\) = 120; lower `num_classes`, or change `length` or `act`"):
        Problem(121, 10, 3, 2).check_number_of_words()
    with pytest.raises(InfeasibleError, match=r"at most 13 can \(Johnson bound\); lower `min_distance` or"):
        Problem(14, 10, 3, 4).check_bound()
    Problem(13, 10, 3, 4).check_bound()


def test_at_each_distance_goes_down_from_the_highest_not_excluded() -> None:
    distances = [problem.min_distance for problem in Problem(30, 12, 5, 2).at_each_distance()]
    possible = [row.min_distance for row in bounds_table(12, 5) if row.best >= 30]
    assert distances == sorted(possible, reverse=True)


def test_paused_time_counts_neither_for_a_share_nor_for_the_whole() -> None:
    now = [0.0]
    budget = Budget(10, clock=lambda: now[0])
    share = budget.share(0.5)
    now[0] = 3
    with share.paused():
        now[0] = 103
    assert (share.elapsed(), budget.elapsed()) == (3, 3)
    now[0] = 105
    assert (share.stop_reason(), budget.stop_reason()) == ("time limit", None)
    now[0] = 110
    assert budget.stop_reason() == "time limit"


def test_an_interruption_reaches_the_share_of_a_share() -> None:
    budget = Budget()
    share = budget.share(0.5).share(0.5)
    assert share.stop_reason() is None
    budget.interrupt()
    assert share.stop_reason() == "interrupted"


def test_work_refuses_a_negative_seed() -> None:
    with pytest.raises(InputError, match="`seed` must be 0 or more, got -3"):
        Work(-3)


def test_the_stopwatch_counts_phases_and_the_whole() -> None:
    stopwatch = Stopwatch("enumerate", "select", clock=CountingClock())
    with stopwatch.timed("select"):
        pass
    with pytest.raises(ZeroDivisionError), stopwatch.timed("select"):
        raise ZeroDivisionError
    assert stopwatch.seconds() == {"enumerate": 0.0, "select": 2.0, "total": 5.0}


def test_a_share_of_the_work_has_a_share_of_the_time_and_the_same_stopwatch() -> None:
    work = Work.started(3, Budget(100.0, clock=CountingClock()), silent)
    part = work.share(0.5)
    assert part.seed == 3
    assert part.stopwatch is work.stopwatch
    assert part.budget.time_limit is not None
    assert part.budget.time_limit < 50.0
    work.budget.interrupt()
    assert part.stop_reason() == "interrupted"
