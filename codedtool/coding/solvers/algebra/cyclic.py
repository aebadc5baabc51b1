"""The words of one weight in an extended cyclic code: large codes with even columns, and nothing to search.

Bit i < 2^m - 1 of a word belongs to the power x^i of a primitive element x of F_2^m, the last bit to 0. The words

    c(y) = sum over e of Tr(a_e y^e),   a_e in F_2^m,   e from a set of exponents closed under doubling mod 2^m - 1,

are an extended cyclic code. With all exponents but those of the cosets of -1..-(H-2) it is the extended BCH code of
distance >= H, and two of its words of one weight are at least as far apart. With m = 5 and H = 12 the exponents 0, 1, 5
are left, and the words are Tr(ax) + Tr(bx^5) + e. BCH codes admit all maps y -> uy + b, so that words of
one weight have exactly even columns and are a union of orbits of the translations y -> y + b.
(R. Bose, D. Ray-Chaudhuri 1960; T. Kasami, S. Lin, W. Peterson, Some results on cyclic codes which are invariant under
the affine group, Inf. Control 11, 1968; F. MacWilliams, N. Sloane, The Theory of Error-Correcting Codes, 1977.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from math import comb

import numpy as np
from numpy.typing import NDArray

from codedtool.budget import StopReason, Work
from codedtool.coding.problem import Problem
from codedtool.coding.solvers.algebra.finite_field import finite_field
from codedtool.coding.solvers.candidate import Candidate, Findings
from codedtool.coding.solvers.even_choice import choose_even
from codedtool.coding.words import table_to_words, words_to_table

# Codes better than the BCH code of the same distance, m and H -> exponents: the [64, 28, 16] code, whose 30,828 words
# of weight 16 Y. Edel, E. Rains, N. Sloane used (New record kissing configurations in dimensions 33 to 128, 1998);
# found again by listing all cyclic codes of length 63 and dimension 28.
_BETTER_THAN_BCH = {(6, 16): (0, 1, 3, 5, 9, 11)}

# A code with more words than 2^30 is not listed; its words of a low weight are put together from halves.
_MOST_DIMENSIONS = 30
_LOW_DIMENSIONS = 14
_MOST_HALVES = 1_000_000
_MOST_WORDS = 2_000_000

_SLICE_WORK = 1 << 26


@dataclass(frozen=True)
class LinearCodeWords:
    """The words of one weight in a linear code.

    Attributes:
        words: (M,) uint64, ascending, pairwise at distance >= H_min.
        orbit: (M,) int64, which orbit each word belongs to under the translations that keep the code and, where N =
            2 N_act, complementation.
        name: the code, such as "extended cyclic [32,11,12]", where 12 is the distance it is known to have at least.
        stopped: why the enumeration ended early, or None.
    """

    words: NDArray[np.uint64]
    orbit: NDArray[np.int64]
    name: str
    stopped: StopReason | None


def choose_from_linear_code(problem: Problem, work: Work, findings: Findings) -> Candidate | None:
    """Solver: K words of weight N_act of the best linear code known here, as whole orbits as far as possible."""
    with work.stopwatch.timed("enumerate"):
        code = linear_code_words(problem.length, problem.act, problem.min_distance, work)
    if code is None:
        return None
    findings.note(code.words)
    if len(code.words) < problem.num_classes:
        return None
    with work.stopwatch.timed("select"):
        chosen = choose_even(code.words, code.orbit, problem, work)
    return Candidate(code.words[chosen], "linear code", code.name)


def linear_code_words(length: int, act: int, min_distance: int, work: Work | None = None) -> LinearCodeWords | None:
    """The words of weight N_act in the largest extended cyclic code of distance >= H_min that can be listed.

    For N below a power of two, the words that have zeros in the columns too many: the shortened code.

    Args:
        length: N, 4..64.
        act: N_act, 1..N-1.
        min_distance: H_min, even, >= 4.
        work: its progress is told the phase "listing a linear code". When its budget ends, the words so far are
            returned.

    Returns:
        The words, or None if no code can be listed or none has two words of the weight.
    """
    work = work or Work()
    degree = max(2, (length - 1).bit_length())
    for distance in range(min_distance, 1 << degree, 2):
        basis = shortened(extended_cyclic_basis(degree, exponents_for(degree, distance)), length)
        listing = _listing(basis, length, act)
        if listing is None:
            continue
        name = f"extended cyclic [{length},{len(basis)},{distance}]"
        work.progress("listing a linear code", 0, None, name)
        with work.budget.paused():
            listing.compile_kernels()
        words, stopped = listing(work)
        if len(words) < 2:
            return None
        words = np.sort(words)
        return LinearCodeWords(words, _orbits(words, length, act, degree), name, stopped)
    return None


def exponents_for(degree: int, min_distance: int) -> tuple[int, ...]:
    """Coset leaders of the exponents of the extended BCH code of length 2^m and distance >= ``min_distance``."""
    better = _BETTER_THAN_BCH.get((degree, min_distance))
    if better is not None:
        return better
    order = (1 << degree) - 1
    leaders = {e: min((e << s) % order for s in range(degree)) for e in range(order)}
    # The polynomial with coefficients c(x^i) has a zero at x^j exactly when -j is no exponent: BCH asks for 1..H-2.
    return tuple(sorted(set(leaders.values()) - {leaders[order - j] for j in range(1, min(min_distance - 1, order))}))


def extended_cyclic_basis(degree: int, exponents: tuple[int, ...]) -> NDArray[np.uint64]:
    """(k,) uint64, a basis of the extended cyclic code of length 2^m with these exponents' cosets, m = ``degree``."""
    field = finite_field(1 << degree)
    order = (1 << degree) - 1
    trace = np.zeros(1 << degree, dtype=np.int64)
    power = np.arange(1 << degree)
    for _ in range(degree):
        trace ^= power
        power = field.times[power, power]
    places = np.arange(order)
    words = []
    for exponent in exponents:
        for coefficient in field.powers[:degree]:
            if exponent:
                digits = trace[field.times[coefficient, field.powers[places * exponent % order]]]
            else:
                digits = np.ones(order, dtype=np.int64)
            # The extension: Tr(a 0^e) = 0, and the exponent 0 stands for the constant 1.
            digits = np.append(digits, 0 if exponent else 1)
            words.append(sum(1 << bit for bit in np.flatnonzero(digits).tolist()))
    return np.array(_independent(words), dtype=np.uint64)


def shortened(basis: NDArray[np.uint64], length: int) -> NDArray[np.uint64]:
    """A basis of the words that are zero from bit ``length`` on."""
    # Each word of the basis has a highest bit of its own, so those with it below ``length`` span all such words.
    return np.array([w for w in _independent([int(b) for b in basis]) if w >> length == 0], dtype=np.uint64)


def _independent(words: list[int]) -> list[int]:
    """A basis of the span of ``words`` whose highest bits are all different, descending."""
    basis: dict[int, int] = {}
    for word in words:
        rest = word
        while rest and rest.bit_length() in basis:
            rest ^= basis[rest.bit_length()]
        if rest:
            basis[rest.bit_length()] = rest
    return [basis[bit] for bit in sorted(basis, reverse=True)]


def _checks(basis: NDArray[np.uint64], length: int) -> NDArray[np.uint64]:
    """(N,) uint64, the columns of a parity check matrix of the code, bit by bit."""
    words = [int(b) for b in basis]
    for i, word in enumerate(words):  # reduced: no pivot occurs in another word
        pivot = word.bit_length() - 1
        for j in range(len(words)):
            if j != i and words[j] >> pivot & 1:
                words[j] ^= word
    pivots = [w.bit_length() - 1 for w in words]
    free = [bit for bit in range(length) if bit not in pivots]
    checks = np.zeros(length, dtype=np.uint64)
    for row, bit in enumerate(free):
        checks[bit] = 1 << row
    for word, pivot in zip(words, pivots, strict=True):
        checks[pivot] = sum(1 << row for row, bit in enumerate(free) if word >> bit & 1)
    return checks


@cache
def compile_kernels() -> None:
    """Compile or load every kernel."""
    _Span.compile_kernels()
    _Halves.compile_kernels()


class _Span:
    """Lists the words of weight ``act`` among all sums of a basis."""

    @staticmethod
    @cache
    def compile_kernels() -> None:
        """Compile or load the kernels of this class, on words of two bits."""
        _Span(np.ones(1, dtype=np.uint64), 1)(Work())

    def __init__(self, basis: NDArray[np.uint64], act: int) -> None:
        self._basis, self._act = basis, act

    def __call__(self, work: Work) -> tuple[NDArray[np.uint64], StopReason | None]:
        from codedtool.coding.solvers.algebra import cyclic_kernels

        low, high = self._basis[:_LOW_DIMENSIONS], self._basis[_LOW_DIMENSIONS:]
        low_sums = np.empty(1 << len(low), dtype=np.uint64)
        cyclic_kernels.combine_low(low, low_sums)

        def part(first: int, last: int, out: NDArray[np.uint64]) -> int:
            return int(cyclic_kernels.words_of_weight(high, low_sums, self._act, first, last, out))

        return _in_slices(part, 1 << len(high), max(1, _SLICE_WORK >> len(low)), work)


class _Halves:
    """Joins two words of half the weight with equal syndromes."""

    @staticmethod
    @cache
    def compile_kernels() -> None:
        """Compile or load the kernels of this class, on words of two bits."""
        _Halves(np.ones(1, dtype=np.uint64), 2, 2)(Work())

    def __init__(self, basis: NDArray[np.uint64], length: int, act: int) -> None:
        self._checks, self._length, self._act = _checks(basis, length), length, act

    def __call__(self, work: Work) -> tuple[NDArray[np.uint64], StopReason | None]:
        from codedtool.coding.solvers.algebra import cyclic_kernels

        left, left_syndromes = self._subsets(self._act // 2)
        right, right_syndromes = self._subsets(self._act - self._act // 2)
        order = np.argsort(right_syndromes, kind="stable")
        right = right[order]
        syndromes, starts = np.unique(right_syndromes[order], return_index=True)
        starts = np.append(starts, len(right)).astype(np.int64)
        groups = np.searchsorted(syndromes, left_syndromes).clip(max=len(syndromes) - 1)
        groups = np.where(syndromes[groups] == left_syndromes, groups, -1).astype(np.int64)

        halves = cyclic_kernels.Halves(left, groups, right, starts)

        def part(first: int, last: int, out: NDArray[np.uint64]) -> int:
            return int(cyclic_kernels.join_halves(halves, first, last, out))

        return _in_slices(part, len(left), max(1, _SLICE_WORK * len(syndromes) // len(right)), work)

    def _subsets(self, size: int) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        from codedtool.coding.solvers.algebra import cyclic_kernels

        words = np.empty(comb(self._length, size), dtype=np.uint64)
        syndromes = np.empty_like(words)
        cyclic_kernels.subsets(self._checks, np.arange(size), words, syndromes)
        return words, syndromes


def _listing(basis: NDArray[np.uint64], length: int, act: int) -> _Span | _Halves | None:
    """The way to list the code's words of one weight, or None where there is none or they are too many."""
    if len(basis) == 0 or comb(length, act) >> (length - len(basis)) > _MOST_WORDS:
        return None
    halves = comb(length, act - act // 2)
    if len(basis) <= _MOST_DIMENSIONS and (halves > _MOST_HALVES or 1 << len(basis) <= halves):
        return _Span(basis, act)
    return _Halves(basis, length, act) if halves <= _MOST_HALVES and act > 1 else None


def _in_slices(
    part: Callable[[int, int, NDArray[np.uint64]], int], num_parts: int, step: int, work: Work
) -> tuple[NDArray[np.uint64], StopReason | None]:
    """The words that ``part(first, last, out)`` writes for all parts, ``step`` of them at a time."""
    found: list[NDArray[np.uint64]] = []
    room = np.empty(1 << 16, dtype=np.uint64)
    for first in range(0, num_parts, step):
        stopped = work.stop_reason()
        if stopped is not None:
            return np.concatenate([np.empty(0, dtype=np.uint64), *found]), stopped
        last = min(num_parts, first + step)
        num = part(first, last, room)
        if num > len(room):
            room = np.empty(num, dtype=np.uint64)
            part(first, last, room)
        found.append(room[:num].copy())
        work.progress("listing a linear code", last, num_parts, f"{sum(map(len, found))} words")
    return np.concatenate(found), None


def _orbits(words: NDArray[np.uint64], length: int, act: int, degree: int) -> NDArray[np.int64]:
    """The orbit of each word under those translations and complementation that map the set of words to itself."""
    labels = np.arange(len(words))
    table = words_to_table(words, length)
    images = []
    if length == 1 << degree:
        field = finite_field(length)
        # Bit i belongs to x^i, the last one to 0; column c of the table is bit length-1-c.
        element = np.append(field.powers, 0)
        bit_of = np.argsort(element)
        for power in range(degree):
            moved = bit_of[field.plus[element, 1 << power]]
            column = length - 1 - moved[length - 1 - np.arange(length)]
            images.append(table_to_words(table[:, column]))
    if 2 * act == length:
        images.append(words ^ np.uint64((1 << length) - 1))
    for image in images:
        place = np.searchsorted(words, image).clip(max=len(words) - 1)
        if (words[place] != image).any():
            continue
        # The maps are involutions that commute: following the labels joins whole orbits.
        low = np.minimum(labels, labels[place])
        while (low != low[low]).any():
            low = low[low]
        labels = low
    return np.unique(labels, return_inverse=True)[1].astype(np.int64)
