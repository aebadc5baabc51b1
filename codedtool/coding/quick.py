"""Schemes for an estimate: the highest distance that a few seconds of search show to exist, whatever the columns."""

from __future__ import annotations

from contextlib import suppress
from itertools import combinations, islice

from codedtool.budget import Budget, Work
from codedtool.coding.problem import Problem
from codedtool.coding.result import SearchInterrupted
from codedtool.coding.scheme import CodingScheme
from codedtool.coding.search import find_scheme
from codedtool.coding.shipped import shipped_names
from codedtool.coding.solvers.sampler import sample_words
from codedtool.errors import CodedtoolError

# The share of the seconds left that the search at one distance may take.
_SEARCH_SHARE = 1 / 8

# The largest C(N, N_act) that algorithm 1 enumerates in such a search.
_MOST_ENUMERATED = 20_000_000


def quick_scheme(
    num_classes: int, length: int, act: int, *, highest: int, budget: Budget
) -> tuple[CodingScheme, str | None]:
    """Find K codewords at a high distance: shipped ones, or the best of short searches.

    Args:
        num_classes: K, at most C(N, N_act).
        length: N.
        act: N_act.
        highest: the highest distance to try, such as that of `highest_possible_distance`.
        budget: the time of the searches, which several calls may share.

    Returns:
        The scheme, and its name if it is a shipped scheme.
    """
    # Any K distinct words have distance 2. The first K words of a larger shipped scheme have at least its distance.
    words = islice(combinations(range(length), act), num_classes)
    best = CodingScheme([[int(digit in word) for digit in range(length)] for word in words])
    for name in shipped_names():
        if not name.endswith(f"_{act}of{length}"):
            continue
        shipped = CodingScheme.shipped(name)
        if shipped.num_classes == num_classes:
            return shipped, name
        if shipped.num_classes > num_classes and shipped.min_distance > best.min_distance:
            best = CodingScheme(shipped.table[:num_classes])
    # Bisection: where a distance is found, larger ones are tried.
    low, high = best.min_distance // 2, highest // 2
    while low < high:
        middle = (low + high + 1) // 2
        scheme = _at_distance(Problem(num_classes, length, act, 2 * middle), budget)
        if scheme is None:
            high = middle - 1
        else:
            low, best = max(middle, scheme.min_distance // 2), scheme
    return best, None


def _at_distance(problem: Problem, budget: Budget) -> CodingScheme | None:
    """K codewords at the problem's distance if one of the quick methods finds them in time."""
    budget = budget.share(_SEARCH_SHARE)
    if problem.num_words > _MOST_ENUMERATED:
        # The orbits of groups would find a little more here, but their kernels take ten seconds to compile.
        sample = sample_words(problem, Work(budget=budget))
        if len(sample.words) < problem.num_classes:
            return None
        return CodingScheme.from_words(sample.words, problem.length)
    figures = (problem.num_classes, problem.length, problem.act, problem.min_distance)
    with suppress(CodedtoolError, SearchInterrupted):
        return find_scheme(*figures, method="lexicode", refine="none", budget=budget).scheme
    return None
