"""The means of a search: a Work holds a seed, a Budget, a Progress and a Stopwatch.

The caller makes one Work per search, and every function that takes part in the search is handed the same one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

from codedtool.errors import InputError

StopReason = Literal["time limit", "interrupted", "word limit", "out of reach"]


class Progress(Protocol):
    """A function that long work calls to report; the command line draws a bar, a library caller passes any callable."""

    def __call__(self, phase: str, done: float, total: float | None, note: str = "") -> None:
        """Report that ``done`` of ``total`` units of ``phase`` are finished (``total`` None: unknown)."""


def silent(phase: str, done: float, total: float | None, note: str = "") -> None:
    """Report nowhere."""


def usable_cores() -> int:
    """Number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Budget:
    """A wall-clock limit and an interrupt flag; long work polls both between its slices.

    Args:
        time_limit: seconds from construction, those within `paused` not counted, or None for no limit.
        clock: the monotonic clock, in seconds; tests pass their own.

    A search that ends by itself gives the same result every time. A search that the time limit cuts short does not,
    and its result says that it was cut short.
    """

    def __init__(self, time_limit: float | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.time_limit = time_limit
        self.clock = clock
        self._start = clock()
        self._interrupted = False
        self._watched = 0
        self._parent: Budget | None = None

    @contextmanager
    def paused(self) -> Iterator[None]:
        """The time within it does not count, here and in the budget that this is a share of: the compiler's time."""
        begin = self.clock()
        try:
            yield
        finally:
            self._postpone(self.clock() - begin)

    def _postpone(self, seconds: float) -> None:
        self._start += seconds
        if self._parent is not None:
            self._parent._postpone(seconds)

    def elapsed(self) -> float:
        """Seconds since construction, without those that were `paused`."""
        return self.clock() - self._start

    def interrupt(self) -> None:
        """Ask all work under this budget to stop after its present slice; safe in a signal handler."""
        self._interrupted = True

    @property
    def is_watched(self) -> bool:
        """Whether the work asks for the `stop_reason` now; if not, nothing but an exception ends it."""
        return self._watched > 0

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Within it, the work asks for the `stop_reason` every now and then."""
        self._watched += 1
        try:
            yield
        finally:
            self._watched -= 1

    def share(self, fraction: float) -> Budget:
        """A budget for a part of the work: ``fraction`` of the time left, with the same clock and interrupt flag."""
        left = None if self.time_limit is None else max(0.0, self.time_limit - self.elapsed()) * fraction
        part = Budget(left, clock=self.clock)
        part._parent = self
        return part

    def stop_reason(self) -> StopReason | None:
        """Why work must stop now, or None if it may continue."""
        if self._is_interrupted():
            return "interrupted"
        if self.time_limit is not None and self.elapsed() >= self.time_limit:
            return "time limit"
        return None

    def _is_interrupted(self) -> bool:
        return self._interrupted or (self._parent is not None and self._parent._is_interrupted())


class Stopwatch:
    """Wall-clock seconds since construction, and seconds spent in named phases.

    Args:
        phases: names of the phases.
        clock: the monotonic clock, in seconds.
    """

    def __init__(self, *phases: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._start = clock()
        self._phases = dict.fromkeys(phases, 0.0)

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Add the seconds spent inside the ``with`` block to ``phase``."""
        start = self._clock()
        try:
            yield
        finally:
            self._phases[phase] += self._clock() - start

    def seconds(self) -> dict[str, float]:
        """Phase -> seconds, and "total" -> seconds since construction."""
        return {**self._phases, "total": self._clock() - self._start}


@dataclass(frozen=True)
class Work:
    """The seed and the limits of a search, and the receivers of its reports.

    Attributes:
        seed: the seed of every random choice, 0 or more.
        budget: the time limit and the interrupt flag, polled about ten times a second.
        progress: called with the phase, how far it is, and a note.
        stopwatch: counts seconds of the phases "enumerate" (words are listed) and "select" (K of them are chosen).

    Raises:
        InputError: the seed is negative.
    """

    seed: int = 0
    budget: Budget = field(default_factory=Budget)
    progress: Progress = silent
    stopwatch: Stopwatch = field(default_factory=lambda: Stopwatch("enumerate", "select"), compare=False)

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise InputError(f"`seed` must be 0 or more, got {self.seed}")

    @classmethod
    def started(cls, seed: int, budget: Budget | None, progress: Progress) -> Work:
        """Work that starts now; without a ``budget`` it has no limit. The stopwatch goes by the budget's clock."""
        budget = budget or Budget()
        return cls(seed, budget, progress, Stopwatch("enumerate", "select", clock=budget.clock))

    def share(self, fraction: float) -> Work:
        """The same work, limited to ``fraction`` of the time left."""
        return replace(self, budget=self.budget.share(fraction))

    def stop_reason(self) -> StopReason | None:
        """Why work must stop now, or None if it may continue."""
        return self.budget.stop_reason()
