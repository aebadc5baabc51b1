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

from codedtool.budget import Budget, Progress, StopReason, silent

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
        words: (M,) uint64, ascending, pairwise at distance >= H_min; M = K if all were found, and then the columns
            are as even as K words can have them.
        num_draws: how many words were looked at.
        stopped: what cut the search short, or None.
    """

    words: NDArray[np.uint64]
    num_draws: int
    stopped: StopReason | None


def sample_words(
    length: int,
    act: int,
    min_distance: int,
    num_classes: int,
    *,
    seed: int = 0,
    budget: Budget | None = None,
    progress: Progress = silent,
) -> Sample:
    """Draw K words of length N and weight N_act at distance >= H_min with even columns.

    Args:
        length: N, 2..64.
        act: N_act, 1..N-1.
        min_distance: H_min, even, >= 2.
        num_classes: K >= 1.
        seed: of every random choice; equal arguments give equal words unless the budget ended.
        budget: polled about ten times a second; when it ends the words so far are returned.
        progress: told the phase "drawing words".

    Returns:
        K words; fewer when so many draws in a row were in vain that K are out of reach, or when the budget ended.
    """
    from codedtool.coding import sampler_kernels

    budget = budget or Budget()
    progress("drawing words", 0, num_classes, "loading or compiling kernels")
    _compile()
    budget.restart()
    random = np.random.default_rng(seed)
    low, remainder = divmod(num_classes * act, length)
    missing = np.full(length, low, dtype=np.int64)
    missing[random.permutation(length)[:remainder]] += 1
    kept = np.zeros(num_classes, dtype=np.uint64)
    columns, keys = np.zeros(length, dtype=np.int64), np.zeros(length, dtype=np.int64)
    random_state = random.integers(0, 1 << 63, size=1, dtype=np.uint64)
    state = np.zeros(5, dtype=np.int64)
    most_draws = _MOST_DRAWS + _MOST_DRAWS_PER_WORD * num_classes
    stopped: StopReason | None = None
    while state[0] < num_classes and state[1] < most_draws and state[2] < _MOST_VAIN_DRAWS and stopped is None:
        sampler_kernels.sample(
            _SLICE_WORK,
            act,
            act - min_distance // 2,
            1024 * _NOISE,
            most_draws,
            _MOST_VAIN_DRAWS,
            missing,
            kept,
            columns,
            keys,
            random_state,
            state,
        )
        progress("drawing words", int(state[0]), num_classes, f"{int(state[1])} draws")
        stopped = budget.stop_reason() if state[0] < num_classes else None
    return Sample(np.sort(kept[: state[0]]), int(state[1]), stopped)


@cache
def _compile() -> None:
    """Compile or load every kernel, on two words of two bits."""
    from codedtool.coding import sampler_kernels

    missing, columns, keys = np.ones((3, 2), dtype=np.int64)
    kept, random_state = np.zeros(2, dtype=np.uint64), np.zeros(1, dtype=np.uint64)
    sampler_kernels.sample(1, 1, 0, 1, 1, 1, missing, kept, columns, keys, random_state, np.zeros(5, dtype=np.int64))
