"""Rule B for a union of orbits: K words with even columns as whole orbits (CP-SAT), and a few more by balancing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from codedtool.budget import Work
from codedtool.coding.problem import Problem
from codedtool.coding.scheme import best_spread
from codedtool.coding.solvers.balance import select_balanced
from codedtool.coding.solvers.cp_sat import CpSatStatus, run_solver
from codedtool.coding.words import words_to_table

# How many words at least are left to `select_balanced`, in units of N. None at first: one word more than an even union
# has spread 1, and in a linear code, where the odd column sums spell a codeword, hardly anything else has.
_REMAINDERS = (0, 1, 4)

# Choosing whole orbits: kinds of orbits that CP-SAT is asked about, its deterministic time (seconds) and seed.
_MOST_KINDS = 5000
_UNION_LIMIT = 1.0
_UNION_SEED = 1


def choose_even(words: NDArray[np.uint64], orbit: NDArray[np.int64], problem: Problem, work: Work) -> NDArray[np.int64]:
    """K of the words with columns as even as the search finds: whole orbits, and `select_balanced` for a few more.

    Whole orbits cost nothing, however many words there are; the words to be balanced are about N, not K.

    Args:
        words: (M,) uint64, M >= K, of the problem's length and weight.
        orbit: (M,) int64, which orbit each word belongs to.
        problem: K, N, N_act and H_min.
        work: as in `select_balanced`.

    Returns:
        (K,) int64, ascending positions.
    """
    length, num_classes = problem.length, problem.num_classes
    whole = choose_balanced_union(words, orbit, length, num_classes, work)
    if whole is not None:
        return whole
    table = words_to_table(words, length)
    best, best_spread_found = None, len(words)
    for factor in _REMAINDERS:
        whole = _take_orbits(words, orbit, length, 0, num_classes - factor * length, 0, work)
        chosen = _completed(words, whole, problem, work)
        sums = table[chosen].sum(axis=0, dtype=np.int64)
        spread = int(sums.max() - sums.min())
        if spread < best_spread_found:
            best, best_spread_found = chosen, spread
        if spread <= problem.best_spread or whole is None or work.stop_reason() is not None:
            break
    assert best is not None
    return best


def _completed(
    words: NDArray[np.uint64], whole: NDArray[np.int64] | None, problem: Problem, work: Work
) -> NDArray[np.int64]:
    """The positions ``whole`` and as many of the others as K words need, chosen by `select_balanced`."""
    is_taken = np.zeros(len(words), dtype=np.bool_)
    if whole is not None:
        is_taken[whole] = True
    left = np.flatnonzero(~is_taken)
    num_left = problem.num_classes - (len(words) - len(left))
    if num_left < 2:
        return np.sort(np.append(np.flatnonzero(is_taken), left[:num_left])).astype(np.int64)
    selected = select_balanced(words[left], problem.with_classes(num_left), work)
    is_taken[left[selected.indices]] = True
    return np.flatnonzero(is_taken).astype(np.int64)


def choose_balanced_union(
    words: NDArray[np.uint64], orbit: NDArray[np.int64], length: int, num_classes: int, work: Work
) -> NDArray[np.int64] | None:
    """K words that are whole orbits, with S_max - S_min as small as K words of their weight can have it.

    Args:
        words: (M,) uint64 of one weight.
        orbit: (M,) int64, which orbit (or any other part that must stay whole) each word belongs to.
        length: N.
        num_classes: K.
        work: its budget is polled ten times a second.

    Returns:
        (K,) int64 ascending positions, or None where no choice of whole orbits will do or none is found in a moment.
    """
    act = int(words[0]).bit_count()
    return _take_orbits(words, orbit, length, num_classes, num_classes, best_spread(num_classes, length, act), work)


def _take_orbits(
    words: NDArray[np.uint64],
    orbit: NDArray[np.int64],
    length: int,
    fewest: int,
    most: int,
    spread: int,
    work: Work,
) -> NDArray[np.int64] | None:
    """As many words as possible, ``fewest`` to ``most``, that are whole orbits and even; None where there are none.

    Column sums may be their mean rounded down or up with ``spread`` 1, which needs ``fewest`` = ``most``; with 0 they
    are equal. Orbits with the same column sums are interchangeable, so CP-SAT decides only how many of each kind.
    """
    from ortools.sat.python import cp_model

    act = int(words[0]).bit_count()
    table = words_to_table(words, length)
    sums = np.zeros((int(orbit.max()) + 1, length + 1), dtype=np.int64)
    np.add.at(sums[:, 1:], orbit, table)
    sums[:, 0] = np.bincount(orbit)
    kinds, kind_of, available = np.unique(sums, axis=0, return_inverse=True, return_counts=True)
    if most < 1 or len(kinds) > _MOST_KINDS:
        return None
    model = cp_model.CpModel()
    taken = [model.new_int_var(0, int(count), "") for count in available]
    size = sum(int(s) * t for s, t in zip(kinds[:, 0], taken, strict=True))
    model.add_linear_constraint(size, max(1, fewest), most)
    for column in np.unique(kinds[:, 1:], axis=1).T:
        column_sum = sum(int(s) * t for s, t in zip(column, taken, strict=True))
        if spread:
            model.add_linear_constraint(column_sum, most * act // length, most * act // length + 1)
        else:
            model.add(column_sum * length == size * act)
    model.maximize(size)
    status, solver = run_solver(
        model,
        work,
        deterministic_limit=_UNION_LIMIT,
        seed=_UNION_SEED,
        phase="CP-SAT",
        note=f"{len(kinds)} kinds of orbits, one worker",
    )
    if status is not CpSatStatus.FOUND:
        return None
    is_taken = np.zeros(len(sums), dtype=np.bool_)
    for kind, variable in enumerate(taken):
        is_taken[np.flatnonzero(kind_of.ravel() == kind)[: solver.value(variable)]] = True
    chosen = np.flatnonzero(is_taken[orbit])
    column_sums = table[chosen].sum(axis=0, dtype=np.int64)
    if not fewest <= len(chosen) <= most or column_sums.max() - column_sums.min() > spread:
        return None
    return chosen.astype(np.int64)
