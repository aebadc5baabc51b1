"""Handlers of signals for a while, and a Ctrl-C that would get lost in a library."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType

# Whether a handler of `signals_handled` has raised a KeyboardInterrupt since `forget_interrupts`.
_RAISED = False


def was_interrupted() -> bool:
    """Whether Ctrl-C or SIGTERM has raised a KeyboardInterrupt in this process since `forget_interrupts`.

    A library's C code can turn the KeyboardInterrupt into an error of its own: the import of a compiled module fails
    with an ImportError, a drawing with a ValueError. Code that catches errors of every kind asks here for the cause.
    """
    return _RAISED


def forget_interrupts() -> None:
    """To be called where new work begins."""
    global _RAISED
    _RAISED = False


def _noted(handler: Callable[[int, FrameType | None], None]) -> Callable[[int, FrameType | None], None]:
    def noting(number: int, frame: FrameType | None) -> None:
        global _RAISED
        try:
            handler(number, frame)
        except KeyboardInterrupt:
            _RAISED = True
            raise

    return noting


@contextmanager
def signals_handled(handlers: Mapping[signal.Signals, Callable[[int, FrameType | None], None]]) -> Iterator[None]:
    """Within it, the signals go to these handlers, and afterwards to those that were there before.

    To be used in the main thread. A signal that C code has taken stays with it, because Python could not give it back.
    A KeyboardInterrupt of a handler is noted for `was_interrupted`.
    """
    previous = {
        number: signal.signal(number, _noted(handler))
        for number, handler in handlers.items()
        if signal.getsignal(number) is not None
    }
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Within it, Ctrl-C and SIGTERM wait for the end. Also a decorator of a function.

    For work in which a library's C code calls Python code and drops its exceptions, and a KeyboardInterrupt with them.
    An import of torch then goes on with numpy imported by half, and a drawing of matplotlib ends in a ValueError or
    TypeError. Such work takes some seconds at most.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[int] = []

    def hold(number: int, frame: FrameType | None) -> None:
        held.append(number)

    try:
        with signals_handled({signal.SIGINT: hold, signal.SIGTERM: hold}):
            yield
    finally:
        for number in dict.fromkeys(held):
            signal.raise_signal(number)
