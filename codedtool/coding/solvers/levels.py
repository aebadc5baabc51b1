"""Column sums to aim for when codewords are chosen beside others that stay: as even as all together can be."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from codedtool.coding.problem import Problem


@dataclass(frozen=True)
class Levels:
    """Sums of the new words' columns that make all columns together as even as possible.

    Attributes:
        base_N: (N,) int64, column sums of the words that stay.
        low_N, high_N: (N,) int64, the least and the largest sum of a column of the new words.
        remainder: how many of the columns with room between the two must hold the larger sum.
        best_spread: the smallest possible S_max - S_min of all words together.
    """

    base_N: NDArray[np.int64]
    low_N: NDArray[np.int64]
    high_N: NDArray[np.int64]
    remainder: int
    best_spread: int

    @property
    def mean_sums(self) -> NDArray[np.int64]:
        """(N,) int64, N times the mean sum that each column aims for, rounded down."""
        length = len(self.low_N)
        room_N = self.high_N - self.low_N
        share = self.remainder * length // int(room_N.sum()) if self.remainder else 0
        return length * self.low_N + share * room_N

    def goal(self, sums_N: NDArray[np.int64]) -> NDArray[np.int64]:
        """The even column sums nearest to ``sums_N``: the fullest of the columns with room get the remainder."""
        goal_N = self.low_N.copy()
        with_room = np.flatnonzero(self.high_N > self.low_N)
        fullest = np.argsort((self.low_N - sums_N)[with_room], kind="stable")[: self.remainder]
        goal_N[with_room[fullest]] += 1
        return goal_N


def levels_of(problem: Problem) -> Levels:
    """The levels of K words on their own: every column sum is rK rounded down or up."""
    return levels_beside(np.zeros(problem.length, dtype=np.int64), problem.num_classes, problem.act)


def levels_beside(base_N: NDArray[np.int64], num_new: int, act: int) -> Levels:
    """The levels of ``num_new`` words of weight N_act beside words with the column sums ``base_N``.

    The new ones go where the sums are least, like water, but no column takes more than one from each word. No other
    sums have a larger minimum or a smaller maximum (they majorize these: Marshall and Olkin 1979), and words with
    these sums exist (Gale 1957, Ryser 1957), though not always at the distance asked for.

    >>> levels = levels_beside(np.array([3, 0, 0, 0]), num_new=2, act=2)
    >>> levels.low_N.tolist(), levels.high_N.tolist(), levels.remainder, levels.best_spread
    ([0, 1, 1, 1], [0, 2, 2, 2], 1, 2)
    """
    total = num_new * act

    def filled(level: int) -> NDArray[np.int64]:
        return np.clip(level - base_N, 0, num_new)

    low, high = int(base_N.min()), int(base_N.max()) + num_new
    while low < high:
        middle = (low + high + 1) // 2
        if filled(middle).sum() <= total:
            low = middle
        else:
            high = middle - 1
    low_N = filled(low)
    remainder = total - int(low_N.sum())
    sums_N = base_N + low_N
    highest = max(int(sums_N.max()), low + 1) if remainder else int(sums_N.max())
    high_N = filled(low + 1) if remainder else low_N
    return Levels(base_N, low_N, high_N, remainder, highest - int(sums_N.min()))
