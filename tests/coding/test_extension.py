"""More classes later: the old rows stay, and the new ones are held against brute force on small cases."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codedtool import CodingScheme, extend_scheme, find_scheme
from codedtool.budget import Budget, Work
from codedtool.coding.problem import Problem
from codedtool.coding.result import SearchInterrupted
from codedtool.coding.solvers.balance import select_balanced
from codedtool.coding.solvers.beside import (
    Beside,
    choose_from_continued_greedy_set,
    choose_from_greedy_set,
    draw_beside,
)
from codedtool.coding.solvers.candidate import Candidate
from codedtool.coding.solvers.levels import levels_beside
from codedtool.coding.solvers.lexicode import lexicode
from codedtool.errors import InfeasibleError, InputError


def rows_of(scheme: CodingScheme) -> list[tuple[int, ...]]:
    return [tuple(row) for row in scheme.table.tolist()]


def least_spread_by_brute_force(scheme: CodingScheme, num_new: int, distance: int) -> int | None:
    """Every set of new rows is tried; None if none keeps the distance."""
    old = rows_of(scheme)
    rows = [
        tuple(int(n in ones) for n in range(scheme.length)) for ones in combinations(range(scheme.length), scheme.act)
    ]
    rows = [row for row in rows if all(sum(a != b for a, b in zip(row, o, strict=True)) >= distance for o in old)]
    best = None
    for new in combinations(rows, num_new):
        if any(sum(a != b for a, b in zip(x, y, strict=True)) < distance for x, y in combinations(new, 2)):
            continue
        sums = [sum(column) for column in zip(*old, *new, strict=True)]
        spread = max(sums) - min(sums)
        best = spread if best is None else min(best, spread)
    return best


@settings(max_examples=25, deadline=None)
@given(st.integers(4, 6), st.data())
def test_small_extensions_are_as_even_as_brute_force_finds(length: int, data: st.DataObject) -> None:
    act = data.draw(st.integers(1, length - 1))
    rows = [[int(n in ones) for n in range(length)] for ones in combinations(range(length), act)]
    num_given = data.draw(st.integers(2, min(len(rows) - 1, 6)))
    scheme = CodingScheme(data.draw(st.permutations(rows))[:num_given])
    num_new = data.draw(st.integers(1, min(3, len(rows) - num_given)))
    expected = least_spread_by_brute_force(scheme, num_new, scheme.min_distance)
    if expected is None:
        with pytest.raises(InfeasibleError):
            extend_scheme(scheme, num_given + num_new)
        return
    result = extend_scheme(scheme, num_given + num_new)
    assert result.extension is not None
    assert result.scheme.table[:num_given].tolist() == scheme.table.tolist()
    assert result.scheme.min_distance == scheme.min_distance
    assert (result.scheme.spread, result.extension.spread_bound) == (expected, expected)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=2, max_size=4), st.integers(1, 3), st.data())
def test_levels_are_the_most_even_sums(base: list[int], num_new: int, data: st.DataObject) -> None:
    act = data.draw(st.integers(1, len(base) - 1))
    levels = levels_beside(np.array(base), num_new, act)
    possible = [
        sums
        for new in product(range(num_new + 1), repeat=len(base))
        if sum(new) == num_new * act
        for sums in [[b + n for b, n in zip(base, new, strict=True)]]
    ]
    assert levels.best_spread == min(max(sums) - min(sums) for sums in possible)
    goal = levels.goal(np.zeros(len(base), dtype=np.int64))
    assert goal.sum() == num_new * act
    assert np.ptp(goal + base) == levels.best_spread


@pytest.mark.parametrize(("name", "num_classes"), [("c100_4of20", 120), ("c100_8of20", 110), ("c100_8of20", 101)])
def test_shipped_schemes_grow_with_even_columns(name: str, num_classes: int) -> None:
    scheme = CodingScheme.shipped(name)
    result = extend_scheme(scheme, num_classes)
    assert result.extension is not None
    assert result.extension.is_optimal
    assert result.scheme.table[:100].tolist() == scheme.table.tolist()
    assert result.scheme.min_distance == scheme.min_distance
    assert result.scheme.spread == (num_classes * scheme.act % 20 > 0)
    assert extend_scheme(scheme, num_classes).scheme == result.scheme


@pytest.mark.parametrize("solver", [choose_from_greedy_set, draw_beside, choose_from_continued_greedy_set])
@pytest.mark.parametrize("num_new", [1, 12])
def test_every_solver_keeps_the_rules(solver: object, num_new: int) -> None:
    scheme = CodingScheme.shipped("c100_4of20")
    beside = Beside(Problem(100 + num_new, 20, 4, 4), scheme.words)
    found = solver(beside, Work())  # type: ignore[operator]
    assert isinstance(found, Candidate)
    assert beside.keeps_rules(found.words)
    assert beside.spread(found.words) <= 1


def test_continued_greedy_set_is_algorithm_1_beside_the_given_words() -> None:
    scheme = find_scheme(6, 9, 3, 4, seed=3, method="orbits").scheme
    beside = Beside(Problem(7, 9, 3, 4), scheme.words)
    kept = scheme.words.tolist()
    for word in sorted(sum(1 << bit for bit in bits) for bits in combinations(range(9), 3)):
        if all((word ^ other).bit_count() >= 4 for other in kept):
            kept.append(word)
    num_new = len(kept) - 6
    full = Beside(Problem(len(kept), 9, 3, 4), scheme.words)
    found = choose_from_continued_greedy_set(full, Work())
    assert isinstance(found, Candidate)
    assert found.words.tolist() == kept[6:]
    more = Beside(Problem(len(kept) + 1, 9, 3, 4), scheme.words)
    assert choose_from_continued_greedy_set(more, Work()) == num_new
    assert beside.num_new == 1


def test_columns_that_cannot_become_even_are_filled_where_they_are_least() -> None:
    # Column 0 holds every old word; two new ones cannot make up for that.
    scheme = CodingScheme([[1, *(int(n == k) for n in range(7))] for k in range(7)])
    result = extend_scheme(scheme, 9)
    assert result.extension is not None
    assert result.extension.is_optimal
    assert result.scheme.spread == result.extension.spread_bound == 7 - 1


def test_balance_beside_given_words_reaches_the_levels() -> None:
    words = lexicode(20, 4, 4).words
    words = words[np.random.default_rng(0).permutation(len(words))]
    beside = Beside(Problem(60, 20, 4, 4), words[:20])
    assert beside.spread(words[20:60]) > 5
    selected = select_balanced(words[20:], Problem(40, 20, 4, 4), Work(), levels=beside.levels)
    assert selected.spread == beside.spread(words[20:][selected.indices]) == beside.levels.best_spread == 0


def test_max_starts_from_the_given_distance() -> None:
    scheme = CodingScheme.shipped("c10_3of10")
    with pytest.raises(InfeasibleError, match=r"no 3 codewords lie at distance 4 from the 10 given ones"):
        extend_scheme(scheme, 13)
    assert extend_scheme(scheme, 13, "max").scheme.min_distance == 2


def test_a_goal_out_of_reach_says_what_was_reached() -> None:
    scheme = CodingScheme.shipped("c100_8of20")
    with pytest.raises(InfeasibleError, match=r"K=131|not proved impossible|cannot all be"):
        extend_scheme(scheme, 131)


def test_arguments_are_checked() -> None:
    scheme = CodingScheme.shipped("c10_3of10")
    with pytest.raises(InputError, match="`num_classes` must be above the 10 of the given scheme, got 10"):
        extend_scheme(scheme, 10)
    with pytest.raises(InputError, match="`min_distance` must be at most 4, got 6"):
        extend_scheme(scheme, 11, 6)
    with pytest.raises(InputError, match="`companions`"):
        extend_scheme(scheme, 11, companions=[scheme])


def test_new_rows_are_ordered_beside_companions_and_old_ones_stay() -> None:
    first = extend_scheme(CodingScheme.shipped("c10_5of10"), 14).scheme
    result = extend_scheme(CodingScheme.shipped("c10_3of10"), 14, 2, companions=[first])
    joint = result.joint
    assert joint is not None
    assert joint.permutation[:10].tolist() == list(range(10))
    assert result.scheme.table[:10].tolist() == CodingScheme.shipped("c10_3of10").table.tolist()
    both = np.hstack([result.scheme.table, first.table]).astype(int)
    distances = [int((a != b).sum()) for a, b in combinations(both, 2)]
    assert (joint.joint_min_distance, joint.pairs_at_joint_min) == (min(distances), distances.count(min(distances)))


def test_an_interrupt_raises_with_the_best_so_far() -> None:
    budget = Budget()
    budget.interrupt()
    with pytest.raises(SearchInterrupted):
        extend_scheme(CodingScheme.shipped("c100_4of20"), 120, budget=budget)


def test_the_command_writes_a_scheme_that_verifies(tmp_path: Path) -> None:
    def program(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "codedtool", *arguments],
            cwd=tmp_path,
            env=os.environ.copy(),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    done = program("scheme", "--extend", "c10_3of10", "--K", "11", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["path"] == "schemes/k11_3of10_h4.npy"
    assert document["extension"]["num_given"] == 10
    assert "the first 10 rows, word for word; new: 1" in done.stderr
    assert program("verify", "--K", "11", "--hmin", "4", "--max-spread", "1").returncode == 0
    refused = program("scheme", "--extend", "c10_3of10", "--K", "13")
    assert (refused.returncode, "--hmin" in refused.stderr) == (3, True)
    assert program("scheme", "--extend", "c10_3of10", "--K", "12", "--N", "11").returncode == 2
    assert program("scheme", "--extend", "c10_3of10", "--K", "12", "--method", "orbits").returncode == 2
    assert "error: Missing option --K" in program("scheme", "--extend", "c10_3of10").stderr
