"""Finding a coding scheme: one facade over algorithm 1, the balance engine, CP-SAT and the upper bounds."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from codedtool.budget import Budget, Progress, silent
from codedtool.coding.balance import select_balanced
from codedtool.coding.bounds import highest_possible_distance, upper_bound
from codedtool.coding.cyclic import linear_code_words
from codedtool.coding.even_choice import choose_even
from codedtool.coding.lexicode import Lexicode, lexicode
from codedtool.coding.orbits import orbit_code
from codedtool.coding.refine import refine_selection, search_all_words
from codedtool.coding.result import SchemeResult, SearchInterrupted
from codedtool.coding.sampler import sample_words
from codedtool.coding.scheme import CodingScheme, best_spread
from codedtool.coding.words import MAX_LENGTH
from codedtool.errors import InfeasibleError, InputError

Method = Literal["auto", "lexicode", "orbits"]
Refine = Literal["auto", "local", "cp-sat", "none"]

# The paper's "brute force" (appendix A) is for lists it can hold in its head: C(10,5) = 252 words, C(10,3) = 120.
ALL_WORDS_LIMIT = 3000

# Algorithm 1 decides about this many words a second; beyond, a construction or a sampler is tried first, because a
# greedy set cut short leaves its leading columns empty.
LEXICODE_LIMIT = 1_000_000_000

# CP-SAT's own unit, about a second of one core each; the cap that makes a result independent of the machine's speed.
_REFINE_LIMIT = 60.0

# The share of a time limit that algorithm 1 may take when it cannot finish: choosing K of G needs the rest.
_ENUMERATION_SHARE = 0.6


def find_scheme(
    num_classes: int,
    length: int,
    act: int,
    min_distance: int | Literal["max"],
    *,
    method: Method = "auto",
    refine: Refine = "auto",
    seed: int = 0,
    budget: Budget | None = None,
    progress: Progress = silent,
) -> SchemeResult:
    """Find K codewords of length N and weight N_act at distance >= H_min with columns as even as possible.

    Algorithm 1 (appendix A) gives the greedy set G; the balance engine chooses K of it. Where G is too small or stays
    less even than it could be, the search is over all words if their list is small (the paper's brute force), and
    otherwise over words of linear codes and unions of orbits of permutation groups, whose columns are even by
    construction. Where the words are too many to list, those and a random greedy search come first. Upper bounds
    refuse at once what cannot exist.

    Args:
        num_classes: K >= 2.
        length: N, 2..64.
        act: N_act, 1..N-1.
        min_distance: H_min >= 2 (words of one weight lie at even distances: an odd value is the next even one),
            or "max" for the highest at which K words are found.
        method: "lexicode" chooses from G only; "orbits" from linear codes and unions of orbits only; "auto" as above.
        refine: "auto" | "local" (no CP-SAT) | "cp-sat" (CP-SAT before other methods) | "none" (the first K words of G).
        seed: of every random choice; equal arguments and seed give the equal scheme unless a time limit cut it.
        budget: time limit and interrupt flag; default none.
        progress: where to report.

    Raises:
        InputError: an argument out of range.
        InfeasibleError: proved impossible, or not found; the message gives the bound or what was reached.
        SearchInterrupted: on Ctrl-C or `Budget.interrupt`, carrying the best scheme so far.
    """
    _check_arguments(num_classes, length, act, min_distance, seed)
    budget = budget or Budget()
    num_words = math.comb(length, act)
    if num_words < num_classes:
        raise InfeasibleError(
            f"K={num_classes} distinct codewords cannot exist: C({length}, {act}) = {num_words}; "
            "lower --K, or change --N or --act"
        )
    if min_distance == "max":
        return _find_highest(num_classes, length, act, method, refine, seed, budget, progress)
    distance = min_distance + min_distance % 2
    progress("bounding", 0, None, f"upper bounds on the number of words at distance {distance}")
    bound = upper_bound(length, act, distance)
    if bound.best < num_classes:
        raise InfeasibleError(
            f"K={num_classes} codewords of length N={length} and weight {act} at distance {distance} cannot exist: "
            f"at most {bound.best} do ({bound.source} bound); lower --hmin or --K, or raise --N"
        )
    search = _Search(num_classes, length, act, distance, method, refine, seed, budget, progress)
    try:
        result = search.run()
    except KeyboardInterrupt:
        raise SearchInterrupted(search.best()) from None
    if result.stopped == "interrupted":
        raise SearchInterrupted(result)
    return result


def scheme_from_words(
    words: list[str], num_classes: int, length: int, act: int, min_distance: int, *, progress: Progress = silent
) -> SchemeResult:
    """The scheme whose rows are the given codewords, in their order, held to the same rules as a found one.

    Args:
        words: K strings of N binary digits, leftmost digit first as in table 4.
        num_classes, length, act, min_distance: what the words must satisfy.
        progress: where to report.

    Raises:
        InputError: not K words of N digits 0/1 with N_act ones, equal words, or a pair closer than ``min_distance``.
    """
    start = time.monotonic()
    _check_arguments(num_classes, length, act, min_distance, 0)
    if len(words) != num_classes:
        raise InputError(f"--words gives {len(words)} codewords, --K asks for {num_classes}")
    for row, word in enumerate(words):
        if len(word) != length or set(word) - {"0", "1"}:
            raise InputError(f"--words: word {row} is {word!r}, a codeword has {length} digits 0 or 1")
        if word.count("1") != act:
            raise InputError(f"--words: word {row} ({word}) has {word.count('1')} ones, rule A asks for {act}")
    scheme = CodingScheme.from_words(np.array([int(word, 2) for word in words], dtype=np.uint64), length)
    if scheme.min_distance < min_distance:
        raise InputError(
            f"--words: the closest codewords lie at distance {scheme.min_distance}, --hmin asks for {min_distance}"
        )
    progress("bounding", 0, None, "upper bounds on the number of words")
    return SchemeResult(
        scheme=scheme,
        method="given",
        selection="given",
        seed=0,
        greedy_size=None,
        num_words=math.comb(length, act),
        bound=upper_bound(length, act, scheme.min_distance),
        next_bound=upper_bound(length, act, scheme.min_distance + 2),
        seconds={"enumerate": 0.0, "select": 0.0, "total": time.monotonic() - start},
    )


def _check_arguments(num_classes: int, length: int, act: int, min_distance: int | str, seed: int) -> None:
    """Raise InputError for an argument out of its range."""
    if num_classes < 2:
        raise InputError(f"K must be at least 2, got {num_classes}")
    if not 2 <= length <= MAX_LENGTH:
        raise InputError(f"N must be between 2 and {MAX_LENGTH}, got {length}: codewords are held in {MAX_LENGTH} bits")
    if not 1 <= act < length:
        raise InputError(f"act must be between 1 and N-1={length - 1}, got {act}")
    if isinstance(min_distance, int) and min_distance < 2:
        raise InputError(
            f"hmin must be at least 2 (distinct words of one weight differ in two digits), got {min_distance}"
        )
    if seed < 0:
        raise InputError(f"seed must be 0 or more, got {seed}")


def _find_highest(
    num_classes: int,
    length: int,
    act: int,
    method: Method,
    refine: Refine,
    seed: int,
    budget: Budget,
    progress: Progress,
) -> SchemeResult:
    """`find_scheme` at the highest distance for which it succeeds, tried downwards from the highest not excluded."""
    for distance in range(highest_possible_distance(num_classes, length, act), 3, -2):
        try:
            return find_scheme(
                num_classes,
                length,
                act,
                distance,
                method=method,
                refine=refine,
                seed=seed,
                budget=budget,
                progress=progress,
            )
        except InfeasibleError:
            if budget.stop_reason() is not None:
                raise
    return find_scheme(
        num_classes, length, act, 2, method=method, refine=refine, seed=seed, budget=budget, progress=progress
    )


class _Search:
    """One search at one distance; keeps the best valid choice of words where an interruption can find it."""

    def __init__(
        self,
        num_classes: int,
        length: int,
        act: int,
        min_distance: int,
        method: Method,
        refine: Refine,
        seed: int,
        budget: Budget,
        progress: Progress,
    ) -> None:
        self.num_classes = num_classes
        self.length = length
        self.act = act
        self.min_distance = min_distance
        self.method = method
        self.refine = refine
        self.seed = seed
        self.budget = budget
        self.progress = progress
        self.target = best_spread(num_classes, length, act)
        self.num_words = math.comb(length, act)
        self.greedy: Lexicode | None = None
        self.chosen: NDArray[np.uint64] | None = None
        self.chosen_from = "lexicode"
        self.selection = "first words"
        self.seconds = {"enumerate": 0.0, "select": 0.0}
        self.start = time.monotonic()

    def run(self) -> SchemeResult:
        """Enumerate, select, refine; the result is verified before it is returned."""
        for step in self._steps():
            if self._spread() <= self.target or self.budget.stop_reason() is not None:
                break
            step()
        result = self.best()
        if result is None:
            if self.budget.stop_reason() == "interrupted":
                raise SearchInterrupted(None)
            raise InfeasibleError(self._not_found())
        return result

    def _steps(self) -> list[Callable[[], None]]:
        """What is tried, in this order, until K words with columns as even as possible are found."""
        structured = [self._choose_from_linear_code, self._choose_from_orbits]
        if self.method == "orbits":
            return structured
        greedy = [self._enumerate, self._choose_from_greedy]
        refined = [self._refine_greedy] if self.refine in ("auto", "cp-sat") else []
        if self.method == "lexicode":
            return [*greedy, *refined]
        if self.refine in ("none", "local"):
            return greedy
        if self.num_words <= ALL_WORDS_LIMIT:
            return [*greedy, *refined, self._choose_from_all_words]
        if self.num_words <= LEXICODE_LIMIT:
            first_refine = refined if self.refine == "cp-sat" else []
            return [*greedy, *first_refine, *structured, self._choose_from_sample, *refined]
        return [*structured, self._choose_from_sample, *greedy, *refined]

    def best(self) -> SchemeResult | None:
        """The best valid scheme so far, or None while fewer than K words are known."""
        words = self.chosen
        if words is None:
            return None
        scheme = CodingScheme.from_words(np.sort(words), self.length)
        if scheme.num_classes != self.num_classes or scheme.act != self.act or scheme.min_distance < self.min_distance:
            raise AssertionError(f"the solver's words break a rule: {scheme!r}, H_min {scheme.min_distance}")
        greedy_stopped = self.greedy.stopped if self.greedy is not None else None
        return SchemeResult(
            scheme=scheme,
            method=self.chosen_from,
            selection=self.selection,
            seed=self.seed,
            greedy_size=len(self.greedy.words) if self.greedy is not None else None,
            num_words=self.num_words,
            bound=upper_bound(self.length, self.act, scheme.min_distance),
            next_bound=upper_bound(self.length, self.act, scheme.min_distance + 2),
            seconds={**self.seconds, "total": time.monotonic() - self.start},
            stopped=self.budget.stop_reason() or greedy_stopped,
        )

    def _enumerate(self) -> None:
        """Algorithm 1's greedy set G, within its share of the time."""
        with self._timed("enumerate"):
            self.greedy = lexicode(
                self.length,
                self.act,
                self.min_distance,
                budget=self.budget.share(_ENUMERATION_SHARE),
                progress=self.progress,
            )
        # Taken at once: an interruption may leave no time to choose better ones.
        if self.chosen is None and len(self.greedy.words) >= self.num_classes:
            self.chosen = self.greedy.words[: self.num_classes]

    def _choose_from_greedy(self) -> None:
        """Choose K of G by local search; ``refine`` "none" keeps its first K words."""
        words = self._greedy_words()
        if len(words) < self.num_classes or self.refine == "none":
            return
        with self._timed("select"):
            self._select(words, "lexicode")

    def _choose_from_linear_code(self) -> None:
        """K words of weight N_act of the best linear code known to `linear_code_words`."""
        with self._timed("enumerate"):
            code = linear_code_words(
                self.length, self.act, self.min_distance, budget=self.budget, progress=self.progress
            )
        if code is not None and len(code.words) >= self.num_classes:
            with self._timed("select"):
                self._choose_even(code.words, code.orbit, "linear code", code.name)

    def _choose_from_orbits(self) -> None:
        """K words of a union of orbits of some group of the catalogue."""
        with self._timed("enumerate"):
            code = orbit_code(
                self.length,
                self.act,
                self.min_distance,
                num_classes=self.num_classes,
                seed=self.seed,
                budget=self.budget,
                progress=self.progress,
            )
        if code is None or len(code.words) < self.num_classes:
            return
        with self._timed("select"):
            if code.union is not None:
                self._offer(code.words[code.union], "orbits", f"whole orbits of {code.group}")
            else:
                self._choose_even(code.words, code.orbit, "orbits", code.group)

    def _choose_from_sample(self) -> None:
        """K words drawn at random and kept where they fit."""
        with self._timed("enumerate"):
            sample = sample_words(
                self.length,
                self.act,
                self.min_distance,
                self.num_classes,
                seed=self.seed,
                budget=self.budget,
                progress=self.progress,
            )
        if len(sample.words) < self.num_classes:
            return
        self._offer(sample.words[: self.num_classes], "random greedy", f"{sample.num_draws} draws")
        with self._timed("select"):
            if self._spread() > self.target:
                self._select(sample.words, "random greedy")

    def _choose_even(self, words: NDArray[np.uint64], orbit: NDArray[np.int64], method: str, name: str) -> None:
        """K of words that come in orbits, whole ones first."""
        indices = choose_even(
            words,
            orbit,
            self.length,
            self.act,
            self.num_classes,
            self.min_distance,
            seed=self.seed,
            budget=self.budget,
            progress=self.progress,
        )
        self._offer(words[indices], method, name)

    def _offer(self, words: NDArray[np.uint64], method: str, selection: str) -> None:
        """Take these K words if their columns are more even than those of the best choice so far."""
        if CodingScheme.from_words(words, self.length).spread < self._spread():
            self.chosen, self.chosen_from, self.selection = words, method, selection

    def _greedy_words(self) -> NDArray[np.uint64]:
        """G, or nothing before it was enumerated."""
        return self.greedy.words if self.greedy is not None else np.empty(0, dtype=np.uint64)

    def _select(self, words: NDArray[np.uint64], method: str) -> None:
        """K of ``words`` by the balance engine."""
        selected = select_balanced(
            words,
            self.length,
            self.act,
            self.num_classes,
            self.min_distance,
            seed=self.seed,
            budget=self.budget,
            progress=self.progress,
        )
        self._offer(words[selected.indices], method, selected.method)

    def _refine_greedy(self) -> None:
        """K of G by CP-SAT."""
        words = self._greedy_words()
        if len(words) < self.num_classes:
            return
        with self._timed("select"):
            self._run_cp_sat(words)

    def _run_cp_sat(self, words: NDArray[np.uint64]) -> None:
        hint = None
        if self.chosen is not None and self.chosen_from == "lexicode":
            hint = np.flatnonzero(np.isin(words, self.chosen))
        refined = refine_selection(
            words,
            self.length,
            self.act,
            self.num_classes,
            spread=self.target,
            hint=hint,
            seed=self.seed,
            budget=self.budget,
            progress=self.progress,
            deterministic_limit=_REFINE_LIMIT,
        )
        if refined.indices is not None:
            self._offer(words[refined.indices], "lexicode", "CP-SAT")

    def _choose_from_all_words(self) -> None:
        """The paper's brute force: K of all C(N, N_act) words."""
        with self._timed("select"):
            found = search_all_words(
                self.length,
                self.act,
                self.min_distance,
                self.num_classes,
                spread=self.target,
                seed=self.seed,
                budget=self.budget,
                progress=self.progress,
                deterministic_limit=_REFINE_LIMIT,
            )
        if found is not None:
            self._offer(found, "all words", "CP-SAT")

    def _spread(self) -> float:
        """S_max - S_min of the words chosen so far; infinite while there are none."""
        if self.chosen is None:
            return math.inf
        return CodingScheme.from_words(self.chosen, self.length).spread

    def _not_found(self) -> str:
        """Why there is no scheme, and what to change."""
        greedy = self.greedy
        size = len(self._greedy_words())
        asked = f"K={self.num_classes} codewords at distance {self.min_distance}"
        if greedy is None:
            return f"{asked} were not found; lower --hmin or --K, raise --N, or try --method auto or another --seed"
        if not greedy.complete:
            share = greedy.num_done / greedy.num_words
            return (
                f"{asked} were not found within the time limit: algorithm 1 decided {share:.3g} of {greedy.num_words} "
                f"words and kept {size}; raise --time-limit, or lower --hmin or --K"
            )
        return (
            f"{asked} were not found: algorithm 1 over all {greedy.num_words} words keeps {size}, and they are not "
            f"proved impossible; lower --hmin or --K, or raise --N"
        )

    @contextmanager
    def _timed(self, phase: str) -> Iterator[None]:
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds[phase] += time.monotonic() - start
