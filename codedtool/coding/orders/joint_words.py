"""Codewords chosen, not only ordered, so that a class's codewords in several stages lie far apart together (CP-SAT).

Ordering keeps a scheme's words; where the classes are few, all its words may be chosen anew: same K, N, N_act, H_min
and even columns, and the highest joint minimum distance there is.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from codedtool.budget import Work
from codedtool.coding.scheme import CodingScheme
from codedtool.coding.solvers.cp_sat import CpSatStatus, run_solver
from codedtool.coding.words import all_distances

# Pairs of classes times columns: the model has a boolean for each. CIFAR-10 has 450 and takes a tenth of a second.
_MOST_PRODUCTS = 3000

# Units of CP-SAT's deterministic time for one distance, which repeat; a few seconds each.
_DETERMINISTIC_TIME = 20.0


def highest_joint_distance(schemes: Sequence[CodingScheme]) -> int:
    """No schemes with these column sums have a higher joint minimum distance: the mean over all pairs, made even.

    Plotkin's argument (1960): a column with S ones tells S (K - S) pairs of classes apart.
    """
    num_classes = schemes[0].num_classes
    told_apart = sum(int(s) * (num_classes - int(s)) for scheme in schemes for s in scheme.column_sums)
    return told_apart // (num_classes * (num_classes - 1) // 2) // 2 * 2


def choose_jointly(
    scheme: CodingScheme, others: Sequence[CodingScheme], work: Work | None = None
) -> CodingScheme | None:
    """Other words with the figures of ``scheme`` whose joint minimum distance with ``others`` is as high as possible.

    Goes down from `highest_joint_distance`, one CP-SAT feasibility problem per even distance.

    Args:
        scheme: its K, N, N_act, H_min and spread are kept.
        others: schemes of the same K, which stay as they are.
        work: the seed is CP-SAT's, which has one worker and a deterministic limit, so that results repeat. The budget
            is polled ten times a second. The progress is told the phase "choosing words jointly".

    Returns:
        None if there are too many classes, or if no joint distance above the least that any words have was found.
    """
    num_classes, length = scheme.num_classes, scheme.length
    if num_classes * (num_classes - 1) // 2 * length > _MOST_PRODUCTS or scheme.spread > 1:
        return None
    work = work or Work()
    apart_KK = sum(all_distances(other.words) for other in others)
    assert not isinstance(apart_KK, int)
    least = int(min(apart_KK[i, j] for i, j in combinations(range(num_classes), 2))) + scheme.min_distance
    for distance in range(highest_joint_distance([scheme, *others]), least, -2):
        if work.stop_reason() is not None:
            return None
        table = _solve(scheme, apart_KK, distance, work)
        if table is not None:
            return CodingScheme(table)
    return None


def _solve(scheme: CodingScheme, apart_KK: NDArray[np.int64], distance: int, work: Work) -> NDArray[np.uint8] | None:
    """A table with the scheme's figures, every pair of whose rows is far enough apart; None: none was found."""
    from ortools.sat.python import cp_model

    K, N, act = scheme.num_classes, scheme.length, scheme.act
    model = cp_model.CpModel()
    bits = [[model.new_bool_var(f"x_{k}_{n}") for n in range(N)] for k in range(K)]
    for row in bits:
        model.add(sum(row) == act)
    for n in range(N):
        column = sum(bits[k][n] for k in range(K))
        model.add(column >= scheme.s_min)
        model.add(column <= scheme.s_max)
    for i, j in combinations(range(K), 2):
        needed = max(scheme.min_distance, distance - int(apart_KK[i, j]))
        both = [model.new_bool_var(f"and_{i}_{j}_{n}") for n in range(N)]
        for n in range(N):
            model.add_bool_or([bits[i][n].negated(), bits[j][n].negated(), both[n]])
        # Words of one weight at distance d share act - d / 2 ones.
        model.add(sum(both) <= act - (needed + 1) // 2)
    if len({int(s) for s in scheme.column_sums}) == 1:
        # Columns may be exchanged, so that the first word may be chosen.
        for n in range(N):
            model.add(bits[0][n] == int(n < act))
    status, solver = run_solver(
        model,
        work,
        deterministic_limit=_DETERMINISTIC_TIME,
        seed=work.seed,
        phase="choosing words jointly",
        note=f"joint distance {distance}",
    )
    if status is not CpSatStatus.FOUND:
        return None
    return np.array([[solver.value(bit) for bit in row] for row in bits], dtype=np.uint8)
