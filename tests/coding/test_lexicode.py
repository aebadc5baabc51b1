"""Algorithm 1's greedy set: known answers, a plain twin, and what a stop leaves behind."""

from __future__ import annotations

import itertools
import math
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codedtool.budget import Budget, Work
from codedtool.coding.search import find_scheme
from codedtool.coding.solvers import lexicode as lexicode_module
from codedtool.coding.solvers.lexicode import lexicode
from codedtool.errors import InfeasibleError, InputError

# SPEC section 1: (N, N_act, H_min) and |G|.
KNOWN = {
    (10, 5, 4): 22,
    (10, 3, 4): 10,
    (20, 8, 8): 130,
    (20, 4, 4): 189,
    (32, 8, 6): 11_556,
    (32, 8, 8): 1_068,
    (32, 16, 12): 366,
    (32, 16, 10): 2_399,
}


def plain_lexicode(length: int, act: int, min_distance: int) -> list[int]:
    """Algorithm 1 as it is written, over the integers themselves."""
    kept: list[int] = []
    for word in range(1 << length):
        if word.bit_count() == act and all((word ^ other).bit_count() >= min_distance for other in kept):
            kept.append(word)
    return kept


def numpy_lexicode(length: int, act: int, min_distance: int) -> list[int]:
    """Algorithm 1 from the other side: keep the lowest word left, strike out all that are too near to it."""
    every = np.arange(1 << length, dtype=np.uint64)
    left = every[np.bitwise_count(every) == act]
    kept = []
    while len(left):
        kept.append(int(left[0]))
        left = left[np.bitwise_count(left ^ left[0]) >= min_distance]
    return kept


class PolledClock:
    """Seconds that pass only when somebody looks."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


@pytest.mark.parametrize(("parameters", "size"), KNOWN.items())
def test_known_answers(parameters: tuple[int, int, int], size: int) -> None:
    length, act, min_distance = parameters
    result = lexicode(length, act, min_distance)
    assert len(result.words) == size
    assert result.complete
    assert result.stopped is None
    assert result.num_done == result.num_words == math.comb(length, act)
    assert result.words.dtype == np.uint64
    assert (np.diff(result.words) > 0).all()
    assert (np.bitwise_count(result.words) == act).all()


@pytest.mark.parametrize("length", range(2, 13))
def test_every_small_case_agrees_with_the_plain_twin_word_for_word(length: int) -> None:
    for act, min_distance in itertools.product(range(1, length), [2, 3, 4, 5, 6, 8, 9, 10, 12, 14]):
        expected = plain_lexicode(length, act, min_distance)
        assert lexicode(length, act, min_distance).words.tolist() == expected, (act, min_distance)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_larger_cases_agree_with_the_striking_out_twin(data: st.DataObject) -> None:
    length = data.draw(st.integers(2, 16))
    act = data.draw(st.integers(1, length - 1))
    min_distance = data.draw(st.integers(4, length + 3))
    assert lexicode(length, act, min_distance).words.tolist() == numpy_lexicode(length, act, min_distance)


@pytest.mark.parametrize("parameters", [(21, 7, 6), (22, 11, 8), (24, 12, 8), (25, 12, 10), (24, 20, 4), (33, 4, 4)])
def test_both_splits_agree_with_the_reference_loop(parameters: tuple[int, int, int]) -> None:
    from benchmarks.reference import reference_lexicode

    length, act, min_distance = parameters
    result = lexicode(length, act, min_distance)
    assert result.words.tolist() == reference_lexicode(length, act, min_distance).tolist()


@pytest.mark.slow
@pytest.mark.parametrize("parameters", [(32, 8, 6), (32, 8, 8), (32, 16, 10), (32, 16, 12)])
def test_the_paper_parameters_agree_with_the_reference_loop(parameters: tuple[int, int, int]) -> None:
    from benchmarks.reference import reference_lexicode

    length, act, min_distance = parameters
    result = lexicode(length, act, min_distance)
    assert result.words.tolist() == reference_lexicode(length, act, min_distance).tolist()


def test_the_longest_words_agree_with_the_twin() -> None:
    pairs = sorted((1 << i) | (1 << j) for i, j in itertools.combinations(range(64), 2))
    for min_distance in (2, 4):
        kept: list[int] = []
        for word in pairs:
            if all((word ^ other).bit_count() >= min_distance for other in kept):
                kept.append(word)
        assert lexicode(64, 2, min_distance).words.tolist() == kept
    complement = [2**64 - 1 - word for word in pairs]
    assert lexicode(64, 62, 2).words.tolist() == complement[::-1]


def test_a_time_limit_leaves_exactly_the_beginning_of_the_set() -> None:
    full = lexicode(32, 8, 6).words
    for limit in (3.5, 6.5, 9.5):
        result = lexicode(32, 8, 6, Work(budget=Budget(limit, clock=PolledClock())))
        assert result.stopped == "time limit"
        assert not result.complete
        assert 0 < result.num_done < result.num_words
        assert 0 < len(result.words) < len(full)
        np.testing.assert_array_equal(result.words, full[: len(result.words)])
        # num_done is where the next word of G has not been reached yet.
        everything_before = sum(1 for word in full if _rank(int(word)) < result.num_done)
        assert everything_before == len(result.words)


def _rank(word: int) -> int:
    """How many integers of the same number of ones lie below."""
    positions = [i for i in range(64) if word >> i & 1]
    return sum(math.comb(position, i + 1) for i, position in enumerate(positions))


def test_an_interrupt_stops_at_the_next_slice_and_keeps_what_was_found() -> None:
    budget = Budget()
    reports = []

    def interrupt_later(*report: object) -> None:
        reports.append(report)
        if len(reports) == 6:
            budget.interrupt()

    result = lexicode(32, 16, 12, Work(budget=budget, progress=interrupt_later))
    assert result.stopped == "interrupted"
    assert 0 < result.num_done < result.num_words == 601_080_390
    # Nothing was decided after the report that interrupted, and the last report says what is kept.
    assert len(reports) == 7
    assert reports[6] == reports[5] == ("enumerating words", result.num_done, 601_080_390, f"|G| = {len(result.words)}")


def test_an_enumeration_far_too_long_stops_cleanly_with_a_sound_beginning() -> None:
    result = lexicode(64, 16, 10, Work(budget=Budget(14, clock=PolledClock())))
    assert result.stopped == "time limit"
    assert result.num_words == math.comb(64, 16)
    words = result.words
    assert sum(_rank(int(word)) < result.num_done for word in words) == len(words)
    # The words below 2^22 do not know how long the words are: G begins as the greedy set of a smaller N does.
    assert math.comb(22, 16) < result.num_done < result.num_words
    np.testing.assert_array_equal(words[words < 1 << 22], numpy_lexicode(22, 16, 10))
    distances = np.bitwise_count(words[:, None] ^ words)
    assert distances[~np.eye(len(words), dtype=bool)].min() == 10


def test_a_set_beyond_the_memory_it_may_take_stops_at_the_word_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lexicode_module, "MAX_WORDS", 10_000)
    result = lexicode(40, 10, 2)
    assert result.stopped == "word limit"
    assert 10_000 < len(result.words) == result.num_done


def test_words_out_of_reach_end_the_enumeration_and_those_within_reach_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lexicode_module, "_REACH_AFTER", 10_000)
    whole = lexicode(22, 11, 8)
    few = lexicode(22, 11, 8, wanted=300)
    assert few.stopped == "out of reach"
    assert not few.complete
    assert 10_000 < few.num_done < few.num_words
    np.testing.assert_array_equal(few.words, whole.words[: len(few.words)])
    assert len(few.words) < len(whole.words)
    enough = lexicode(22, 11, 8, wanted=len(few.words))
    np.testing.assert_array_equal(enough.words, whole.words)
    with pytest.raises(InfeasibleError, match=f"keeps {len(few.words)} of the first .* of all 705432 words"):
        find_scheme(300, 22, 11, 8, method="lexicode")


def test_progress_is_monotone_and_ends_at_the_total() -> None:
    seen = []
    lexicode(32, 8, 6, Work(progress=lambda *report: seen.append(report)))
    done = [report[1] for report in seen]
    assert done == sorted(done)
    assert seen[-1] == ("enumerating words", 10_518_300, 10_518_300, "|G| = 11556")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((1, 1, 4), "length"),
        ((65, 8, 4), "length"),
        ((10.0, 5, 4), "length"),
        ((10, 0, 4), "act"),
        ((10, 10, 4), "act"),
        ((10, True, 4), "act"),
        ((10, 5, 1), "min_distance"),
        ((10, 5, -4), "min_distance"),
        ((10, 5, "4"), "min_distance"),
    ],
)
def test_bad_arguments_are_named_with_their_value(arguments: tuple, named: str) -> None:
    with pytest.raises(InputError, match=named) as caught:
        lexicode(*arguments)
    value = {"length": 0, "act": 1, "min_distance": 2}[named]
    assert repr(arguments[value]) in str(caught.value)


def test_the_kernels_run_interpreted_too() -> None:
    script = (
        "from codedtool.coding.solvers.lexicode import lexicode\n"
        "from codedtool.coding.solvers.lexicode_kernels import advance\n"
        "assert not hasattr(advance, 'py_func'), 'compiled'\n"
        "print(*lexicode(9, 4, 4).words)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore::RuntimeWarning", "-c", script],
        env=os.environ | {"NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [int(word) for word in done.stdout.split()] == plain_lexicode(9, 4, 4)


def test_importing_the_facade_imports_no_compiler() -> None:
    script = "import sys, codedtool.coding.solvers.lexicode; assert 'numba' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
