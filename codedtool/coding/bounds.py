"""Upper bounds on A(N, H_min, N_act), the largest number of N-bit words of weight N_act at pairwise distance >= H_min.

Three bounds, each true by itself: Johnson's recursion, the same recursion with pair counting at every step, and
Delsarte's linear programme (`codedtool.coding.delsarte`). Whole numbers and fractions only, so none is ever too low.
Words of equal weight lie at even distances: an odd H_min means the even number above it.
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from math import comb
from typing import Literal

from codedtool.coding.words import MAX_LENGTH
from codedtool.errors import InfeasibleError, InputError

BoundSource = Literal["all words", "Johnson", "pair counting", "Delsarte"]


@dataclass(frozen=True)
class UpperBound:
    """How many words of weight ``act`` there can be at most, by each method.

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
    """The most words of ``length`` bits and weight ``act`` that can lie at pairwise distance >= ``min_distance``.

    Args:
        length: N, 2 to 64.
        act: N_act, 0 < N_act < N.
        min_distance: H_min >= 2; odd means the even number above.
        delsarte: whether to solve Delsarte's programme too (imports OR-Tools; at most about 0.3 s, at N = 64).

    Raises:
        InputError: an argument is not a whole number or is outside its range.
    """
    length, act = _checked_length(length, act)
    min_distance = _whole("min_distance", min_distance)
    if min_distance < 2:
        raise InputError(f"min_distance must be at least 2, the least for words of equal weight; not {min_distance}")
    half = (min_distance + 1) // 2
    johnson = _recursion(length, act, half, False)
    pair_counting = _recursion(length, act, half, True)
    value: Fraction | None = None
    if delsarte and 2 <= half <= min(act, length - act):
        from codedtool.coding.delsarte import delsarte_certificate

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
    """`upper_bound` for every even H_min from 2 to 2 min(act, length - act), beyond which no two words exist.

    Raises:
        InputError: as `upper_bound`.
    """
    length, act = _checked_length(length, act)
    return [upper_bound(length, act, 2 * half) for half in range(1, min(act, length - act) + 1)]


def highest_possible_distance(num_classes: int, length: int, act: int) -> int:
    """The highest even H_min whose upper bound leaves room for ``num_classes`` words.

    A scheme with this H_min has the highest there can be; whether one exists the bounds do not say.
    For one class alone it is the largest distance of two words, 2 min(act, length - act).

    Raises:
        InputError: as `upper_bound`, or ``num_classes`` < 1.
        InfeasibleError: ``num_classes`` exceeds C(length, act), the number of all words.
    """
    length, act = _checked_length(length, act)
    num_classes = _whole("num_classes", num_classes)
    if num_classes < 1:
        raise InputError(f"num_classes must be at least 1, not {num_classes}")
    if num_classes > comb(length, act):
        raise InfeasibleError(
            f"num_classes = {num_classes} exceeds C({length}, {act}) = {comb(length, act)}, the number of words of "
            f"{length} bits with {act} ones: raise the length, or bring act closer to half of it"
        )
    half = min(act, length - act)
    # The recursion costs microseconds, so Delsarte's programme is solved only where it leaves the question open.
    while (
        upper_bound(length, act, 2 * half, delsarte=False).best < num_classes
        or upper_bound(length, act, 2 * half).best < num_classes
    ):
        half -= 1
    return 2 * half


@cache
def _recursion(length: int, act: int, half: int, counting: bool) -> int:
    """Johnson's recursion for N = ``length``, w = ``act``, H = 2 ``half``; ``counting``: with `_pair_counting`.

    Without column i, the words with a one there are a code of length N-1 and weight w-1, and the rest one of weight w.
    So M words have at most N A(N-1, H, w-1) ones, which are Mw, and at most N A(N-1, H, w) zeros, which are M(N-w):
    A(N, H, w) <= floor(N/w A(N-1, H, w-1)) and A(N, H, w) <= floor(N/(N-w) A(N-1, H, w)).
    (S. Johnson, A new upper bound for error-correcting codes, IRE Trans. IT 8, 1962.)
    """
    weight = min(act, length - act)  # complementing every word keeps all distances
    if half > weight:
        return 1
    if half == 1:
        return comb(length, weight)
    if half == weight:
        return length // weight  # the words' ones are disjoint
    bound = min(
        length * _recursion(length - 1, weight - 1, half, counting) // weight,
        length * _recursion(length - 1, weight, half, counting) // (length - weight),
    )
    counted = _pair_counting(length, weight, half) if counting else None
    return bound if counted is None else min(bound, counted)


def _pair_counting(length: int, act: int, half: int) -> int | None:
    """The most words for which the distances of all pairs can add up, or None where they always can.

    Let M words have column sums k_1..k_N. Column i separates k_i (M - k_i) pairs, so the M(M-1)/2 distances add up to
    sum_i k_i (M - k_i), which must reach M(M-1)/2 H = M(M-1) ``half``. The sum of the k_i is Mw, and the concave sum is
    largest when they are as equal as whole numbers can be: r columns of q+1 and N-r of q, with Mw = qN + r. Where even
    that falls short there is no code of M words, nor one of more, as M of its words would be a code. The bound is
    therefore one below the first M that falls short.

    Were the k_i equal, the sum would be M^2 w(N-w)/N. If ``half`` N > w(N-w), that is too small as soon as
    M > ``half`` N / (``half`` N - w(N-w)), which ends the search. Otherwise it never is, and rounding, which takes off
    at most N/4, could matter for M < N/(4 ``half``) only; a test finds that at N <= 64 it never does.
    (S. Johnson's second bound; F. MacWilliams, N. Sloane, The Theory of Error-Correcting Codes, 1977, chapter 17.)
    """
    excess = half * length - act * (length - act)
    if excess <= 0:
        return None
    num_words = 1
    while _pairs_add_up(num_words + 1, length, act, half):
        num_words += 1
    return num_words


def _pairs_add_up(num_words: int, length: int, act: int, half: int) -> bool:
    """Whether ``num_words`` words with column sums as equal as possible have distances of mean >= 2 * ``half``."""
    low, num_high = divmod(num_words * act, length)
    separated = (length - num_high) * low * (num_words - low) + num_high * (low + 1) * (num_words - low - 1)
    return separated >= num_words * (num_words - 1) * half


def _checked_length(length: int, act: int) -> tuple[int, int]:
    length, act = _whole("length", length), _whole("act", act)
    if not 2 <= length <= MAX_LENGTH:
        raise InputError(f"length must be from 2 to {MAX_LENGTH}, not {length}")
    if not 0 < act < length:
        raise InputError(f"act must be from 1 to length - 1 = {length - 1}, not {act}")
    return length, act


def _whole(name: str, value: int) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise InputError(f"{name} must be a whole number, not {value!r}") from None


def _float_above(value: Fraction) -> float:
    nearest = float(value)
    return nearest if nearest >= value else math.nextafter(nearest, math.inf)
