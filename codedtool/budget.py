"""How long work may go on, and where it says how far it is: a Budget and a Progress, passed down to every engine."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal, Protocol

StopReason = Literal["time limit", "interrupted", "word limit"]


class Progress(Protocol):
    """Where long work reports; the command line draws it, a library caller may pass any callable of this shape."""

    def __call__(self, phase: str, done: float, total: float | None, note: str = "") -> None:
        """Report that ``done`` of ``total`` units of ``phase`` are finished (``total`` None: unknown)."""


def silent(phase: str, done: float, total: float | None, note: str = "") -> None:
    """Report nowhere."""


class Budget:
    """A wall-clock limit and an interrupt flag that engines poll between slices of work.

    Args:
        time_limit: seconds from construction (or the last `restart`), or None for no limit.
        clock: the monotonic clock, in seconds; tests pass their own.

    Work bounded only by counted steps is repeatable; a result that a time limit cut short is not,
    and says so.
    """

    def __init__(self, time_limit: float | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.time_limit = time_limit
        self._clock = clock
        self._start = clock()
        self._interrupted = False
        self._parent: Budget | None = None

    def restart(self) -> None:
        """Start the time limit again from now: waiting for the compiler is not charged to the search."""
        self._start = self._clock()
        if self._parent is not None:
            self._parent.restart()

    def elapsed(self) -> float:
        """Seconds since construction or `restart`."""
        return self._clock() - self._start

    def interrupt(self) -> None:
        """Ask all work under this budget to stop at its next slice; safe in a signal handler."""
        self._interrupted = True

    def share(self, fraction: float) -> Budget:
        """A budget for one part of the work: ``fraction`` of the time left, the same clock and interrupt flag."""
        left = None if self.time_limit is None else max(0.0, self.time_limit - self.elapsed()) * fraction
        part = Budget(left, clock=self._clock)
        part._parent = self
        return part

    def stop_reason(self) -> StopReason | None:
        """Why work must stop now, or None while it may go on."""
        if self._interrupted or (self._parent is not None and self._parent._interrupted):
            return "interrupted"
        if self.time_limit is not None and self.elapsed() >= self.time_limit:
            return "time limit"
        return None
