"""The problem that a solver is given: how many codewords of which kind, at which distance."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

from codedtool.coding.arguments import checked_distance, checked_length_and_act, checked_num_classes
from codedtool.coding.bounds import UpperBound, highest_possible_distance, upper_bound
from codedtool.coding.scheme import best_spread
from codedtool.errors import InfeasibleError


@dataclass(frozen=True)
class Problem:
    """Find K codewords of length N and weight N_act at pairwise distance >= H_min, with even columns.

    Checked once, at construction, and then trusted.

    Args:
        num_classes: K, at least 2.
        length: N, 2..64.
        act: N_act, the ones of a codeword, 1..N-1.
        min_distance: H_min, at least 2; an odd value becomes the even one above it, because words of one weight lie at
            even distances.

    Raises:
        InputError: an argument is no whole number or out of its range.

    >>> problem = Problem(num_classes=10, length=10, act=3, min_distance=4)
    >>> problem.num_words, problem.best_spread, problem.bound.best
    (120, 0, 13)
    """

    num_classes: int
    length: int
    act: int
    min_distance: int

    def __post_init__(self) -> None:
        length, act = checked_length_and_act(self.length, self.act)
        values = {
            "num_classes": checked_num_classes(self.num_classes),
            "length": length,
            "act": act,
            "min_distance": checked_distance(self.min_distance),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    def num_words(self) -> int:
        """C(N, N_act), the number of all words of the length and weight."""
        return math.comb(self.length, self.act)

    @property
    def best_spread(self) -> int:
        """The smallest S_max - S_min that K words can have: 0 or 1."""
        return best_spread(self.num_classes, self.length, self.act)

    @property
    def shared_at_min(self) -> int:
        """How many ones two words at distance H_min share; words that share more are too close."""
        return self.act - self.min_distance // 2

    @cached_property
    def bound(self) -> UpperBound:
        """Upper bounds on the number of words at pairwise distance >= H_min."""
        return upper_bound(self.length, self.act, self.min_distance)

    @property
    def likelihood(self) -> float:
        """How likely a search is to find K words, 0..1: by where log K lies between two bounds on how many there are.

        It is 1 up to Gilbert's lower bound (1952), the number of all words over that of the words closer than H_min to
        one, which every greedy search reaches; and 0 from the upper bound on.
        """
        weight = min(self.act, self.length - self.act)
        near = range(self.min_distance // 2)
        ball = sum(math.comb(weight, i) * math.comb(self.length - weight, i) for i in near)
        if self.num_classes * ball <= self.num_words:
            return 1.0
        if self.num_classes >= self.bound.best:
            return 0.0
        return math.log(self.bound.best / self.num_classes) / math.log(self.bound.best * ball / self.num_words)

    def with_classes(self, num_classes: int) -> Problem:
        """The same problem for ``num_classes`` codewords."""
        return replace(self, num_classes=num_classes)

    def at_each_distance(self) -> Iterator[Problem]:
        """The same problem at every even H_min, from the highest that the bounds do not exclude down to 2."""
        highest = highest_possible_distance(self.num_classes, self.length, self.act)
        for distance in range(highest, 0, -2):
            yield replace(self, min_distance=distance)

    def check_number_of_words(self) -> None:
        """Raise InfeasibleError if there are fewer than K words at all."""
        if self.num_words < self.num_classes:
            raise InfeasibleError(
                f"K={self.num_classes} distinct codewords cannot exist: C({self.length}, {self.act}) = "
                f"{self.num_words}; lower `num_classes`, or change `length` or `act`"
            )

    def check_bound(self) -> None:
        """Raise InfeasibleError if an upper bound excludes K words at this distance."""
        bound = self.bound
        if bound.best < self.num_classes:
            raise InfeasibleError(
                f"K={self.num_classes} codewords of length N={self.length} with {self.act} ones each cannot all be "
                f"{self.min_distance} or more apart: at most {bound.best} can ({bound.source} bound); "
                "lower `min_distance` or `num_classes`, or raise `length`"
            )
