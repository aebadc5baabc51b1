"""CP-SAT where the balance engine leaves uneven columns: K words of the greedy set G with columns exactly even."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from codedtool.budget import Work
from codedtool.coding.problem import Problem
from codedtool.coding.solvers.candidate import Candidate, Findings
from codedtool.coding.solvers.cp_sat import (
    DETERMINISTIC_LIMIT,
    CpSatResult,
    CpSatStatus,
    even_choice_model,
    is_even,
    solve,
)


def refine_greedy_set(problem: Problem, work: Work, findings: Findings) -> Candidate | None:
    """Solver: K words of G by CP-SAT, starting from the best choice of G so far."""
    assert findings.greedy is not None
    words, best = findings.greedy.words, findings.best
    hint = None
    if best is not None and best.method == "lexicode":
        hint = np.flatnonzero(np.isin(words, best.words))
    with work.stopwatch.timed("select"):
        refined = refine_selection(words, problem, work, hint=hint)
    if refined.indices is None:
        return None
    return Candidate(words[refined.indices], "lexicode", "CP-SAT")


def refine_selection(
    words: NDArray[np.uint64],
    problem: Problem,
    work: Work,
    *,
    hint: NDArray[np.int64] | None = None,
    deterministic_limit: float = DETERMINISTIC_LIMIT,
) -> CpSatResult:
    """Choose K of ``words`` with columns as even as K words can have, or prove that there is no such choice.

    Args:
        words: (M,) uint64, M >= K, of the problem's length and weight, far enough apart.
        problem: K words are chosen; each column sum is rK rounded down or up.
        work: its progress is told the phase "CP-SAT"; its budget is polled ten times a second.
        hint: positions of a near solution to start from.
        deterministic_limit: CP-SAT's deterministic time, in its own unit of about a second.
    """
    model, chosen = even_choice_model(words, problem)
    if hint is not None:
        hinted = set(hint.tolist())
        for position, variable in enumerate(chosen):
            model.add_hint(variable, position in hinted)
    result = solve(model, chosen, work, deterministic_limit)
    if result.indices is not None and not is_even(words[result.indices], problem):
        return CpSatResult(CpSatStatus.UNKNOWN)
    return result
