"""The paper's brute force (appendix A): K of all C(N, N_act) words at once, by CP-SAT."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from codedtool.budget import Work
from codedtool.coding.problem import Problem
from codedtool.coding.solvers.candidate import Candidate, Findings
from codedtool.coding.solvers.cp_sat import DETERMINISTIC_LIMIT, CpSatResult, even_choice_model, is_even, solve
from codedtool.coding.words import distance_histogram, words_to_table

# CP-SAT's deterministic time for fewer pairs at H_min once a scheme is there: a nicety, not worth a minute.
_FEWER_PAIRS_LIMIT = 2.0


def choose_from_all_words(problem: Problem, work: Work, findings: Findings) -> Candidate | None:
    """Solver: `search_all_words` as a candidate."""
    with work.stopwatch.timed("select"):
        found = search_all_words(problem, work)
    return None if found is None else Candidate(found, "all words", "CP-SAT")


def search_all_words(problem: Problem, work: Work) -> NDArray[np.uint64] | None:
    """K of all C(N, N_act) words at distance >= H_min with columns as even as K words can have.

    Two words of weight w are closer than H_min exactly when they share more than w - H_min/2 ones, so "at most one
    chosen word holds any given w - H_min/2 + 1 columns" states rule C with large cliques instead of pairs. Once a
    scheme is found, the pairs at exactly H_min are minimised for a short while, unless they are the fewest possible.

    Args:
        problem: C(N, N_act) is at most a few thousand.
        work: its progress is told the phase "CP-SAT"; its budget is polled ten times a second.

    Returns:
        (K,) uint64 ascending, or None if none were found within the limits or none exist.
    """
    words = _all_words(problem.length, problem.act)
    table_MN = words_to_table(words, problem.length)
    model, chosen = even_choice_model(words, problem)
    shared = problem.shared_at_min + 1
    for columns in combinations(range(problem.length), shared):
        model.add_at_most_one(chosen[v] for v in np.flatnonzero(table_MN[:, columns].all(axis=1)))
    # Permuting columns maps schemes to schemes, so one word may be taken for granted.
    model.add(chosen[0] == 1)

    def checked(result: CpSatResult) -> NDArray[np.uint64] | None:
        found = None if result.indices is None else words[result.indices]
        if found is None or not is_even(found, problem):
            return None
        return found if min(distance_histogram(found)) >= problem.min_distance else None

    found = checked(solve(model, chosen, work, DETERMINISTIC_LIMIT))
    if found is None or _fewest_pairs(found, problem) == distance_histogram(found).get(problem.min_distance, 0):
        return found
    for variable, taken in zip(chosen, np.isin(words, found).tolist(), strict=True):
        model.add_hint(variable, taken)
    at_min = np.bitwise_count(words[:, None] & words[None, :]) == shared - 1
    pairs = []
    for one, other in np.argwhere(np.triu(at_min, 1)).tolist():
        both = model.new_bool_var("")
        model.add_bool_or(~chosen[one], ~chosen[other], both)
        pairs.append(both)
    model.minimize(sum(pairs))
    fewer = checked(solve(model, chosen, work, _FEWER_PAIRS_LIMIT))
    return found if fewer is None else fewer


def _all_words(length: int, act: int) -> NDArray[np.uint64]:
    """All C(N, N_act) words, ascending."""
    return np.array(sorted(sum(1 << bit for bit in bits) for bits in combinations(range(length), act)), dtype=np.uint64)


def _fewest_pairs(words: NDArray[np.uint64], problem: Problem) -> int:
    """How many pairs at H_min any scheme with these column sums has at least.

    The sums fix the sum of all distances, and every pair that is not at H_min is at H_min + 2 or more.
    """
    sums_N = words_to_table(words, problem.length).sum(axis=0, dtype=np.int64)
    sum_of_distances = int((sums_N * (len(words) - sums_N)).sum())
    num_pairs = len(words) * (len(words) - 1) // 2
    return max(0, -((sum_of_distances - (problem.min_distance + 2) * num_pairs) // 2))
