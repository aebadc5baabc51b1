"""Upper bounds on A(N, H_min, N_act), the largest number of N-bit words of weight N_act at pairwise distance >= H_min.

There are three bounds, and each holds by itself: Johnson's recursion, the same recursion with pair counting at every
step (both in `codedtool.coding.bounds.johnson`), and Delsarte's linear programme (`codedtool.coding.bounds.delsarte`).
They are computed in whole numbers and fractions, so rounding never makes one too low.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from math import comb
from typing import Literal

from codedtool.coding.arguments import checked_distance, checked_length_and_act, checked_num_classes
from codedtool.coding.bounds.johnson import johnson_bound
from codedtool.errors import InfeasibleError

BoundSource = Literal["all words", "Johnson", "pair counting", "Delsarte"]


@dataclass(frozen=True)
class UpperBound:
    """The most words of weight N_act that can exist at a distance, by each method.

    Attributes:
        length, act: N and N_act.
        min_distance: H_min, rounded up to an even number.
        johnson: Johnson's recursion alone.
        pair_counting: Johnson's recursion with pair counting at every step; never above ``johnson``.
        delsarte: Delsarte's bound rounded down, or None where it was not asked for or the count is exact without it
            (H_min = 2, and H_min > 2 min(N_act, N - N_act)).
        delsarte_value: that bound before it is rounded down, as the next float not below it.
        best: the smallest of them.
        source: the first method, in the order given here, that reaches ``best``; "all words" where H_min = 2.
    """

    length: int
    act: int
    min_distance: int
    johnson: int
    pair_counting: int
    delsarte: int | None
    delsarte_value: float | None
    best: int
    source: BoundSource


def upper_bound(length: int, act: int, min_distance: int, *, delsarte: bool = True) -> UpperBound:
    """Upper bounds on the number of words of N bits and weight N_act at pairwise distance >= H_min.

    >>> bound = upper_bound(length=10, act=3, min_distance=4)
    >>> bound.best, bound.source
    (13, 'Johnson')

    Args:
        length: N, 2 to 64.
        act: N_act, 0 < N_act < N.
        min_distance: H_min >= 2; odd means the even number above.
        delsarte: whether to solve Delsarte's programme too, which takes up to 0.1 s (at N = 64, N_act = 32).

    Raises:
        InputError: an argument is not a whole number or is outside its range.
    """
    length, act = checked_length_and_act(length, act)
    return _upper_bound(length, act, checked_distance(min_distance) // 2, delsarte)


@cache
def _upper_bound(length: int, act: int, half: int, delsarte: bool) -> UpperBound:
    """`upper_bound` at H_min = 2 ``half``; kept, because a search asks for the same bounds several times."""
    johnson = johnson_bound(length, act, half, False)
    pair_counting = johnson_bound(length, act, half, True)
    value: Fraction | None = None
    if delsarte and 2 <= half <= min(act, length - act):
        from codedtool.coding.bounds.delsarte import delsarte_certificate

        value = delsarte_certificate(length, act, 2 * half).value
    bounds: dict[BoundSource, int] = {"Johnson": johnson, "pair counting": pair_counting}
    if half == 1:
        bounds = {"all words": johnson}
    elif value is not None:
        bounds["Delsarte"] = math.floor(value)
    source = min(bounds, key=lambda name: bounds[name])
    return UpperBound(
        length=length,
        act=act,
        min_distance=2 * half,
        johnson=johnson,
        pair_counting=pair_counting,
        delsarte=None if value is None else math.floor(value),
        delsarte_value=None if value is None else _float_above(value),
        best=bounds[source],
        source=source,
    )


def bounds_table(length: int, act: int) -> list[UpperBound]:
    """`upper_bound` for every even H_min from 2 to 2 min(act, length - act); no two words are further apart.

    >>> [(row.min_distance, row.best) for row in bounds_table(length=10, act=3)]
    [(2, 120), (4, 13), (6, 3)]

    Args:
        length: N, 2 to 64.
        act: N_act, 0 < N_act < N.

    Raises:
        InputError: as `upper_bound`.
    """
    length, act = checked_length_and_act(length, act)
    return [upper_bound(length, act, 2 * half) for half in range(1, min(act, length - act) + 1)]


def highest_possible_distance(num_classes: int, length: int, act: int) -> int:
    """The highest even H_min whose upper bound leaves room for ``num_classes`` words.

    A scheme with this H_min has the highest one possible. The bounds do not say whether such a scheme exists.
    For ``num_classes`` = 1 it is the largest distance of two words, 2 min(act, length - act).

    Raises:
        InputError: as `upper_bound`, or ``num_classes`` < 1.
        InfeasibleError: ``num_classes`` exceeds C(length, act), the number of all words.
    """
    length, act = checked_length_and_act(length, act)
    num_classes = checked_num_classes(num_classes, least=1)
    if num_classes > comb(length, act):
        raise InfeasibleError(
            f"`num_classes` is {num_classes}, more than the C({length}, {act}) = {comb(length, act)} words of {length} "
            f"bits with {act} ones; raise `length`, or bring `act` closer to half of it"
        )
    half = min(act, length - act)
    # The recursion costs microseconds, so Delsarte's programme is solved only where it leaves the question open.
    while (
        upper_bound(length, act, 2 * half, delsarte=False).best < num_classes
        or upper_bound(length, act, 2 * half).best < num_classes
    ):
        half -= 1
    return 2 * half


def _float_above(value: Fraction) -> float:
    nearest = float(value)
    return nearest if nearest >= value else math.nextafter(nearest, math.inf)
