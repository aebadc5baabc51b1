"""CP-SAT (OR-Tools) where the balance engine stays uneven: K of G, or K of all words, with exactly even columns.

Both searches are feasibility problems over one boolean per word. What bounds them is CP-SAT's deterministic time and
one worker, so that the answer does not depend on the machine; whatever the solver says is checked in numpy before it
is believed.
"""

from __future__ import annotations

import enum
import threading
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from codedtool.budget import Budget, Progress, silent
from codedtool.coding.words import distance_histogram, words_to_table

if TYPE_CHECKING:
    from ortools.sat.python.cp_model import CpModel

_POLL_SECONDS = 0.1

# Deterministic time for fewer pairs at H_min once a scheme is there: a nicety, not worth a minute.
_FEWER_PAIRS_LIMIT = 2.0


class RefineStatus(enum.Enum):
    """How a search ended."""

    FOUND = "found"
    PROVED_IMPOSSIBLE = "proved impossible"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class RefineResult:
    """How a search ended and, when it found something, the positions (K,) of the chosen words, ascending."""

    status: RefineStatus
    indices: NDArray[np.int64] | None = None


def refine_selection(
    words: NDArray[np.uint64],
    length: int,
    act: int,
    num_classes: int,
    *,
    spread: int,
    hint: NDArray[np.int64] | None = None,
    seed: int,
    budget: Budget,
    progress: Progress = silent,
    deterministic_limit: float,
) -> RefineResult:
    """Choose K of ``words`` (already far enough apart) with S_max - S_min <= ``spread``, or prove that none exist.

    Args:
        words: (M,) uint64, each with ``act`` ones.
        length: N.
        act: N_act.
        num_classes: K <= M.
        spread: 0 (needs rK to be an integer) or 1: each column sum is rK rounded down or up.
        hint: positions of a near solution to start from.
        seed: of CP-SAT's random choices.
        budget: polled ten times a second.
        progress: told the phase "CP-SAT".
        deterministic_limit: CP-SAT's deterministic time, in its own unit of about a second.
    """
    model, chosen = _balanced_choice(words, length, act, num_classes, spread)
    if hint is not None:
        hinted = set(hint.tolist())
        for position, variable in enumerate(chosen):
            model.add_hint(variable, position in hinted)
    result = _solve(model, chosen, seed, deterministic_limit, budget, progress)
    if result.indices is not None and not _is_balanced(words[result.indices], length, num_classes, spread):
        return RefineResult(RefineStatus.UNKNOWN)
    return result


def search_all_words(
    length: int,
    act: int,
    min_distance: int,
    num_classes: int,
    *,
    spread: int,
    seed: int,
    budget: Budget,
    progress: Progress = silent,
    deterministic_limit: float,
) -> NDArray[np.uint64] | None:
    """K of all C(N, N_act) words at distance >= H_min with S_max - S_min <= ``spread``: the paper's brute force.

    Two words of weight w are closer than H_min exactly when they share more than w - H_min/2 ones, so "at most one
    chosen word holds any given w - H_min/2 + 1 columns" says rule C with large cliques instead of pairs. Once a
    scheme is found, the pairs at exactly H_min are minimised for a short while, unless they are the fewest possible.

    Args:
        length, act, min_distance, num_classes: N, N_act, H_min (even) and K; C(N, N_act) at most a few thousand.
        spread: as in `refine_selection`.
        seed, budget, progress, deterministic_limit: as in `refine_selection`.

    Returns:
        (K,) uint64 ascending, or None when none were found within the limits or none exist.
    """
    words = _all_words(length, act)
    table_MN = words_to_table(words, length)
    model, chosen = _balanced_choice(words, length, act, num_classes, spread)
    shared = act - min_distance // 2 + 1
    for columns in combinations(range(length), shared):
        model.add_at_most_one(chosen[v] for v in np.flatnonzero(table_MN[:, columns].all(axis=1)))
    # Permuting columns maps schemes to schemes, so one word may be taken for granted.
    model.add(chosen[0] == 1)

    def checked(result: RefineResult) -> NDArray[np.uint64] | None:
        found = None if result.indices is None else words[result.indices]
        if found is None or not _is_balanced(found, length, num_classes, spread):
            return None
        return found if min(distance_histogram(found)) >= min_distance else None

    found = checked(_solve(model, chosen, seed, deterministic_limit, budget, progress))
    if found is None or _fewest_pairs(found, length, min_distance) == distance_histogram(found).get(min_distance, 0):
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
    fewer = checked(_solve(model, chosen, seed, min(_FEWER_PAIRS_LIMIT, deterministic_limit), budget, progress))
    return found if fewer is None else fewer


def _all_words(length: int, act: int) -> NDArray[np.uint64]:
    """All C(N, N_act) words, ascending."""
    return np.array(sorted(sum(1 << bit for bit in bits) for bits in combinations(range(length), act)), dtype=np.uint64)


def _balanced_choice(
    words: NDArray[np.uint64], length: int, act: int, num_classes: int, spread: int
) -> tuple[CpModel, list[Any]]:
    """A model of one boolean per word, exactly K of them true, every column sum within ``spread`` of even."""
    from ortools.sat.python import cp_model

    model = cp_model.CpModel()
    chosen = [model.new_bool_var("") for _ in range(len(words))]
    model.add(sum(chosen) == num_classes)
    low = num_classes * act // length
    for column_M in words_to_table(words, length).T:
        model.add_linear_constraint(sum(chosen[v] for v in np.flatnonzero(column_M)), low, low + spread)
    return model, chosen


def _solve(
    model: CpModel, chosen: list[Any], seed: int, deterministic_limit: float, budget: Budget, progress: Progress
) -> RefineResult:
    """Solve on one worker in a thread of its own, so that the budget can stop it and Ctrl-C is heard at once."""
    from ortools.sat.python import cp_model

    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.random_seed = seed % (1 << 31)
    solver.parameters.max_deterministic_time = deterministic_limit
    solver.parameters.catch_sigint_signal = False
    statuses: list[Any] = []
    stopped = False
    thread = threading.Thread(target=lambda: statuses.append(solver.solve(model)), daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            progress("CP-SAT", 0, None, f"{len(chosen)} words, one worker")
            if budget.stop_reason() is not None:
                stopped = True
                solver.stop_search()
            thread.join(_POLL_SECONDS)
    except KeyboardInterrupt:
        solver.stop_search()
        raise
    status = statuses[0]
    if status in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        values = np.array([solver.boolean_value(variable) for variable in chosen])
        return RefineResult(RefineStatus.FOUND, np.flatnonzero(values))
    if status == cp_model.INFEASIBLE and not stopped:
        return RefineResult(RefineStatus.PROVED_IMPOSSIBLE)
    return RefineResult(RefineStatus.UNKNOWN)


def _fewest_pairs(words: NDArray[np.uint64], length: int, min_distance: int) -> int:
    """How many pairs at H_min any scheme with these column sums has at least.

    The sums fix the sum of all distances, and every pair that is not at H_min is at H_min + 2 or more.
    """
    sums_N = words_to_table(words, length).sum(axis=0, dtype=np.int64)
    sum_of_distances = int((sums_N * (len(words) - sums_N)).sum())
    num_pairs = len(words) * (len(words) - 1) // 2
    return max(0, -((sum_of_distances - (min_distance + 2) * num_pairs) // 2))


def _is_balanced(words: NDArray[np.uint64], length: int, num_classes: int, spread: int) -> bool:
    """Whether these are K words with even columns, counted again: a stopped CP-SAT has reported more than it had."""
    sums_N = words_to_table(words, length).sum(axis=0, dtype=np.int64)
    return len(words) == num_classes and bool(sums_N.max() - sums_N.min() <= spread)
