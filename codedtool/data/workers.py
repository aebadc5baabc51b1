"""Processes that prepare batches: how they start, how they end, and what is said when one ends too early."""

from __future__ import annotations

import multiprocessing
import multiprocessing.util
import os
import signal
import sys
import tempfile
import threading
import warnings
import weakref
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker
from multiprocessing.process import BaseProcess
from types import ModuleType
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from codedtool.budget import usable_cores
from codedtool.errors import InputError
from codedtool.interrupts import interrupts_held

# How torch's messages begin when a worker ended or a batch was not received, and multiprocessing's when a file
# descriptor was not.
_SIGNS = (
    "DataLoader worker (pid",
    "Pin memory thread exited",
    "Too many open files. Communication with the workers",
    "received 0 items of ancdata",
)

# torch's own words about more workers than cores; `in_workers` says it in this project's.
warnings.filterwarnings("ignore", "This DataLoader will create")

MORE_SHARED_MEMORY = "lower `num_workers`, or give the container more (docker run --shm-size)"

# Of the 107 letters of a socket's path, multiprocessing's own names take some thirty.
_LONGEST_FOLDER = 70

# The workers that may still run.
_WORKERS: weakref.WeakSet[BaseProcess] = weakref.WeakSet()


def in_workers(jobs: Iterator[Any], prepare: Dataset[Any], *, num_workers: int, pin_memory: bool) -> Iterator[Any]:
    """Let processes prepare jobs; yields their results in order.

    Args:
        jobs: what each batch needs.
        prepare: ``prepare[job]`` makes the batch of a job; it is sent to every process once.
        num_workers: number of processes, from 1.
        pin_memory: as for `torch.utils.data.DataLoader`.

    Raises:
        InputError: a worker cannot be started, or ended.
    """
    if num_workers > usable_cores():
        warnings.warn(
            f"`num_workers` {num_workers} is more than the cores that this process may use ({usable_cores()}); fewer "
            "prepare images as fast, in less memory",
            stacklevel=1,  # the command line shows warnings of this package's files in one line
        )
    workers: set[BaseProcess] = set()
    others = set(multiprocessing.active_children())
    try:
        _shorten_socket_names()
        with _without_main():
            loader = DataLoader(
                prepare,
                batch_size=None,
                sampler=jobs,
                collate_fn=_as_it_is,
                num_workers=num_workers,
                pin_memory=pin_memory,
                worker_init_fn=_start_worker,
                multiprocessing_context=_context(),
                # Without its own generator, the loader would draw from torch's global one.
                generator=torch.Generator(),
            )
            # An interrupted start would leave workers that torch does not know, and would not wait for.
            with interrupts_held():
                _start_server()
                batches = iter(loader)
                workers = set(multiprocessing.active_children()) - others
                _WORKERS.update(workers)
        yield from batches
    except (RuntimeError, EOFError, OSError) as error:
        # A dead worker shows as torch's RuntimeError, or as a broken pipe if it was sending a batch.
        if isinstance(error, RuntimeError) and not str(error).startswith(_SIGNS):
            raise
        if not workers:
            raise InputError(
                f"the processes that prepare images cannot be started ({error}); lower `num_workers`: 0 prepares them "
                "in this process"
            ) from None
        raise InputError(how_it_ended(workers, error)) from None


def how_it_ended(workers: Collection[BaseProcess], error: Exception) -> str:
    """Say how the first worker that ended did so, and what helps."""
    subject = "a process that prepares images"
    for worker in workers:
        worker.join(0.5)  # its exit code comes a little later than the error
    codes = [worker.exitcode for worker in workers if worker.exitcode]
    if not codes:
        return (
            f"{subject} cannot hand over a batch ({error}); raise the limit on open files (ulimit -n), or prepare "
            "images in this process with `num_workers` 0"
        )
    # A signal tells more than the exit codes of workers that ended because another had.
    code = min(codes, key=lambda code: (code > 0, code == -signal.SIGTERM))
    if code > 0:
        return (
            f"{subject} ended with exit code {code}; what it printed says why. `num_workers` 0 prepares images in this "
            "process and shows the error"
        )
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    if name == "SIGKILL":
        return (
            f"{subject} was killed (SIGKILL), as the system does when memory runs out: lower `num_workers`, or free "
            "memory"
        )
    if name == "SIGBUS":
        return f"{subject} was ended by SIGBUS, because shared memory is full: {MORE_SHARED_MEMORY}"
    return f"{subject} was ended by {name}; `num_workers` 0 prepares images in this process"


def _shorten_socket_names() -> None:
    """Make multiprocessing's folder of sockets elsewhere if the path of the temporary folder is too long for them."""
    usual = tempfile.gettempdir()
    short = (folder for folder in ("/tmp", "/var/tmp", "/dev/shm") if os.access(folder, os.W_OK))
    tempfile.tempdir = usual if len(os.fsencode(usual)) <= _LONGEST_FOLDER else next(short, usual)
    try:
        multiprocessing.util.get_temp_dir()  # made on the first call, and kept
    finally:
        tempfile.tempdir = usual


@contextmanager
def _without_main() -> Iterator[None]:
    """Within it, processes that start do not run the user's script again.

    multiprocessing imports the main module in every process, for objects that are defined there. The workers get only
    objects of this package. A script without ``if __name__ == "__main__"`` would begin its whole work in every worker;
    a script from stdin cannot be imported at all.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _context() -> multiprocessing.context.BaseContext:
    """Choose how workers start: forked from a clean server process that has done the imports, if the system can.

    Workers are not forked from this process: it may hold threads (CUDA, XLA, numba's OpenMP pool) that do not survive
    a fork.
    """
    if not _has_server():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["codedtool.data.loader", "timm.data"])
    return context


def _start_server() -> None:
    """Start the process that forks the workers, if there is none yet, so that it and they never see Ctrl-C.

    A terminal sends it to all processes of a command. Only the main process acts on it: it may still need a batch to
    finish its step, and it ends the others. A blocked signal is inherited. SIGTERM is not blocked, because torch ends
    workers with it.
    """
    if not _has_server():
        return
    # Started later, the tracker would unblock the signal again.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _has_server() -> bool:
    return "forkserver" in multiprocessing.get_all_start_methods()


def _start_worker(worker: int) -> None:
    """Let a worker ignore Ctrl-C, and end when the main process ends.

    Ctrl-C is blocked already if `_start_server` started the server. torch's own watchdog watches the process that
    forked the worker, which here is the server. The server lives as long as its children, so after a kill -9 of the
    main process both would stay forever.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_main, daemon=True).start()


def _end_workers() -> None:
    for worker in tuple(_WORKERS):
        if worker.is_alive():
            worker.kill()
            worker.join()


# When Python ends, multiprocessing removes its semaphores (priority 0) and then ends its processes. A worker that still
# starts would look for its semaphore and print a traceback.
multiprocessing.util.Finalize(None, _end_workers, exitpriority=1)


def _end_with_main() -> None:
    main = multiprocessing.parent_process()
    assert main is not None
    main.join()
    os._exit(1)


def _as_it_is(prepared: Any) -> Any:
    return prepared
