"""Upper bound on the joint distance over all orders of rows: a linear programme, its solution proved exactly.

However the rows of a scheme are ordered against other schemes, the number x[a, t] of pairs of classes at distance a in
the one and distances t = (t_1, ..., t_S) in the others satisfies

    sum_t x[a, t] = pairs at distance a,      sum_a x[a, t] = pairs at distances t,

and both right sides are known from the tables. Besides, for words of weight w the matrix q_k(d(i, j)), with
q_k(2i) = E_i(k) / E_i(0), is positive semidefinite for every k (Delsarte 1973; the E are those of
`codedtool.coding.bounds.delsarte`). So is the entrywise product of two such matrices (I. Schur 1911), and the sum of
all its entries is not negative:

    K + 2 sum_{a,t} x[a, t] q_k(a) q_l(t_s) >= 0   for every k, l and s.

The least sum of the x[a, t] with a + sum(t) < T is then a lower bound on the pairs closer than T; where it is
positive, no order reaches T. OR-Tools' GLOP solves the programme. The bound is the value of a dual solution, repaired
and evaluated in fractions, so rounding does not affect it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from codedtool.budget import Work
from codedtool.coding.bounds.delsarte import eigenvalue
from codedtool.coding.scheme import CodingScheme

# Multipliers are rounded to multiples of this: the claim loses less than a hundredth of a pair by it.
_GRAIN = 1 << 40

# Entries of the programme's rows from the positive semidefinite matrices; without them the bound is weaker. Two other
# schemes of 100 classes have half a million, which take ten seconds.
_MOST_ENTRIES = 1_000_000

Distances = tuple[int, ...]


@dataclass(frozen=True)
class JointBound:
    """Bounds that hold for every order of the rows of one scheme against others.

    Attributes:
        min_distance: no order has a higher joint minimum distance.
        fewest_pairs: any order has at least so many pairs of classes at joint distances <= ``min_distance``.
    """

    min_distance: int
    fewest_pairs: int

    def pairs_at(self, joint_min_distance: int) -> int:
        """The fewest pairs that an order with this joint minimum distance can have at it."""
        return self.fewest_pairs if joint_min_distance == self.min_distance else 1


def joint_bound(scheme: CodingScheme, others: Sequence[CodingScheme], work: Work | None = None) -> JointBound:
    """Bound the joint minimum distance, and the pairs at it, over all orders of the rows of ``scheme``.

    Args:
        scheme: the scheme whose rows may be ordered.
        others: at least one scheme of the same K, rows fixed.
        work: its budget is polled; where it asks to stop, the bound is weaker.
    """
    programme = _Programme(scheme, others, work or Work())
    joint = programme.least
    while (fewest := programme.fewest_pairs(joint)) == 0:
        joint += 2
    # Some pairs are at ``joint`` or below whatever the order, so no order reaches more.
    return JointBound(min_distance=joint, fewest_pairs=fewest)


class _Programme:
    """The programme of the module's docstring, for one pair of a scheme and others; solved once per T."""

    def __init__(self, scheme: CodingScheme, others: Sequence[CodingScheme], work: Work) -> None:
        self.budget = work.budget
        self.num_classes = scheme.num_classes
        self.own_pairs = scheme.distance_histogram
        self.other_pairs = _distance_tuples(others)
        self.cells = [(a, t) for a in self.own_pairs for t in self.other_pairs]
        self.least = min(self.own_pairs) + min(sum(t) for t in self.other_pairs)
        # Rows with a constant factor say nothing that the numbers of pairs do not say already.
        pairs = [
            (s, q, r)
            for s, other in enumerate(others)
            for q in _zonal_functions(scheme)
            for r in _zonal_functions(other)
        ]
        self.rows: list[list[Fraction]] = []
        if len(pairs) * len(self.cells) <= _MOST_ENTRIES:
            for s, q, r in pairs:
                if self.budget.stop_reason() is not None:
                    break
                self.rows.append([q[a] * r[t[s]] for a, t in self.cells])

    def fewest_pairs(self, joint: int) -> int:
        """A lower bound on the number of pairs at joint distances <= ``joint``."""
        counted = [int(a + sum(t) <= joint) for a, t in self.cells]
        own_price, multipliers = self._dual(counted)
        # Whatever the multipliers >= 0 and the prices of own distances are, these are the best prices of the others'.
        slack = {cell: Fraction(cost) for cell, cost in zip(self.cells, counted, strict=True)}
        for multiplier, row in zip(multipliers, self.rows, strict=True):
            if multiplier:
                for cell, entry in zip(self.cells, row, strict=True):
                    slack[cell] -= multiplier * entry
        total = -Fraction(self.num_classes, 2) * sum(multipliers)
        total += sum(own_price[a] * pairs for a, pairs in self.own_pairs.items())
        for t, pairs in self.other_pairs.items():
            total += min(slack[a, t] - own_price[a] for a in self.own_pairs) * pairs
        return max(0, math.ceil(total))

    def _dual(self, counted: list[int]) -> tuple[dict[int, Fraction], list[Fraction]]:
        """GLOP's prices of the scheme's own distances, and its multipliers of `rows`; zero if it gives up or stops."""
        nothing = {a: Fraction(0) for a in self.own_pairs}, [Fraction(0)] * len(self.rows)
        if self.budget.stop_reason() is not None:
            return nothing
        from ortools.linear_solver import pywraplp

        solver = pywraplp.Solver.CreateSolver("GLOP")
        if self.budget.time_limit is not None:
            # In milliseconds, where 0 is no limit.
            solver.SetTimeLimit(max(1, math.ceil(1000 * (self.budget.time_limit - self.budget.elapsed()))))
        infinity = solver.infinity()
        x = {cell: solver.NumVar(0, infinity, "") for cell in self.cells}
        own = {a: solver.Constraint(pairs, pairs) for a, pairs in self.own_pairs.items()}
        other = {t: solver.Constraint(pairs, pairs) for t, pairs in self.other_pairs.items()}
        for (a, t), variable in x.items():
            own[a].SetCoefficient(variable, 1)
            other[t].SetCoefficient(variable, 1)
        positive = []
        for row in self.rows:
            constraint = solver.Constraint(-self.num_classes / 2, infinity)
            for cell, entry in zip(self.cells, row, strict=True):
                constraint.SetCoefficient(x[cell], float(entry))
            positive.append(constraint)
        for cell, cost in zip(self.cells, counted, strict=True):
            solver.Objective().SetCoefficient(x[cell], cost)
        solver.Objective().SetMinimization()
        if solver.Solve() != pywraplp.Solver.OPTIMAL:
            return nothing
        return (
            {a: _rounded(constraint.dual_value()) for a, constraint in own.items()},
            [max(Fraction(0), _rounded(constraint.dual_value())) for constraint in positive],
        )


def _rounded(value: float) -> Fraction:
    """A fraction of a small denominator near ``value``."""
    return Fraction(round(value * _GRAIN), _GRAIN)


def _zonal_functions(scheme: CodingScheme) -> list[dict[int, Fraction]]:
    """q_1, ..., q_w of words of the scheme's length and weight, each distance -> value; q_k(0) = 1."""
    weight = min(scheme.act, scheme.length - scheme.act)
    return [
        {
            2 * i: Fraction(eigenvalue(scheme.length, weight, i, k), eigenvalue(scheme.length, weight, i, 0))
            for i in range(weight + 1)
        }
        for k in range(1, weight + 1)
    ]


def _distance_tuples(schemes: Sequence[CodingScheme]) -> dict[Distances, int]:
    """Distances of a pair of classes in each of ``schemes`` -> number of pairs of classes at them."""
    if len(schemes) == 1:
        return {(d,): pairs for d, pairs in schemes[0].distance_histogram.items()}
    words_SK = np.stack([scheme.words for scheme in schemes])
    counts: Counter[Distances] = Counter()
    for k in range(words_SK.shape[1] - 1):
        distances = np.bitwise_count(words_SK[:, k, None] ^ words_SK[:, k + 1 :])
        found, numbers = np.unique(distances, axis=1, return_counts=True)
        for column, number in zip(found.T.tolist(), numbers.tolist(), strict=True):
            counts[tuple(column)] += number
    return dict(sorted(counts.items()))
