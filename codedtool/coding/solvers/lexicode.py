"""Algorithm 1's greedy set G (the paper, appendix A), the constant-weight lexicode of Conway and Sloane (1986).

Algorithm 1 goes through the N-bit words of weight N_act in ascending order and keeps a word if its Hamming distance
to every word kept before is at least H_min. The engine decides many words at a time and still returns exactly G:

- Words are cut into blocks that share all but their last 10 or 12 bits. A block is a run of consecutive words (of
  this weight), and blocks are decided in ascending order, so all of G below a block is known when its turn comes.
- A word conflicts with a kept word exactly if it lies in that word's ball of radius H_min - 1. Within a block the ball
  is a precomputed bitset. The balls of the words kept so far are removed from the block, nearest first. A kept word
  is passed over only when its leading bits alone put it too far from every word of the block, and the
  removal ends early only when the block is empty: the words left conflict with no word of G below the block.
- The lowest word left is then the next word of G, its own ball is removed too, and so on until the block is empty.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from codedtool.budget import StopReason, Work
from codedtool.coding.arguments import checked_distance, checked_length_and_act
from codedtool.coding.problem import Problem
from codedtool.coding.solvers.candidate import Candidate, Findings

if TYPE_CHECKING:
    from codedtool.coding.solvers.lexicode_kernels import Balls

# The kernels hold kept words up to four more times: 4 million of them take about 200 MB, and no scheme has as many
# classes.
MAX_WORDS = 1 << 22

# Enumerations from this size on repay the 40 ms and 10 MB that the balls of 12-bit instead of 10-bit ends cost.
_MANY_WORDS = 1 << 22

# Centres whose balls are filled at a time: their distances fit into a processor's cache.
_CENTRES = 128

# Seconds of one slice of work; progress is reported and the budget is polled between slices.
_SLICE = 0.05

# The share of a time limit that algorithm 1 may take when it cannot finish: choosing K of G needs the rest.
_ENUMERATION_SHARE = 0.6


# Where K words of G are wanted, the enumeration ends as out of reach if it has less than this share of them after so
# many words, some seconds of work. G grows more slowly than the words decided.
_REACH_AFTER = 1 << 33
_REACH_SHARE = 1 / 16


@dataclass(frozen=True)
class Lexicode:
    """The greedy set G, or its beginning when the work was stopped.

    Attributes:
        words: (|G|,) uint64, ascending; when stopped, exactly the words of G among the first ``num_done`` words.
        num_words: C(N, N_act), how many words there are to decide.
        num_done: how many of them are decided.
        stopped: why the enumeration ended early, or None. "word limit": G has more than `MAX_WORDS` words.
            "out of reach": the words that are wanted are.
    """

    words: NDArray[np.uint64]
    num_words: int
    num_done: int
    stopped: StopReason | None

    @property
    def complete(self) -> bool:
        """Whether every word was decided, so that ``words`` is all of G."""
        return self.stopped is None

    @property
    def cut_short(self) -> bool:
        """Whether it ended though it might have led somewhere."""
        return self.stopped not in (None, "out of reach")


def first_words(problem: Problem, work: Work, findings: Findings) -> Candidate | None:
    """Solver: enumerate G, put it into ``findings`` for other solvers, and take its first K words.

    Returns None if G is too small, or if there is a candidate already: its columns are more even.
    """
    with work.stopwatch.timed("enumerate"):
        figures = (problem.length, problem.act, problem.min_distance)
        greedy = lexicode(*figures, work.share(_ENUMERATION_SHARE), wanted=problem.num_classes)
    findings.greedy = greedy
    findings.note(greedy.words)
    if findings.best is not None or len(greedy.words) < problem.num_classes:
        return None
    return Candidate(greedy.words[: problem.num_classes], "lexicode", "first words")


def lexicode(
    length: int, act: int, min_distance: int, work: Work | None = None, *, wanted: int | None = None
) -> Lexicode:
    """The greedy set G of algorithm 1 (appendix A), lines 11-16: all words, or those found within the budget.

    Args:
        length: N, 2..64.
        act: N_act, ones per word, 1..N-1.
        min_distance: H_min, at least 2; an odd one means the next even one, because words of one weight lie at even
            distances.
        work: its budget is polled about ten times a second, and the time that compiling takes does not count. Its
            progress is told the phase "enumerating words", the words decided and the size of G so far.
        wanted: how many words are wanted; the enumeration ends where they are out of reach. None: all of G.

    Raises:
        InputError: an argument is not a whole number or out of its range.
    """
    length, act = checked_length_and_act(length, act)
    min_distance = checked_distance(min_distance)
    work = work or Work()
    num_words = math.comb(length, act)
    if compile_kernels.cache_info().currsize == 0:
        work.progress("enumerating words", 0, num_words, "compiling kernels")
        with work.budget.paused():
            compile_kernels()

    enumeration = _Enumeration(length, act, min_distance)
    num_tops = 1
    stopped: StopReason | None = None
    while not enumeration.finished:
        work.progress("enumerating words", enumeration.num_done, num_words, f"|G| = {enumeration.num_kept}")
        stopped = "word limit" if enumeration.num_kept > MAX_WORDS else work.stop_reason()
        if stopped is None and wanted is not None and enumeration.num_kept < _REACH_SHARE * wanted:
            stopped = "out of reach" if enumeration.num_done > _REACH_AFTER else None
        if stopped is not None:
            break
        started = time.monotonic()
        enumeration.advance(num_tops)
        # Where the slices end has no influence on G, so they may follow the clock.
        fitting = num_tops * _SLICE / max(time.monotonic() - started, 1e-9)
        num_tops = max(1, min(2 * num_tops, int(fitting)))
    work.progress("enumerating words", enumeration.num_done, num_words, f"|G| = {enumeration.num_kept}")
    return Lexicode(enumeration.words(), num_words, enumeration.num_done, stopped)


class _Enumeration:
    """The state of one run of algorithm 1 between slices: the kernels' tables, the kept words and the next top."""

    def __init__(self, length: int, act: int, min_distance: int) -> None:
        from codedtool.coding.solvers import lexicode_kernels as kernels

        self._length, self._act = length, act
        low = min(length, 12 if math.comb(length, act) >= _MANY_WORDS else 10)
        # 64 blocks share one sorting of the kept words: of 8 to 64, the fastest on (32, 8, 6) and (32, 16, 10).
        mid = min(length - low, 6)
        self._split = kernels.Split(length - low - mid, mid, low)
        # Words of one weight are at most 2 N_act apart: a larger H_min excludes no more than all of them.
        half_reach = min(min_distance // 2 - 1, act)
        num_radii = min(half_reach, low // 2) + 1
        self._balls = self._filled_balls(num_radii)

        reach = 2 * half_reach
        half_radii = np.minimum((reach - np.arange(reach + mid + 1)) >> 1, num_radii - 1)
        pairs = [(in_top, in_mid) for in_top in range(reach + 1) for in_mid in range(min(mid, reach - in_top) + 1)]
        step_top, step_mid = np.array(sorted(pairs, key=sum), dtype=np.int64).T.copy()
        mids = np.arange(1 << mid, dtype=np.uint64)
        at_distance = np.bitwise_count(mids[:, None] ^ mids)[:, None] == np.arange(mid + 1)[:, None]
        rings = np.where(at_distance, np.uint64(1) << mids, np.uint64(0)).sum(axis=2, dtype=np.uint64)
        self._reach = kernels.Reach(half_reach, half_radii, step_top, step_mid, half_radii[step_top + step_mid], rings)

        self._state = np.zeros(kernels.STATE_SIZE, dtype=np.int64)
        self._state[kernels.LAST_TOP] = -1
        self._block = kernels.Block(
            fresh_mids=np.empty(1 << (mid + low), dtype=np.int32),
            fresh_lows=np.empty(1 << (mid + low), dtype=np.int32),
            free=np.zeros(int(self._balls.num_limbs.max()), dtype=np.uint64),
        )
        cuts = np.array([cut for cut in (32, 16, 8, 4) if cut < self._split.top], dtype=np.int64)
        self._kept = kernels.Kept(
            words=np.empty(0, dtype=np.uint64),
            cuts=cuts,
            near=np.empty((len(cuts), 0), dtype=np.uint64),
            near_counts=np.zeros(len(cuts), dtype=np.int64),
        )
        # One place more than groups, see group_candidates.
        self._group_starts = np.zeros(((reach + 1) << mid) + 2, dtype=np.int64)
        self._occupied = np.zeros(reach + 1, dtype=np.uint64)
        self._grow()

    @property
    def finished(self) -> bool:
        """Whether no word is left to decide."""
        return self._next_top >= 1 << self._split.top

    @property
    def _next_top(self) -> int:
        from codedtool.coding.solvers.lexicode_kernels import NEXT_TOP

        return int(self._state[NEXT_TOP])

    @property
    def num_kept(self) -> int:
        """The size of G so far."""
        from codedtool.coding.solvers.lexicode_kernels import NUM_KEPT

        return int(self._state[NUM_KEPT])

    @property
    def num_done(self) -> int:
        """How many words of the enumeration are decided: those below the next top."""
        bound = self._next_top << (self._split.mid + self._split.low)
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
        return self._kept.words[: self.num_kept].copy()

    def advance(self, num_tops: int) -> None:
        """Decide the words of up to ``num_tops`` tops, making room first."""
        from codedtool.coding.solvers import lexicode_kernels

        if self.num_kept + len(self._block.fresh_lows) > len(self._kept.words):
            self._grow()
        lexicode_kernels.advance(
            num_tops,
            self._act,
            self._split,
            self._balls,
            self._reach,
            self._kept,
            self._groups,
            self._block,
            self._state,
        )

    def _filled_balls(self, num_radii: int) -> Balls:
        """The balls of the low parts that words of this weight can have."""
        from codedtool.coding.solvers import lexicode_kernels

        low = self._split.low
        weights = np.bitwise_count(np.arange(1 << low))
        members_start = np.concatenate([[0], np.cumsum(np.bincount(weights))]).astype(np.int64)
        num_limbs = (np.diff(members_start) + 63) // 64
        lightest, heaviest = max(0, self._act - (self._length - low)), min(low, self._act)
        reachable = (np.arange(low + 1) >= lightest) & (np.arange(low + 1) <= heaviest)
        sizes = np.where(reachable, (num_radii << low) * num_limbs, 0)
        members = np.argsort(weights, kind="stable")
        return lexicode_kernels.Balls(
            members=members.astype(np.int64),
            members_start=members_start,
            num_limbs=num_limbs,
            bits=np.concatenate(
                [
                    _bitsets(members[members_start[weight] : members_start[weight + 1]], low, num_radii)
                    for weight in range(lightest, heaviest + 1)
                ]
            ),
            start=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        )

    def _grow(self) -> None:
        """Double the room for kept words, up to `MAX_WORDS` and one top's worth, which is the most that a top adds."""
        from codedtool.coding.solvers import lexicode_kernels

        old, kept = self.num_kept, self._kept
        capacity = min(2 * old, MAX_WORDS) + len(self._block.fresh_lows)
        words = np.empty(capacity, dtype=np.uint64)
        words[:old] = kept.words[:old]
        near = np.empty((len(kept.cuts), capacity), dtype=np.uint64)
        near[:, :old] = kept.near[:, :old]
        self._kept = kept._replace(words=words, near=near)
        lows, unsorted, unsorted_lows = np.empty((3, capacity), dtype=np.int32)
        self._groups = lexicode_kernels.Groups(self._group_starts, self._occupied, lows, unsorted, unsorted_lows)


def _bitsets(members: NDArray[np.int64], low: int, num_radii: int) -> NDArray[np.uint64]:
    """The balls of every ``low``-bit centre among ``members``, by half the radius and centre, 64 members in a limb."""
    padded = np.zeros(-(-len(members) // 64) * 64, dtype=np.uint16)
    padded[: len(members)] = members
    balls = np.empty((num_radii, 1 << low, len(padded) // 8), dtype=np.uint8)
    for first in range(0, 1 << low, _CENTRES):
        some = slice(first, first + _CENTRES)
        half_distances = np.bitwise_count(np.arange(1 << low, dtype=np.uint16)[some, None] ^ padded) >> 1
        half_distances[:, len(members) :] = num_radii
        for half in range(num_radii):
            balls[half, some] = np.packbits(half_distances <= half, axis=1, bitorder="little")
    return balls.ravel().view("<u8").astype(np.uint64, copy=False)


@cache
def compile_kernels() -> None:
    """Compile or load every kernel, on the smallest enumeration there is."""
    _Enumeration(2, 1, 2).advance(1)
