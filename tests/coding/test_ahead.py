"""Kernels compiled in a second process: it starts where it helps, is waited for, and never outlives the search."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from codedtool.budget import Budget, Work
from codedtool.coding import ahead
from codedtool.coding.ahead import Ahead


def present() -> None:
    """Stands for the kernels that the first process compiles."""


def following() -> None:
    """Stands for those of the next solver: leaves a file as a sign."""
    Path(os.environ["CODEDTOOL_TEST_AHEAD"]).write_text(f"{sys.path}")


def failing() -> None:
    raise ValueError("no such kernel")


def endless() -> None:
    time.sleep(600)


@pytest.fixture
def sign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that `following` leaves; two cores, and a cache that lacks all kernels."""
    monkeypatch.setattr(ahead, "_has_core", lambda: True)
    monkeypatch.setattr(ahead, "_lacks", lambda compile_kernels: True)
    monkeypatch.setenv("CODEDTOOL_TEST_AHEAD", str(tmp_path / "sign"))
    return tmp_path / "sign"


def test_the_next_kernels_are_there_when_they_are_waited_for(sign: Path) -> None:
    with Ahead() as second:
        second.prepare(present, following, Work())
        second.prepare(following, None, Work())
        # With the modules of this process, wherever it has them from.
        assert sign.read_text() == f"{sys.path}"


def test_a_second_process_follows_one_whose_kernels_were_not_needed(sign: Path) -> None:
    with Ahead() as second:
        second.prepare(present, following, Work())
        assert second._process is not None
        second.prepare(present, endless, Work())
        assert second._compiling is following
        second._process.wait()
        second.prepare(present, endless, Work())
        assert second._compiling is endless


def test_what_fails_in_the_second_process_is_left_to_the_first(sign: Path) -> None:
    with Ahead() as second:
        second.prepare(present, failing, Work())
        second.prepare(failing, None, Work())


def test_the_second_process_ends_with_the_search_and_with_an_interruption(sign: Path) -> None:
    with Ahead() as second:
        second.prepare(present, endless, Work())
        process = second._process
        assert process is not None
        assert process.poll() is None
    assert process.poll() is not None
    budget = Budget()
    with Ahead() as second:
        second.prepare(present, endless, Work(budget=budget))
        budget.interrupt()
        second.prepare(endless, None, Work(budget=budget))
        assert second._process is None


def test_waiting_does_not_count_against_the_time_limit(sign: Path) -> None:
    budget = Budget(1000.0)
    with Ahead() as second:
        second.prepare(present, following, Work(budget=budget))
        begin, elapsed = time.monotonic(), budget.elapsed()
        second.prepare(following, None, Work(budget=budget))
        waited = time.monotonic() - begin
    assert budget.elapsed() - elapsed < waited


@pytest.mark.parametrize(
    ("has_core", "lacks"),
    [
        (False, lambda compile_kernels: True),
        (True, lambda compile_kernels: False),
        # Nothing to compile now, or nothing to compile next.
        (True, lambda compile_kernels: compile_kernels is following),
        (True, lambda compile_kernels: compile_kernels is present),
    ],
)
def test_no_second_process_where_it_would_not_help(
    sign: Path, monkeypatch: pytest.MonkeyPatch, has_core: bool, lacks: Callable[[Callable[[], None]], bool]
) -> None:
    monkeypatch.setattr(ahead, "_has_core", lambda: has_core)
    monkeypatch.setattr(ahead, "_lacks", lacks)
    with Ahead() as second:
        second.prepare(present, following, Work())
        assert second._process is None
        second.prepare(present, None, Work())
        assert second._process is None


def test_without_a_second_process_the_search_goes_on(sign: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no more processes")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    with Ahead() as second:
        second.prepare(present, following, Work())
        second.prepare(following, None, Work())
    assert not sign.exists()


@pytest.mark.slow
def test_with_an_empty_cache_both_processes_compile_and_the_words_are_the_same(tmp_path: Path) -> None:
    program = (
        "from codedtool.coding import ahead\n"
        "from codedtool.coding.search import find_scheme\n"
        "from codedtool.coding.solvers import balance_kernels\n"
        "ahead._has_core = lambda: {}\n"
        "print(find_scheme(100, 20, 8, 8).scheme.sha256, sum(balance_kernels.tabu_swaps.stats.cache_hits.values()))"
    )
    alone, together = (
        subprocess.run(
            [sys.executable, "-c", program.format(has_core)],
            env=os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / str(has_core))},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        for has_core in (False, True)
    )
    assert alone[0] == together[0]
    # With two processes, the first one found the tabu search's machine code in the cache.
    assert (alone[1], together[1]) == ("0", "1")
