"""Standard output and error that never end a command: closed, a pipe without a reader, full, or not UTF-8."""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import TextIO

from codedtool.text import PLAINLY

# The reader went away: nobody wants the rest.
_GONE = (errno.EPIPE, errno.ESHUTDOWN, errno.ECONNRESET)


class _Lasting(io.RawIOBase):
    """A file descriptor whose first failed write is kept; later writes go nowhere."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.failure: OSError | None = None

    def write(self, content: bytes) -> int:  # type: ignore[override]  # any buffer
        if self.failure is None:
            try:
                return os.write(self._descriptor, content)
            except BlockingIOError:
                return self._write_patiently(content)
            except OSError as error:
                self.failure = error
        return len(content)

    def _write_patiently(self, content: bytes) -> int:
        """Write to a descriptor that another process made non-blocking, once it takes bytes again."""
        import select

        select.select([], [self._descriptor], [], 1.0)
        try:
            return os.write(self._descriptor, content)
        except BlockingIOError:
            return 0
        except OSError as error:
            self.failure = error
            return len(content)

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def fileno(self) -> int:
        return self._descriptor


def guard_streams() -> None:
    """Replace stdout and stderr of this process by streams whose writes do not fail.

    A closed descriptor 0 to 2 is opened on the null device first, so that no file of the command gets its number.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        old = getattr(sys, name)
        setattr(sys, name, _lasting(old, descriptor))


def _lasting(old: TextIO | None, descriptor: int) -> TextIO:
    if old is not None:
        old.flush()
    # A line of a terminal, and every line of stderr, is seen at once.
    immediate = descriptor == 2 or os.isatty(descriptor)
    return io.TextIOWrapper(
        io.BufferedWriter(_Lasting(descriptor)),  # type: ignore[type-var]  # a raw stream
        encoding=getattr(old, "encoding", None) or "utf-8",
        errors=PLAINLY,
        line_buffering=immediate,
    )


def failure_of(stream: TextIO | None) -> str | None:
    """Why a guarded stream lost what was written to it; None if it did not, or if its reader went away."""
    if stream is None:
        return None
    stream.flush()
    raw = getattr(getattr(stream, "buffer", None), "raw", None)
    failure = raw.failure if isinstance(raw, _Lasting) else None
    return None if failure is None or failure.errno in _GONE else failure.strerror or str(failure)
