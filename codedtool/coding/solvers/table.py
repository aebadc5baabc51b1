"""The table of solvers, of which `find_scheme` composes its search.

A solver is a function ``(problem, work, findings) -> candidate or None``. It lists or draws words of the problem's
length, weight and distance and chooses K of them. A new solver is a function in a file of its own and one row here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from codedtool.budget import Work
from codedtool.coding.problem import Problem
from codedtool.coding.solvers import balance, lexicode, sampler
from codedtool.coding.solvers.algebra import cyclic, orbits
from codedtool.coding.solvers.all_words import choose_from_all_words
from codedtool.coding.solvers.candidate import Candidate, Findings
from codedtool.coding.solvers.refine import refine_greedy_set


@dataclass(frozen=True)
class Solver:
    """One row of the table.

    Attributes:
        solve: the function.
        needs_greedy_set: whether it chooses from the greedy set G, which "lexicode" must have enumerated with at least
            K words.
        most_words: the largest C(N, N_act) for which it is practical, or None for any.
        compile_kernels: the function that compiles all kernels of the solver, or None if it has none.
    """

    solve: Callable[[Problem, Work, Findings], Candidate | None]
    needs_greedy_set: bool = False
    most_words: int | None = None
    compile_kernels: Callable[[], None] | None = None

    def can_start(self, problem: Problem, findings: Findings) -> bool:
        """Whether the words that it chooses from are there."""
        if not self.needs_greedy_set:
            return True
        return findings.greedy is not None and len(findings.greedy.words) >= problem.num_classes


SOLVERS: dict[str, Solver] = {
    # Algorithm 1 decides about 10^9 words in a practical time. A greedy set cut short leaves its leading columns empty.
    "lexicode": Solver(lexicode.first_words, most_words=1_000_000_000, compile_kernels=lexicode.compile_kernels),
    "balance": Solver(balance.balance_greedy_set, needs_greedy_set=True, compile_kernels=balance.compile_kernels),
    "cp-sat": Solver(refine_greedy_set, needs_greedy_set=True),
    # The paper's brute force (appendix A) is for short lists of words: C(10,5) = 252, C(10,3) = 120.
    "all words": Solver(choose_from_all_words, most_words=3000),
    "linear code": Solver(cyclic.choose_from_linear_code, compile_kernels=cyclic.compile_kernels),
    "orbits": Solver(orbits.choose_from_orbits, compile_kernels=orbits.compile_kernels),
    "sampler": Solver(sampler.draw_words, compile_kernels=sampler.compile_kernels),
}


def is_practical(name: str, problem: Problem) -> bool:
    """Whether the problem's words are few enough for the solver ``name``."""
    most_words = SOLVERS[name].most_words
    return most_words is None or problem.num_words <= most_words
