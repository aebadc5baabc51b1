"""Standard output and error that never end a command: closed, a pipe without a reader, full, or not UTF-8."""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr
from typing import TextIO

from codedtool.text import PLAINLY

# Errors of a pipe or socket whose reader went away: nobody wants the rest.
_GONE = (errno.EPIPE, errno.ESHUTDOWN, errno.ECONNRESET)


class _Lasting(io.RawIOBase):
    """A file descriptor whose first failed write is kept; later writes go nowhere."""

    def __init__(self, descriptor: int, name: str) -> None:
        self.name = name
        self._descriptor = descriptor
        self._is_terminal = os.isatty(descriptor)
        self.failure: OSError | None = None

    def write(self, content: bytes) -> int:  # type: ignore[override]  # any buffer
        while self.failure is None:
            try:
                return os.write(self._descriptor, content)
            except BlockingIOError:
                # Another process made the descriptor non-blocking: wait until it takes bytes again.
                select.select([], [self._descriptor], [], 1.0)
            except OSError as error:
                self.failure = error
        return len(content)

    @property
    def is_gone(self) -> bool:
        """Whether the reader went away: the other end of a pipe, or the terminal."""
        number = self.failure.errno if self.failure is not None else None
        return number in _GONE or (self._is_terminal and number == errno.EIO)

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return self._is_terminal

    def fileno(self) -> int:
        return self._descriptor


def guard_streams() -> None:
    """Replace stdout and stderr of this process by streams whose writes do not fail.

    A closed descriptor 0 to 2 is opened on the null device first, so that no file of the command gets its number.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    sys.stdout, sys.stderr = _lasting(sys.stdout, 1, "<stdout>"), _lasting(sys.stderr, 2, "<stderr>")


def _lasting(old: TextIO | None, descriptor: int, name: str) -> TextIO:
    if old is not None:
        old.flush()
    # A line of a terminal, and every line of stderr, is seen at once.
    immediate = descriptor == 2 or os.isatty(descriptor)
    return io.TextIOWrapper(
        io.BufferedWriter(_Lasting(descriptor, name)),  # type: ignore[type-var]  # a raw stream
        encoding=getattr(old, "encoding", None) or "utf-8",
        errors=PLAINLY,
        line_buffering=immediate,
    )


def failure_of(stream: TextIO | None) -> str | None:
    """Why a guarded stream lost what was written to it; None if it did not, or if its reader went away."""
    raw = _raw(stream)
    if stream is None or raw is None:
        return None
    stream.flush()
    return None if raw.failure is None or raw.is_gone else raw.failure.strerror or str(raw.failure)


@contextmanager
def without_stderr() -> Iterator[None]:
    """Within it, nothing is written to stderr; of a guarded stderr, neither by C++ code or worker processes."""
    is_guarded = _raw(sys.stderr) is not None
    with redirect_stderr(io.StringIO()), _on_null_device() if is_guarded else nullcontext():
        yield


@contextmanager
def _on_null_device() -> Iterator[None]:
    """Within it, descriptor 2 is the null device."""
    saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)


def _raw(stream: TextIO | None) -> _Lasting | None:
    """The descriptor of a stream that `guard_streams` made; None of another stream."""
    raw = getattr(getattr(stream, "buffer", None), "raw", None)
    return raw if isinstance(raw, _Lasting) else None
