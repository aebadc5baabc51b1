"""K words drawn at random, kept when they are far enough from all kept before, with even columns from the start.

For words too many to be listed and K too large for a construction. Each word is drawn with its ones where the columns
still miss most, give or take a few, and never so that the words left could not make the columns even; the last word
fills them exactly. A random greedy code has about as many words as one can expect without structure (E. Gilbert,
1952, R. Varshamov, 1957; R. Graham, N. Sloane, Lower bounds for constant weight codes, IEEE Trans. IT 26, 1980).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from codedtool.budget import StopReason, Work
from codedtool.coding.problem import Problem
from codedtool.coding.solvers.candidate import Candidate, Findings
from codedtool.coding.solvers.levels import levels_beside
from codedtool.coding.words import words_to_table

# How far a column may lag behind before it is sure to be taken, in words. More makes the draws more random, fewer keep
# the columns so close that fewer words are ever given back.
_NOISE = 8

# The search is given up after so many draws in a row in vain, or after so many in all: 50 per word and some.
_MOST_VAIN_DRAWS = 500_000
_MOST_DRAWS = 5_000_000
_MOST_DRAWS_PER_WORD = 50

_SLICE_WORK = 50_000_000


@dataclass(frozen=True)
class Sample:
    """Words drawn at random.

    Attributes:
        words: (M,) uint64, ascending, pairwise at distance >= H_min; all were found if they and the given words
            are K, and then the columns of all are as even as they can be.
        num_draws: how many words were looked at.
        stopped: why the search ended early, or None.
    """

    words: NDArray[np.uint64]
    num_draws: int
    stopped: StopReason | None


def draw_words(problem: Problem, work: Work, findings: Findings) -> Candidate | None:
    """Solver: `sample_words` as a candidate; None if fewer than K words were found."""
    with work.stopwatch.timed("enumerate"):
        sample = sample_words(problem, work)
    findings.note(sample.words)
    if len(sample.words) < problem.num_classes:
        return None
    return Candidate(sample.words, "random greedy", f"{sample.num_draws} draws")


def sample_words(problem: Problem, work: Work | None = None, *, given: NDArray[np.uint64] | None = None) -> Sample:
    """Draw words of length N and weight N_act at distance >= H_min, up to K with the given ones, with even columns.

    Args:
        problem: K, N, N_act and H_min.
        work: its progress is told the phase "drawing words". When its budget ends, the words so far are returned.
        given: words that stay, fewer than K, pairwise at distance >= H_min; None: none.

    Returns:
        K words less the given ones; fewer if so many draws in a row were in vain that K are out of reach, or if the
        budget ended.
    """
    from codedtool.coding.solvers import sampler_kernels as kernels

    work = work or Work()
    num_classes, length, act = problem.num_classes, problem.length, problem.act
    work.progress("drawing words", 0, num_classes, "loading or compiling kernels")
    with work.budget.paused():
        compile_kernels()
    random = np.random.default_rng(work.seed)
    given = np.zeros(0, dtype=np.uint64) if given is None else given
    num_given = len(given)
    levels = levels_beside(words_to_table(given, length).sum(axis=0, dtype=np.int64), num_classes - num_given, act)
    # The kernel's column c is bit c, a table's is the c-th digit from the left.
    missing, with_room = levels.low_N[::-1].copy(), (levels.high_N > levels.low_N)[::-1]
    columns = random.permutation(length)
    missing[columns[with_room[columns]][: levels.remainder]] += 1
    kept = np.zeros(num_classes, dtype=np.uint64)
    kept[:num_given] = given
    room = kernels.Room(
        missing=missing,
        kept=kept,
        columns=np.zeros(length, dtype=np.int64),
        keys=np.zeros(length, dtype=np.int64),
        random_state=random.integers(0, 1 << 63, size=1, dtype=np.uint64),
    )
    most_draws = _MOST_DRAWS + _MOST_DRAWS_PER_WORD * num_classes
    rules = kernels.Rules(act, problem.shared_at_min, 1024 * _NOISE, most_draws, _MOST_VAIN_DRAWS, num_given)
    state = np.zeros(kernels.STATE_SIZE, dtype=np.int64)
    state[kernels.KEPT] = num_given
    stopped: StopReason | None = None
    while (
        state[kernels.KEPT] < num_classes
        and state[kernels.DRAWS] < most_draws
        and state[kernels.VAIN_DRAWS] < _MOST_VAIN_DRAWS
        and stopped is None
    ):
        kernels.sample(rules, room, _SLICE_WORK, state)
        num_kept = int(state[kernels.KEPT])
        work.progress("drawing words", num_kept, num_classes, f"{int(state[kernels.DRAWS])} draws")
        stopped = work.stop_reason() if num_kept < num_classes else None
    return Sample(np.sort(room.kept[num_given : state[kernels.KEPT]]), int(state[kernels.DRAWS]), stopped)


@cache
def compile_kernels() -> None:
    """Compile or load every kernel, on two words of two bits."""
    from codedtool.coding.solvers import sampler_kernels as kernels

    missing, columns, keys = np.ones((3, 2), dtype=np.int64)
    room = kernels.Room(missing, np.zeros(2, dtype=np.uint64), columns, keys, np.zeros(1, dtype=np.uint64))
    kernels.sample(kernels.Rules(1, 0, 1, 1, 1, 0), room, 1, np.zeros(kernels.STATE_SIZE, dtype=np.int64))
