"""Algorithm 1's greedy set G (the paper, appendix A), the constant-weight lexicode of Conway and Sloane (1986).

Algorithm 1 goes through the N-bit words of weight N_act in ascending order and keeps a word if its Hamming distance
to every word kept before is at least H_min. The engine decides many words at a time and still returns exactly G:

- Words are cut into blocks that share all but their last 10 or 12 bits. A block is a run of consecutive words (of
  this weight), and blocks are decided in ascending order, so all of G below a block is known when its turn comes.
- A word conflicts with a kept word exactly if it lies in that word's ball of radius H_min - 1. Within a block the ball
  is a precomputed bitset. The balls of the words kept so far are removed from the block, nearest first. A kept word
  is passed over only when its leading bits alone put it too far from every word of the block, and the
  removal ends early only when the block is empty: what is left is what conflicts with no word of G below the block.
- The lowest word left is then the next word of G, its own ball is removed too, and so on until the block is empty.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from codedtool.budget import Budget, Progress, StopReason, silent
from codedtool.coding.words import MAX_LENGTH
from codedtool.errors import InputError

# Kept words are held up to four more times by the kernels: 4 million of them take about 200 MB, and no scheme has
# as many classes.
MAX_WORDS = 1 << 22

# Enumerations from this size on repay the 40 ms and 10 MB that the balls of 12-bit instead of 10-bit ends cost.
_MANY_WORDS = 1 << 22

# Seconds that a slice may take, between which progress moves and the budget is asked.
_SLICE = 0.05


@dataclass(frozen=True)
class Lexicode:
    """The greedy set G, or its beginning when the work was stopped.

    Attributes:
        words: (|G|,) uint64, ascending; when stopped, exactly the words of G among the first ``num_done`` words.
        num_words: C(N, N_act), how many words there are to decide.
        num_done: how many of them are decided.
        stopped: why the rest is not; None when complete. "word limit": G has more than `MAX_WORDS` words.
    """

    words: NDArray[np.uint64]
    num_words: int
    num_done: int
    stopped: StopReason | None

    @property
    def complete(self) -> bool:
        """Whether every word was decided, so that ``words`` is all of G."""
        return self.stopped is None


def lexicode(length: int, act: int, min_distance: int, *, budget: Budget, progress: Progress = silent) -> Lexicode:
    """The greedy set G of algorithm 1 (appendix A), lines 1-11: all words, or those found within the budget.

    Args:
        length: N, 2..64.
        act: N_act, ones per word, 1..N-1.
        min_distance: H_min, at least 2; an odd one means the next even one, because words of one weight lie at even
            distances.
        budget: asked about ten times a second; its time limit starts anew after the kernels were compiled.
        progress: told the phase "enumerating words", the number of words decided and the size of G so far.

    Raises:
        InputError: an argument is not an integer or out of its range.
    """
    _check_arguments(length, act, min_distance)
    num_words = math.comb(length, act)
    if _compile.cache_info().currsize == 0:
        progress("enumerating words", 0, num_words, "compiling kernels")
        _compile()
        budget.restart()

    enumeration = _Enumeration(length, act, min_distance)
    num_tops = 1
    stopped: StopReason | None = None
    while not enumeration.finished:
        progress("enumerating words", enumeration.num_done, num_words, f"|G| = {enumeration.num_kept}")
        stopped = "word limit" if enumeration.num_kept > MAX_WORDS else budget.stop_reason()
        if stopped is not None:
            break
        started = time.monotonic()
        enumeration.advance(num_tops)
        # Where the slices end has no influence on G, so they may follow the clock.
        fitting = num_tops * _SLICE / max(time.monotonic() - started, 1e-9)
        num_tops = max(1, min(2 * num_tops, int(fitting)))
    progress("enumerating words", enumeration.num_done, num_words, f"|G| = {enumeration.num_kept}")
    return Lexicode(enumeration.words(), num_words, enumeration.num_done, stopped)


def _check_arguments(length: int, act: int, min_distance: int) -> None:
    for name, value in (("length (N)", length), ("act (N_act)", act), ("min_distance (H_min)", min_distance)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            raise InputError(f"{name} must be an integer, not {value!r}: give a whole number")
    if not 2 <= length <= MAX_LENGTH:
        raise InputError(f"length (N) must be in 2..{MAX_LENGTH}, not {length}: words are 64-bit integers")
    if not 1 <= act < length:
        raise InputError(f"act (N_act) must be in 1..{length - 1} for length {length}, not {act}: give a value between")
    if min_distance < 2:
        raise InputError(
            f"min_distance (H_min) must be at least 2, not {min_distance}: distinct words of one weight lie at "
            "distance 2 or more, so give 2 to keep them all"
        )


class _Split(NamedTuple):
    """How many bits the top, the mid and the low part of a word have (see `lexicode_kernels`)."""

    top: int
    mid: int
    low: int


class _Enumeration:
    """The state of one run of algorithm 1 between slices: tables, kept words and the next word to decide."""

    def __init__(self, length: int, act: int, min_distance: int) -> None:
        self._length, self._act = length, act
        low = min(length, 12 if math.comb(length, act) >= _MANY_WORDS else 10)
        # 64 blocks share one sorting of the kept words: of 8 to 64, the fastest on (32, 8, 6) and (32, 16, 10).
        mid = min(length - low, 6)
        self._split = split = _Split(length - low - mid, mid, low)
        # Words of one weight are at most 2 N_act apart: a larger H_min excludes no more than all of them.
        self._half_reach = half_reach = min((int(min_distance) + 1) // 2 - 1, act)
        self._num_radii = min(half_reach, low // 2) + 1

        weights = np.bitwise_count(np.arange(1 << low))
        self._members = np.argsort(weights, kind="stable").astype(np.int64)
        self._members_start = np.concatenate([[0], np.cumsum(np.bincount(weights))]).astype(np.int64)
        self._num_limbs = (np.diff(self._members_start) + 63) // 64
        self._fill_balls()

        reach = 2 * half_reach
        self._half_radii = np.minimum((reach - np.arange(reach + mid + 1)) >> 1, self._num_radii - 1)
        pairs = [(in_top, in_mid) for in_top in range(reach + 1) for in_mid in range(min(mid, reach - in_top) + 1)]
        steps = [(*pair, self._half_radii[sum(pair)]) for pair in sorted(pairs, key=sum)]
        self._steps = np.array(steps, dtype=np.int64)
        mids = np.arange(1 << mid, dtype=np.uint64)
        at_distance = np.bitwise_count(mids[:, None] ^ mids)[:, None] == np.arange(mid + 1)[:, None]
        self._rings = np.where(at_distance, np.uint64(1) << mids, np.uint64(0)).sum(axis=2, dtype=np.uint64)
        self._cuts = np.array([cut for cut in (32, 16, 8, 4) if cut < split.top], dtype=np.int64)

        self._state = np.array([0, -1, 0], dtype=np.int64)
        self._near_counts = np.zeros(len(self._cuts), dtype=np.int64)
        self._kept = np.empty(0, dtype=np.uint64)
        self._near = np.empty((len(self._cuts), 0), dtype=np.uint64)
        # One place more than groups, see group_candidates.
        self._groups = np.zeros(((2 * half_reach + 1) << mid) + 2, dtype=np.int64)
        self._occupied = np.zeros(reach + 1, dtype=np.uint64)
        self._fresh_mids = np.empty(1 << (mid + low), dtype=np.int32)
        self._fresh_lows = np.empty(1 << (mid + low), dtype=np.int32)
        self._free = np.zeros(int(self._num_limbs.max()), dtype=np.uint64)
        self._grow()

    @property
    def finished(self) -> bool:
        """Whether no word is left to decide."""
        return int(self._state[0]) >= 1 << self._split.top

    @property
    def num_kept(self) -> int:
        """The size of G so far."""
        return int(self._state[2])

    @property
    def num_done(self) -> int:
        """How many words of the enumeration are decided: those below the next top."""
        bound = int(self._state[0]) << (self._split.mid + self._split.low)
        if bound >= 1 << self._length:
            return math.comb(self._length, self._act)
        count, ones = 0, 0
        for position in range(self._length - 1, -1, -1):
            # The words that agree with the bound above this one of its bits and have a zero there.
            if bound >> position & 1 and ones <= self._act:
                count += math.comb(position, self._act - ones)
                ones += 1
        return count

    def words(self) -> NDArray[np.uint64]:
        """G so far, (|G|,) uint64, ascending."""
        return self._kept[: self.num_kept].copy()

    def advance(self, num_tops: int) -> None:
        """Decide the words of up to ``num_tops`` tops, making room first."""
        from codedtool.coding import lexicode_kernels

        if self.num_kept + len(self._fresh_lows) > len(self._kept):
            self._grow()
        lexicode_kernels.advance(
            num_tops,
            self._act,
            self._half_reach,
            self._split.low,
            self._split.mid,
            self._split.top,
            self._members,
            self._members_start,
            self._num_limbs,
            self._balls,
            self._balls_start,
            self._half_radii,
            self._steps,
            self._rings,
            self._cuts,
            self._state,
            self._near_counts,
            self._kept,
            self._near,
            self._scratch,
            self._groups,
            self._occupied,
            self._fresh_mids,
            self._fresh_lows,
            self._free,
        )

    def _fill_balls(self) -> None:
        from codedtool.coding import lexicode_kernels

        low = self._split.low
        lightest, heaviest = max(0, self._act - (self._length - low)), min(low, self._act)
        weights = np.arange(low + 1)
        reachable = (weights >= lightest) & (weights <= heaviest)
        sizes = np.where(reachable, (self._num_radii << low) * self._num_limbs, 0)
        self._balls_start = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        self._balls = np.zeros(int(self._balls_start[-1]), dtype=np.uint64)
        lexicode_kernels.fill_balls(
            low,
            lightest,
            heaviest,
            self._num_radii,
            self._members,
            self._members_start,
            self._num_limbs,
            self._balls_start,
            self._balls,
        )

    def _grow(self) -> None:
        """Double the room for kept words, up to `MAX_WORDS` and one top's worth, which is the most that a top adds."""
        old = self.num_kept
        capacity = min(2 * old, MAX_WORDS) + len(self._fresh_lows)
        kept = np.empty(capacity, dtype=np.uint64)
        kept[:old] = self._kept[:old]
        near = np.empty((len(self._cuts), capacity), dtype=np.uint64)
        near[:, :old] = self._near[:, :old]
        self._kept, self._near = kept, near
        self._scratch = np.empty((3, capacity), dtype=np.int32)


@cache
def _compile() -> None:
    """Compile or load every kernel, on the smallest enumeration there is."""
    _Enumeration(2, 1, 2).advance(1)
