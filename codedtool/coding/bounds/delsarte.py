"""Delsarte's linear programme in the Johnson scheme, solved in whole numbers.

The Johnson scheme J(N, w) is the set of the C(N, w) words of weight w (w <= N/2), two of them in relation i at Hamming
distance 2i, i = 0..w. The matrices D_i of its relations have common eigenspaces V_0 (constant vectors), V_1, ..., V_w;
on V_k, D_i has the eigenvalue E_i(k) of `eigenvalue`. Let a code have M words, and b_i be M times smaller than the
number of its ordered pairs in relation i, divided by v_i = E_i(0), the words in relation i to any one. The code's
projection on V_k has a square length >= 0, which reads

    1 + sum_{i >= 1} b_i E_i(k) >= 0,   k = 1..w,   with b_i >= 0, and b_i = 0 where 0 < 2i < H_min,

and M = 1 + sum_i b_i v_i. The largest value of that sum under these inequalities is Delsarte's bound.
(P. Delsarte, An algebraic approach to the association schemes of coding theory, Philips Res. Rep. Suppl. 10, 1973;
constant-weight codes: E. Agrell, A. Vardy, K. Zeger, Upper bounds for constant-weight codes, IEEE Trans. IT 46, 2000.)
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import comb

from codedtool.errors import InputError


@dataclass(frozen=True)
class DelsarteCertificate:
    """A dual solution y_1..y_w of Delsarte's programme, w = min(act, length - act): a proof that M <= 1 + sum y_k.

    Attributes:
        length, act, min_distance: N, N_act and the even H_min it speaks about.
        multipliers: y_1, ..., y_w, exact.
    """

    length: int
    act: int
    min_distance: int
    multipliers: tuple[Fraction, ...]

    @property
    def value(self) -> Fraction:
        """The bound 1 + sum y_k on the number of words, before it is rounded down."""
        return 1 + sum(self.multipliers, Fraction(0))

    def holds(self) -> bool:
        """Whether the proof is valid: y_k >= 0, and sum_k y_k E_i(k) <= -v_i for every i with H_min <= 2i <= 2w.

        Adding the programme's inequalities y_k times each gives sum_k y_k >= -sum_i b_i sum_k y_k E_i(k)
        >= sum_i b_i v_i = M - 1. No solver, and no rounding, is part of this check.
        """
        weight = min(self.act, self.length - self.act)
        if len(self.multipliers) != weight or min(self.multipliers) < 0:
            return False
        return all(
            sum(y * eigenvalue(self.length, weight, i, k) for k, y in enumerate(self.multipliers, start=1))
            <= -eigenvalue(self.length, weight, i, 0)
            for i in range(self.min_distance // 2, weight + 1)
        )


def eigenvalue(length: int, act: int, relation: int, space: int) -> int:
    """E_i(k), i = ``relation``, k = ``space``: the eigenvalue of the distance-2i graph of J(N, w) on V_k.

    The Eberlein polynomial sum_j (-1)^j C(k, j) C(w-k, i-j) C(N-w-k, i-j) (Delsarte 1973, section 4.2.1);
    0 <= i, k <= w = ``act`` <= N/2. E_i(0) = C(w, i) C(N-w, i) counts the words at distance 2i from a word.
    """
    return sum(
        (-1) ** j * comb(space, j) * comb(act - space, relation - j) * comb(length - act - space, relation - j)
        for j in range(min(relation, space) + 1)
    )


def delsarte_certificate(length: int, act: int, min_distance: int) -> DelsarteCertificate:
    """The optimum of Delsarte's programme for words of ``length`` bits and weight ``act``, as a proof of its value.

    Args:
        length: N, 2 to 64.
        act: N_act, 0 < N_act < N.
        min_distance: H_min, even, 2 <= H_min <= 2 min(N_act, N - N_act).

    Raises:
        InputError: an argument is outside its range.
    """
    weight = min(act, length - act)
    if weight < 1 or min_distance % 2 or not 2 <= min_distance <= 2 * weight:
        raise InputError(
            f"`min_distance` must be even and from 2 to 2*min(N_act, N-N_act) = {2 * weight}, got {min_distance} "
            f"(N={length}, N_act={act}); no two words are further apart"
        )
    relations = range(min_distance // 2, weight + 1)
    programme = _Programme(length, weight, relations)
    programme.optimise()
    certificate = DelsarteCertificate(length, act, min_distance, programme.multipliers())
    if not certificate.holds():
        raise AssertionError(f"the exact simplex returned no proof for {certificate}")
    return certificate


class _Programme:
    """Delsarte's programme as an exact simplex tableau: every entry a whole number over one positive denominator.

    Row k reads -sum_i b_i E_i(k) + slack_k = 1; the last row is the objective, the last column the right side. Basic
    columns are not stored. Pivots are fraction-free (J. Edmonds 1967, E. Bareiss 1968): all divisions are exact.
    Names of the variables: i > 0 is b_i, -k < 0 is slack_k.
    """

    def __init__(self, length: int, act: int, relations: range) -> None:
        self._act = act
        self._tableau = [[-eigenvalue(length, act, i, k) for i in relations] + [1] for k in range(1, act + 1)]
        self._tableau.append([-eigenvalue(length, act, i, 0) for i in relations] + [0])
        self._denominator = 1
        self._basic = [-k for k in range(1, act + 1)]
        self._nonbasic = list(relations)

    def optimise(self) -> None:
        """Simplex steps, from the origin, until no reduced cost is negative.

        Each is the one that raises the objective most, which takes the fewest steps here. Where none raises it, Bland's
        rule decides, which cannot cycle.
        """
        while True:
            costs, names = self._tableau[-1], self._nonbasic
            entering = [c for c, _ in enumerate(names) if costs[c] < 0]
            if not entering:
                return
            pivots = {c: self._leaving_row(c) for c in entering}
            gains = {c: Fraction(-costs[c] * self._tableau[r][-1], self._tableau[r][c]) for c, r in pivots.items()}
            column = max(entering, key=lambda c: (gains[c], names[c]))
            self._pivot(pivots[column], column)

    def _leaving_row(self, column: int) -> int:
        """The row that limits a variable that becomes basic; of equal ones the first by Bland's rule."""
        # The sum M - 1 is bounded by C(N, w), so some row does.
        rows = [r for r in range(self._act) if self._tableau[r][column] > 0]
        return min(rows, key=lambda r: (Fraction(self._tableau[r][-1], self._tableau[r][column]), -self._basic[r]))

    def multipliers(self) -> tuple[Fraction, ...]:
        """The dual solution y_1..y_w at the present vertex."""
        costs = dict(zip(self._nonbasic, self._tableau[-1], strict=False))
        return tuple(Fraction(costs.get(-k, 0), self._denominator) for k in range(1, self._act + 1))

    def _pivot(self, row: int, column: int) -> None:
        tableau, old = self._tableau, self._denominator
        pivot_row, pivot = tableau[row], tableau[row][column]
        for r, entries in enumerate(tableau):
            if r != row:
                factor = entries[column]
                tableau[r] = [(x * pivot - factor * y) // old for x, y in zip(entries, pivot_row, strict=True)]
                tableau[r][column] = -factor
        pivot_row[column] = old
        self._denominator = pivot
        if pivot < 0:
            self._tableau = [[-x for x in entries] for entries in tableau]
            self._denominator = -pivot
        self._basic[row], self._nonbasic[column] = self._nonbasic[column], self._basic[row]
