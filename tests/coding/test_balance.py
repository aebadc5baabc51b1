"""The balance engine: what it claims is counted again, what it should reach it reaches, and seeds repeat."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codedtool.budget import Budget, StopReason, Work
from codedtool.coding.problem import Problem
from codedtool.coding.scheme import best_spread
from codedtool.coding.solvers import balance_kernels
from codedtool.coding.solvers.balance import Selection, select_balanced
from codedtool.coding.solvers.lexicode import lexicode
from codedtool.coding.words import distance_histogram, words_to_table
from codedtool.errors import InputError

# The paper's schemes, (K, N, act, H_min), whose greedy set can be balanced.
PAPER = ((100, 20, 8, 8), (100, 20, 4, 4), (1000, 32, 8, 6))


@cache
def greedy(length: int, act: int, min_distance: int) -> np.ndarray:
    return lexicode(length, act, min_distance).words


def select(K: int, N: int, act: int, H: int, seed: int, budget: Budget | None = None) -> Selection:
    return select_balanced(greedy(N, act, H), Problem(K, N, act, H), Work(seed, budget or Budget()))


def check_figures(words: np.ndarray, length: int, act: int, num_classes: int, H: int, found: Selection) -> None:
    """Everything a Selection says, counted again from the words."""
    assert len(found.indices) == num_classes
    assert np.array_equal(found.indices, np.unique(found.indices))
    chosen = words[found.indices]
    sums = words_to_table(chosen, length).sum(axis=0, dtype=np.int64)
    assert found.spread == sums.max() - sums.min()
    low = num_classes * act // length
    high = low + best_spread(num_classes, length, act)
    assert found.deviation == sum(max(low - s, 0) + max(s - high, 0) for s in sums.tolist())
    assert found.pairs_at_min == distance_histogram(chosen).get(H, 0)


@pytest.mark.parametrize("parameters", PAPER)
def test_ten_seeds_balance_the_papers_schemes_exactly(parameters: tuple[int, int, int, int]) -> None:
    K, N, act, H = parameters
    for seed in range(10):
        found = select(K, N, act, H, seed)
        assert found.spread == 0, seed
        check_figures(greedy(N, act, H), N, act, K, H, found)


@pytest.mark.slow
def test_ten_seeds_balance_the_hardest_scheme_exactly() -> None:
    for seed in range(10):
        found = select(1000, 32, 16, 10, seed)
        assert found.spread == 0, seed
        assert found.stopped is None
        check_figures(greedy(32, 16, 10), 32, 16, 1000, 10, found)


def test_the_hardest_scheme_is_balanced_by_the_meet_in_the_middle() -> None:
    found = select(1000, 32, 16, 10, 8)
    assert (found.spread, found.method) == (0, "local search, meet in the middle")


def test_spread_one_where_rk_is_no_integer() -> None:
    for K in (999, 1001):
        assert best_spread(K, 32, 8) == 1
        assert select(K, 32, 8, 6, 0).spread == 1


def test_far_fewer_pairs_at_min_than_a_random_choice() -> None:
    words = greedy(32, 8, 6)
    random_choice = np.random.default_rng(0).permutation(len(words))[:1000]
    assert select(1000, 32, 8, 6, 0).pairs_at_min < distance_histogram(words[random_choice])[6] / 2


def test_the_same_seed_gives_the_same_choice_in_another_process() -> None:
    program = (
        "from codedtool.budget import Work; from codedtool.coding.problem import Problem\n"
        "from codedtool.coding.solvers.balance import select_balanced\n"
        "from codedtool.coding.solvers.lexicode import lexicode\n"
        "words = lexicode(32, 8, 6).words\n"
        "print(select_balanced(words, Problem(1000, 32, 8, 6), Work(5)).indices.tolist())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    here = select(1000, 32, 8, 6, 5).indices.tolist()
    assert done.stdout == f"{here}\n"
    assert here != select(1000, 32, 8, 6, 6).indices.tolist()


def test_all_of_g_and_too_few() -> None:
    words = greedy(20, 4, 4)
    found = select_balanced(words, Problem(len(words), 20, 4, 4), Work())
    assert found.method == "all of G"
    check_figures(words, 20, 4, len(words), 4, found)
    with pytest.raises(InputError, match="K=190 words cannot be chosen from 189"):
        select_balanced(words, Problem(190, 20, 4, 4), Work())


def test_an_interrupted_choice_is_still_a_choice() -> None:
    budget = Budget()
    budget.interrupt()
    found = select(1000, 32, 8, 6, 0, budget)
    assert found.stopped == "interrupted"
    check_figures(greedy(32, 8, 6), 32, 8, 1000, 6, found)


class StoppingBudget(Budget):
    """Interrupted the ``num_polls``-th time somebody asks, and from then on."""

    def __init__(self, num_polls: int) -> None:
        super().__init__()
        self.polls_left = num_polls

    def stop_reason(self) -> StopReason | None:
        self.polls_left -= 1
        if self.polls_left < 0:
            self.interrupt()
        return super().stop_reason()


def test_wherever_it_is_interrupted_the_figures_are_those_of_its_choice() -> None:
    words = greedy(32, 16, 10)
    for num_polls in (1, 2, 5, 12, 40):
        found = select(1000, 32, 16, 10, 3, StoppingBudget(num_polls))
        assert found.stopped == "interrupted", num_polls
        check_figures(words, 32, 16, 1000, 10, found)


def test_a_limit_that_ends_after_the_choice_did_not_cut_it_short() -> None:
    budget = StoppingBudget(10**9)
    found = select(100, 20, 8, 8, 0, budget)
    num_polls = 10**9 - budget.polls_left
    again = select(100, 20, 8, 8, 0, StoppingBudget(num_polls))
    assert (found.stopped, again.stopped) == (None, None)
    assert np.array_equal(found.indices, again.indices)


def test_swaps_keep_every_number_up_to_date() -> None:
    words, N, act, overlap = greedy(20, 8, 8), 20, 8, 4
    table = words_to_table(words, N).astype(np.int64)
    random = np.random.default_rng(0)
    is_chosen = np.zeros(len(words), dtype=np.bool_)
    is_chosen[random.permutation(len(words))[:60]] = True

    def counted() -> list[np.ndarray]:
        residual = N * table[is_chosen].sum(axis=0) - 60 * act
        near = np.bitwise_count(words[:, None] & words[None, :]) == overlap
        return [residual, table @ residual, near[:, is_chosen].sum(axis=1)]

    kept = counted()
    pool, choice = balance_kernels.Pool(words, N, act, overlap), balance_kernels.Choice(is_chosen, *kept)
    for _ in range(50):
        out, into = random.choice(np.flatnonzero(is_chosen)), random.choice(np.flatnonzero(~is_chosen))
        balance_kernels.apply_swap(pool, choice, out, into)
        assert is_chosen.sum() == 60
        for number, recount in zip(kept, counted(), strict=True):
            assert np.array_equal(number, recount)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000))
def test_the_table_finds_a_double_swap_exactly_where_trying_all_finds_one(seed: int) -> None:
    random = np.random.default_rng(seed)
    words, N, overlap = greedy(10, 5, 4), 10, 3
    table = words_to_table(words, N).astype(np.int64)
    order = random.permutation(len(words))
    inside, outside = order[:8].copy(), order[8:].copy()
    degrees = random.integers(0, 9, size=len(words))
    # Half of the wishes are met by construction.
    out, into = random.choice(inside, 2, replace=False), random.choice(outside, 2, replace=False)
    wanted = table[into].sum(axis=0) - table[out].sum(axis=0) if seed % 2 else random.integers(-1, 2, size=N)
    weights = random.integers(0, 1 << 63, size=N, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    hashes = (words_to_table(words, N) * weights).sum(axis=1, dtype=np.uint64)
    spared_out, spared_into = int(inside[0]), int(outside[0])

    def new_pairs(outs: tuple[int, int], ins: tuple[int, int]) -> int:
        near = [np.bitwise_count(words[a] & words[b]) == overlap for a in outs for b in ins]
        both = [np.bitwise_count(words[a] & words[b]) == overlap for a, b in (outs, ins)]
        return int(degrees[list(ins)].sum() - degrees[list(outs)].sum()) + sum(both) - sum(near)

    by_hand = [
        new_pairs(outs, ins)
        for outs in combinations(inside[1:].tolist(), 2)
        for ins in combinations(outside[1:].tolist(), 2)
        if np.array_equal(table[list(ins)].sum(axis=0) - table[list(outs)].sum(axis=0), wanted)
    ]
    table_of_pairs = balance_kernels.PairTable(
        slot_bits=8,
        sieve_bits=12,
        sieve=np.zeros(1 << 6, dtype=np.uint64),
        keys=np.zeros(256, dtype=np.uint64),
        places=np.full(256, -1, dtype=np.int32),
    )
    balance_kernels.hash_pairs(hashes[outside], table_of_pairs)
    found = np.zeros(4, dtype=np.int64)
    pairs = balance_kernels.find_double_swap(
        balance_kernels.Pool(words, N, 5, overlap),
        degrees,
        table_of_pairs,
        balance_kernels.Sides(inside, hashes[inside], outside, np.empty(len(inside), dtype=np.int64)),
        wanted,
        (wanted.astype(np.uint64) * weights).sum(dtype=np.uint64),
        spared_out,
        spared_into,
        found,
    )
    # Pairs to take with the same sum share one entry of the table, so the best may be hidden; one is always found
    # unless the entry's pair is spared.
    out_one, into_one, out_two, into_two = found.tolist()
    if pairs < 1 << 62:
        assert pairs in by_hand
        assert pairs == new_pairs((out_one, out_two), (into_one, into_two))
    sums = [tuple(table[list(ins)].sum(axis=0)) for ins in combinations(outside.tolist(), 2)]
    if len(set(sums)) == len(sums):
        assert pairs == min(by_hand, default=1 << 62)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_small_choices_are_counted_right_and_never_better_than_possible(data: st.DataObject) -> None:
    N = data.draw(st.integers(4, 9))
    act = data.draw(st.integers(1, N - 1))
    H = data.draw(st.sampled_from((2, 4)))
    words = greedy(N, act, H)
    if len(words) < 2:
        return
    K = data.draw(st.integers(2, min(len(words), 5)))
    words = words[: data.draw(st.integers(K, min(len(words), 10)))]
    found = select_balanced(words, Problem(K, N, act, H), Work(data.draw(st.integers(0, 9))))
    check_figures(words, N, act, K, H, found)
    table = words_to_table(words, N)
    spreads = (np.ptp(table[list(rows)].sum(axis=0)) for rows in combinations(range(len(words)), K))
    assert found.spread >= min(spreads)
