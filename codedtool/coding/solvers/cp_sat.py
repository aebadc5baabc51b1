"""CP-SAT (OR-Tools): how every model is run, and feasibility problems with one boolean per word.

The limits are CP-SAT's deterministic time and one worker, so that the answer does not depend on the machine. Whatever
the solver answers is checked in numpy before it is believed.
"""

from __future__ import annotations

import enum
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from codedtool.budget import Work
from codedtool.coding.problem import Problem
from codedtool.coding.words import words_to_table

if TYPE_CHECKING:
    from ortools.sat.python.cp_model import CpModel, CpSolver

# CP-SAT's own unit, about a second of one core each. This cap makes a result independent of the machine's speed.
DETERMINISTIC_LIMIT = 60.0

_POLL_SECONDS = 0.1


class CpSatStatus(enum.Enum):
    """How a search ended."""

    FOUND = "found"
    PROVED_IMPOSSIBLE = "proved impossible"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class CpSatResult:
    """How a search ended and, if it found any, the positions (K,) of the chosen words, ascending."""

    status: CpSatStatus
    indices: NDArray[np.int64] | None = None


def even_choice_model(words: NDArray[np.uint64], problem: Problem) -> tuple[CpModel, list[Any]]:
    """A model with one boolean per word: exactly K of them are true, and each column sum is rK rounded down or up."""
    from ortools.sat.python import cp_model

    model = cp_model.CpModel()
    chosen = [model.new_bool_var("") for _ in range(len(words))]
    model.add(sum(chosen) == problem.num_classes)
    low = problem.num_classes * problem.act // problem.length
    for column_M in words_to_table(words, problem.length).T:
        model.add_linear_constraint(sum(chosen[v] for v in np.flatnonzero(column_M)), low, low + problem.best_spread)
    return model, chosen


def run_solver(
    model: CpModel, work: Work, *, deterministic_limit: float, seed: int, phase: str, note: str
) -> tuple[CpSatStatus, CpSolver]:
    """Solve on one worker in a thread of its own, so that the budget can stop it and Ctrl-C is heard at once.

    Args:
        model: the model; an objective that is not solved to its end still gives values.
        work: its budget is polled, and its progress is told the phase.
        deterministic_limit: CP-SAT's deterministic time, in its own unit of about a second.
        seed: CP-SAT's random seed; it takes the last 31 bits.
        phase, note: what the progress is told.

    Returns:
        How it ended, and the solver, which has the values of the variables if any were found.
    """
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
            work.progress(phase, 0, None, note)
            if work.stop_reason() is not None:
                stopped = True
                solver.stop_search()
            thread.join(_POLL_SECONDS)
    except KeyboardInterrupt:
        solver.stop_search()
        raise
    status = statuses[0]
    if status in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return CpSatStatus.FOUND, solver
    if status == cp_model.INFEASIBLE and not stopped:
        return CpSatStatus.PROVED_IMPOSSIBLE, solver
    return CpSatStatus.UNKNOWN, solver


def solve(model: CpModel, chosen: list[Any], work: Work, deterministic_limit: float) -> CpSatResult:
    """`run_solver` for a model with one boolean per word.

    Args:
        model: the model.
        chosen: its booleans.
        work: as for `run_solver`; the phase is "CP-SAT".
        deterministic_limit: as for `run_solver`.
    """
    status, solver = run_solver(
        model,
        work,
        deterministic_limit=deterministic_limit,
        seed=work.seed,
        phase="CP-SAT",
        note=f"{len(chosen)} words, one worker",
    )
    if status is not CpSatStatus.FOUND:
        return CpSatResult(status)
    values = np.array([solver.boolean_value(variable) for variable in chosen])
    return CpSatResult(status, np.flatnonzero(values))


def is_even(words: NDArray[np.uint64], problem: Problem) -> bool:
    """Whether these are K words with even columns, counted again: a stopped CP-SAT has reported more than it had."""
    sums_N = words_to_table(words, problem.length).sum(axis=0, dtype=np.int64)
    return len(words) == problem.num_classes and bool(sums_N.max() - sums_N.min() <= problem.best_spread)
