"""Codes that are unions of orbits of words under a group of permutations of the columns.

With a transitive group every orbit, and so every union of orbits, has exactly even columns. The group also makes the
search small: the orbits whose own words are far enough apart are enumerated, and a tabu search looks for a set of them
without conflicts that holds as many words as possible, for one group of the catalogue after the other.
(A. Brouwer, J. Shearer, N. Sloane, W. Smith, A new table of constant weight codes, IEEE Trans. IT 36, 1990;
K. Nurmela, M. Kaikkonen, P. Ostergard, New constant weight codes from linear permutation groups, IEEE Trans. IT 43,
1997; R. Montemanni, D. Smith, Heuristic algorithms for constructing binary constant weight codes, IEEE Trans. IT 55,
2009.)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from math import comb, log

import numpy as np
from numpy.typing import NDArray

from codedtool.budget import StopReason, Work
from codedtool.coding.bounds import upper_bound
from codedtool.coding.problem import Problem
from codedtool.coding.solvers.algebra.groups import PermutationGroup, catalogue
from codedtool.coding.solvers.candidate import Candidate, Findings
from codedtool.coding.solvers.even_choice import choose_balanced_union, choose_even
from codedtool.errors import InputError

# Words looked at for one group, and orbits kept of them: C(32, 8) under the translations of F_2^5 fits twice over.
_MAX_VISITS = 40_000_000
_MAX_ORBITS = 400_000

# Rounds: how many of the groups best so far take part (all in the first), the steps and the work that each may take.
# The unit of work is a comparison of two words; about 5 * 10^8 take a second.
_ROUNDS = ((None, 20_000, 250_000_000), (8, 400_000, 1_000_000_000), (4, 4_000_000, 4_000_000_000))
_SLICE_WORK = 40_000_000

# Where K words are asked for, a search ends early where they are out of reach. A group that has less than this share of
# K after a tenth of its first turn waits until all groups had theirs; and rounds 1 (the rest of it), 2 and 3 need a
# group with these shares. In 16 searches to the end, N = 15..32, the best group had 94% of its last size after a tenth
# of the first turn, and after a round 94% of that after the next one.
_TRIAL = 10
_WAITS_BELOW = 0.6
_NEEDED = (0.75, 0.8, 0.9)
_SLICE_VISITS = 4_000_000

# Conflicts of orbits that were needed once, as bits.
_ROW_BYTES = 1 << 27

# Tabu steps without an improvement before half of the set is dropped.
_PATIENCE = 2000

# Good codes were found to be unions of a handful of orbits; groups are tried nearest to this many first.
_TYPICAL_ORBITS = 2


@dataclass(frozen=True)
class OrbitCode:
    """A code that is a union of orbits.

    Attributes:
        words: (M,) uint64, ascending, pairwise at distance >= H_min.
        orbit: (M,) int64, which orbit each word belongs to, 0..num_orbits-1.
        group: the name of the group (`groups.catalogue`).
        num_orbits: how many orbits.
        union: (K,) int64, positions of K words that are whole orbits and as even as K words can be; None where none
            was asked for or found.
        stopped: why the search ended early, or None.
    """

    words: NDArray[np.uint64]
    orbit: NDArray[np.int64]
    group: str
    num_orbits: int
    union: NDArray[np.int64] | None
    stopped: StopReason | None


def choose_from_orbits(problem: Problem, work: Work, findings: Findings) -> Candidate | None:
    """Solver: K words of a union of orbits of some group of the catalogue, as whole orbits as far as possible."""
    with work.stopwatch.timed("enumerate"):
        code = orbit_code(problem.length, problem.act, problem.min_distance, work, num_classes=problem.num_classes)
    if code is None:
        return None
    findings.note(code.words)
    if len(code.words) < problem.num_classes:
        return None
    with work.stopwatch.timed("select"):
        if code.union is not None:
            return Candidate(code.words[code.union], "orbits", f"whole orbits of {code.group}")
        return Candidate(code.words[choose_even(code.words, code.orbit, problem, work)], "orbits", code.group)


def orbit_code(
    length: int,
    act: int,
    min_distance: int,
    work: Work | None = None,
    *,
    num_classes: int | None = None,
    groups: list[str] | None = None,
) -> OrbitCode | None:
    """The largest code found that is a union of orbits of one group of the catalogue.

    Every group gets a short search, then the best few a longer one, all bounded by counted work, so that a seed gives
    the same code on every machine. The search ends when Johnson's bound is reached; with ``num_classes``, as soon as K
    of the words are whole orbits with columns as even as can be, after a group's turn that found K words at all, or
    when the best group is so far from K that further rounds are not going to find them.

    Args:
        length: N, 2..64.
        act: N_act, 1..N-1.
        min_distance: H_min, even, >= 2.
        num_classes: K, or None for as many words as possible.
        groups: names from `groups.catalogue` to which the search is limited; default all.
        work: its progress is told the phase "searching orbits", the group and the most words so far. When its budget
            ends, the best code so far is returned.

    Returns:
        The code, or None where no group makes the orbits few enough to be listed, or no orbit is admissible.

    Raises:
        InputError: ``groups`` holds a name that the catalogue of ``length`` does not, or ``min_distance`` is odd.
    """
    if min_distance < 2 or min_distance % 2:
        raise InputError(f"`min_distance` must be even and at least 2, got {min_distance}")
    work = work or Work()
    weight = min(act, length - act)
    bound = upper_bound(length, act, min_distance, delsarte=False).best
    target = num_classes or bound
    candidates = [g for g in _named(length, groups) if _is_small_enough(length, weight, g)]
    candidates.sort(key=lambda g: (len(g.column_orbits()) > 1, abs(log(g.order * _TYPICAL_ORBITS / target)), g.name))
    work.progress("searching orbits", 0, None, "loading or compiling kernels")
    with work.budget.paused():
        compile_kernels()
    searches = [_Search(g, length, weight, min_distance, work.seed + i) for i, g in enumerate(candidates)]
    for number, place, search in _turns(searches, num_classes):
        best = max(s.size for s in searches)
        note = f"round {number + 1}, {search.group.name}; best {best} words so far"
        work.progress("searching orbits", place, len(searches), note)
        stopped = search.run(number, num_classes, work)
        if num_classes is not None and search.size >= num_classes:
            return search.result(act, stopped)
        if stopped is not None or search.size == bound:
            return _best(searches, act, stopped)
    return _best(searches, act, None)


def _turns(searches: list[_Search], num_classes: int | None) -> Iterator[tuple[int, int, _Search]]:
    """The number of the round, of the turn in it, and the group, as long as K words are within reach."""
    for number, (num_groups, _, _) in enumerate(_ROUNDS):
        searches = sorted(searches, key=lambda s: -s.size)[:num_groups]
        for place, search in enumerate(searches):
            yield number, place, search
        if num_classes is None or not searches:
            continue
        if max(s.size for s in searches) >= _NEEDED[0] * num_classes:
            for place, search in enumerate(searches):
                if search.waits:
                    yield number, place, search
        if number + 1 < len(_NEEDED) and max(s.size for s in searches) < _NEEDED[number + 1] * num_classes:
            return


def _named(length: int, names: list[str] | None) -> list[PermutationGroup]:
    """The groups of the catalogue, or those of them that are asked for."""
    every = catalogue(length)
    if names is None:
        return every
    known = {group.name: group for group in every}
    for name in names:
        if name not in known:
            raise InputError(f"`groups`: no group {name!r} acts on {length} columns; there are {', '.join(known)}")
    return [known[name] for name in names]


def _is_small_enough(length: int, act: int, group: PermutationGroup) -> bool:
    """Whether all words can be looked at, and their orbits listed."""
    visits = sum(comb(top, act - 1) for top in _tops(group))
    return visits <= _MAX_VISITS and comb(length, act) // group.order <= _MAX_ORBITS


def _tops(group: PermutationGroup) -> list[int]:
    """The possible highest ones of the largest word of an orbit: the highest bit of each orbit of bits."""
    return [bits[-1] for bits in group.column_orbits()]


def _best(searches: list[_Search], act: int, stopped: StopReason | None) -> OrbitCode | None:
    """The largest code of all searches, or None where there is none."""
    found = max(searches, key=lambda s: s.size, default=None)
    return None if found is None or found.size == 0 else found.result(act, stopped)


class _Search:
    """The search under one group; `orbits`, `rows` and `choice` are the kernels' (`orbits_kernels`)."""

    def __init__(self, group: PermutationGroup, length: int, act: int, min_distance: int, seed: int) -> None:
        self.group, self.length, self.act = group, length, act
        self.most_shared = act - min_distance // 2
        self.seed = seed
        # Whether its first turn was broken off after a trial.
        self.waits = False
        self.words: NDArray[np.uint64] | None = None
        self.union: NDArray[np.int64] | None = None

    @property
    def size(self) -> int:
        """The most words found."""
        from codedtool.coding.solvers.algebra.orbits_kernels import BEST_SIZE

        return 0 if self.words is None or not len(self.words) else int(self.state[BEST_SIZE])

    def run(self, number: int, num_classes: int | None, work: Work) -> StopReason | None:
        """The turn in round ``number``, or the rest of it where the search `waits`; says why it was stopped.

        It ends early when K words in whole orbits are even.
        """
        from codedtool.coding.solvers.algebra import orbits_kernels as kernels

        if self.words is None:
            stopped = self._enumerate(work)
            if stopped is not None:
                return stopped
        assert self.words is not None
        if not len(self.words):
            return None
        state = self.state
        goal = num_classes or 1 << 62
        _, steps, most_work = _ROUNDS[number]
        is_trial = number == 0 and num_classes is not None and not self.waits
        if not self.waits:
            self.last_step, self.last_work = int(state[kernels.STEPS]) + steps, int(state[kernels.WORK]) + most_work
        self.waits = False
        while state[kernels.STEPS] < self.last_step and state[kernels.WORK] < self.last_work:
            stopped = work.stop_reason()
            if stopped is not None:
                return stopped
            limits = kernels.Limits(
                last_step=self.last_step // _TRIAL if is_trial else self.last_step,
                last_work=min(
                    self.last_work // _TRIAL if is_trial else self.last_work, int(state[kernels.WORK]) + _SLICE_WORK
                ),
                goal=max(goal, int(state[kernels.BEST_SIZE]) + 1),
                patience=_PATIENCE,
            )
            reached = kernels.search_orbits(self.orbits, self.rows, self.choice, limits, state)
            if reached and num_classes is not None:
                words, orbit = self._code()
                self.union = choose_balanced_union(words, orbit, self.length, num_classes, work)
                if self.union is not None:
                    return None
            if state[kernels.BEST_SIZE] == self.orbits.sizes.sum():
                return None
            if is_trial and num_classes is not None and state[kernels.BEST_SIZE] < _WAITS_BELOW * num_classes:
                self.waits = True
                return None
            is_trial = False
        return None

    def result(self, act: int, stopped: StopReason | None) -> OrbitCode:
        """The best code of this group, its words complemented if the search was for the complements."""
        words, orbit = self._code()
        if act != self.act:
            words = words ^ np.uint64((1 << self.length) - 1)
        order = np.argsort(words, kind="stable")
        union = None
        if self.union is not None:
            union = np.flatnonzero(np.isin(order, self.union)).astype(np.int64)
        return OrbitCode(
            words=words[order],
            orbit=orbit[order],
            group=self.group.name,
            num_orbits=int(orbit.max()) + 1,
            union=union,
            stopped=stopped,
        )

    def _code(self) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """The words of the best set of orbits, and the orbit of each."""
        from codedtool.coding.solvers.algebra import orbits_kernels

        assert self.words is not None
        orbits = []
        for word in self.words[self.choice.best_chosen]:
            size = orbits_kernels.orbit_of(self.orbits.shifted, word, self.rows.images)
            orbits.append(self.rows.images[:size].copy())
        numbers = np.repeat(np.arange(len(orbits)), [len(o) for o in orbits])
        return np.concatenate(orbits), numbers.astype(np.int64)

    def _enumerate(self, work: Work) -> StopReason | None:
        """List the admissible orbits and make room for the search."""
        from codedtool.coding.solvers.algebra import orbits_kernels as kernels

        shifted = np.uint64(1) << self.group.elements().astype(np.uint64)
        listing = kernels.Listing(
            words=np.empty(2 * _MAX_ORBITS, dtype=np.uint64),
            sizes=np.empty(2 * _MAX_ORBITS, dtype=np.int64),
            num_kept=np.zeros(1, dtype=np.int64),
            rest=np.zeros(1, dtype=np.uint64),
            points=np.zeros(self.act, dtype=np.int64),
        )
        for top in _tops(self.group):
            listing.rest[0] = (1 << (self.act - 1)) - 1
            finished = top + 1 < self.act
            while not finished:
                stopped = work.stop_reason()
                if stopped is not None:
                    return stopped
                finished = kernels.enumerate_orbits(shifted, self.act, self.most_shared, top, _SLICE_VISITS, listing)
        num = int(listing.num_kept[0])
        self.words, sizes = listing.words[:num].copy(), listing.sizes[:num].copy()
        self.orbits = kernels.Orbits(shifted, self.words, sizes, self.most_shared)
        num_limbs = (num + 63) // 64
        num_rows = min(num, max(8, _ROW_BYTES // (8 * max(1, num_limbs))))
        self.rows = kernels.Rows(
            rows=np.zeros((num_rows, num_limbs), dtype=np.uint64),
            slot_of=np.full(num, -1, dtype=np.int32),
            owner=np.full(num_rows, -1, dtype=np.int32),
            images=np.empty(len(shifted), dtype=np.uint64),
            copied=np.empty(num_limbs, dtype=np.uint64),
        )
        self.choice = kernels.Choice(
            is_chosen=np.zeros(num, dtype=np.bool_),
            blocked=np.zeros(num, dtype=np.int32),
            tabu_until=np.zeros(num, dtype=np.int64),
            best_chosen=np.zeros(num, dtype=np.bool_),
            random_state=np.random.default_rng(self.seed).integers(0, 1 << 63, size=1, dtype=np.uint64),
        )
        self.state = np.zeros(kernels.STATE_SIZE, dtype=np.int64)
        return None


@cache
def compile_kernels() -> None:
    """Compile or load every kernel, on two columns."""
    _Search(PermutationGroup("trivial", 1, 2, ()), 2, 1, 2, 0).run(0, None, Work())
