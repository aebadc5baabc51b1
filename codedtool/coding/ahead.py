"""The kernels of the next solver compiled in a second process, while the present solver compiles its own or searches.

numba compiles one function at a time in a process, and the first search of a machine is mostly compiling. The second
process leaves the machine code in numba's cache (`codedtool.coding.compiled`), from where this process loads it.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from types import TracebackType

from codedtool.budget import Work, usable_cores

# Seconds between two looks at the second process, and after which it is not waited for any longer.
_POLL_SECONDS = 0.02
_MOST_SECONDS = 60.0


class Ahead:
    """At most one second process at a time; it ends with the ``with`` block.

    The function ``compile_kernels`` of a module X stands for the kernels of X_kernels, which it compiles.
    """

    def __init__(self) -> None:
        self._compiling: Callable[[], None] | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Ahead:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end()

    def prepare(self, present: Callable[[], None], following: Callable[[], None] | None, work: Work) -> None:
        """Make ready for kernels that are needed now: wait for them if they are being compiled.

        If they are still to be compiled, by this process, the ``following`` ones are compiled in a second one.
        """
        if self._compiling is present:
            with work.budget.paused():
                self._wait(work)
            return
        if self._process is not None and self._process.poll() is not None:
            # Its kernels were not needed after all.
            self._end()
        if following is not None and self._process is None and _has_core() and _lacks(present) and _lacks(following):
            self._begin(following)

    def _begin(self, compile_kernels: Callable[[], None]) -> None:
        module, name = compile_kernels.__module__, compile_kernels.__name__
        # Without the search for cycles among Python's objects, which is a tenth of the time of compiling.
        program = f"import gc, sys; gc.disable(); sys.path[:] = {sys.path!r}; from {module} import {name}; {name}()"
        # Without a second process, this one compiles the kernels when their turn comes.
        with suppress(OSError, ValueError):
            self._process = subprocess.Popen(
                [sys.executable, "-c", program],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                # Ctrl-C at the terminal reaches this process only, which ends the other one.
                start_new_session=True,
            )
            self._compiling = compile_kernels

    def _wait(self, work: Work) -> None:
        """Until the second process has ended, for a minute at most, or until an interruption."""
        assert self._process is not None
        deadline = time.monotonic() + _MOST_SECONDS
        while self._process.poll() is None and time.monotonic() < deadline and work.stop_reason() != "interrupted":
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_POLL_SECONDS)
        self._end()

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = self._compiling = None


def _lacks(compile_kernels: Callable[[], None]) -> bool:
    from codedtool.coding.compiled import cache_lacks

    return cache_lacks(import_module(f"{compile_kernels.__module__}_kernels"))


def _has_core() -> bool:
    """Whether this process may use a second core, and can start another Python."""
    return usable_cores() > 1 and bool(sys.executable) and not getattr(sys, "frozen", False)
