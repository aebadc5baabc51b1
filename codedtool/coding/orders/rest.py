"""Ordering only the last rows of a scheme against others: those that an extension has added."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from codedtool.budget import StopReason, Work
from codedtool.coding.bounds.joint import joint_bound
from codedtool.coding.orders.pairing import JointOrder, joint_distance_histogram
from codedtool.coding.result import SchemeResult
from codedtool.coding.scheme import CodingScheme

# Swaps of two rows that are tried, and how many between two looks at the budget.
_SWAPS = 40_000
_SLICE = 500


def order_rest(result: SchemeResult, num_fixed: int, companions: Sequence[CodingScheme], work: Work) -> SchemeResult:
    """``result`` with its rows from ``num_fixed`` on in an order that keeps no two classes close in all stages.

    Hill climbing: a swap of two rows stays unless it raises the sum of a weight of all pairs of classes that falls
    so fast with their joint distance that the closest pairs dominate it. Without companions the result is returned
    as it is.
    """
    if not companions:
        return result
    start = time.monotonic()
    stopped: StopReason | None = None
    scheme = result.scheme
    num_classes = scheme.num_classes
    work.progress("ordering rows", 0, _SWAPS, "the new rows")
    own_K, others_SK = scheme.words, [other.words for other in companions]
    # A pair two digits closer weighs more than all pairs of two classes together.
    farthest = scheme.length + sum(other.length for other in companions)
    weight_of = (2.0 * num_classes) ** (-np.arange(farthest + 1) / 2)
    order = np.arange(num_classes)
    random = np.random.default_rng(work.seed)
    num_swaps = _SWAPS if num_classes - num_fixed > 1 else 0
    for swap in range(num_swaps):
        if swap % _SLICE == 0:
            work.progress("ordering rows", swap, num_swaps, "the new rows")
            stopped = work.stop_reason()
            if stopped is not None:
                break
        one, other = num_fixed + random.choice(num_classes - num_fixed, 2, replace=False)
        before = _cost(order, one, other, own_K, others_SK, weight_of)
        order[[one, other]] = order[[other, one]]
        if _cost(order, one, other, own_K, others_SK, weight_of) > before:
            order[[one, other]] = order[[other, one]]
    ordered = CodingScheme(scheme.table[order])
    given = joint_distance_histogram([scheme, *companions])
    histogram = joint_distance_histogram([ordered, *companions])
    if _figures(histogram) < _figures(given):
        order, ordered, histogram = np.arange(num_classes), scheme, given
    joint = JointOrder(
        scheme=ordered,
        permutation=order,
        histogram=histogram,
        given_histogram=given,
        bound=joint_bound(scheme, companions, work),
        exhausted=False,
        seed=work.seed,
        seconds=time.monotonic() - start,
        stopped=stopped,
    )
    return replace(
        result,
        scheme=ordered,
        joint=joint,
        stopped=result.stopped or joint.stopped,
        seconds=work.stopwatch.seconds(),
    )


def _cost(
    order: NDArray[np.int64],
    one: int,
    other: int,
    own_K: NDArray[np.uint64],
    others_SK: Sequence[NDArray[np.uint64]],
    weight_of: NDArray[np.float64],
) -> float:
    """The weights of all pairs that one of two classes is in, each with itself left out."""
    total = 0.0
    ordered_K = own_K[order]
    for row in (one, other):
        distances = sum(
            np.bitwise_count(words_K[row] ^ words_K).astype(np.int64) for words_K in (ordered_K, *others_SK)
        )
        weights = weight_of[distances]
        total += float(weights.sum() - weights[row])
    return total


def _figures(histogram: dict[int, int]) -> tuple[int, int]:
    """Smallest joint distance and minus the pairs at it: larger is better."""
    least = min(histogram)
    return least, -histogram[least]
