"""Algorithm 1 against the reference loop, and the paper's schemes end to end: ``python -m benchmarks.solver``.

Both engines run in this process, compiled beforehand, on one thread, in turn (reference, ours, reference, ...); the
seconds are medians and the ratio is theirs. A scheme's figures come from a whole ``codedtool scheme`` process, whose
peak memory the operating system reports. A warm-up process runs first, so that compiled kernels are on disk.

A first run is a process whose cache of compiled kernels is empty; it and one whose cache is filled run in turn.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TypeVar

import numpy as np

from benchmarks.machine import describe_machine
from benchmarks.reference import reference_lexicode
from codedtool.coding.solvers.lexicode import lexicode

Result = TypeVar("Result")

# (N, N_act, H_min) -> |G|: SPEC's known answers.
KNOWN_ANSWERS = {
    (10, 5, 4): 22,
    (10, 3, 4): 10,
    (20, 8, 8): 130,
    (20, 4, 4): 189,
    (32, 8, 6): 11_556,
    (32, 8, 8): 1_068,
    (32, 16, 12): 366,
    (32, 16, 10): 2_399,
}

# (K, N, N_act, H_min): the paper's schemes (section 3.2.1, appendix A).
PAPER_SCHEMES = (
    (10, 10, 5, 4),
    (10, 10, 3, 4),
    (100, 20, 8, 8),
    (100, 20, 4, 4),
    (1000, 32, 16, 10),
    (1000, 32, 8, 6),
)

# (K, N, N_act) for `--hmin max`: the paper's, and others of all kinds.
HIGHEST = (
    (10, 10, 5),
    (10, 10, 3),
    (100, 20, 8),
    (100, 20, 4),
    (1000, 32, 16),
    (1000, 32, 8),
    (200, 24, 12),
    (300, 32, 8),
    (500, 28, 14),
    (1000, 64, 16),
    (50, 16, 8),
    (200, 24, 6),
    (64, 16, 6),
    (20, 12, 4),
    (40, 20, 10),
    (30, 16, 4),
)

PARTS = ("engines", "schemes", "first", "highest")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--repeats", type=int, default=3, help="measurements of each; the median is printed")
    parser.add_argument("--only", choices=PARTS, nargs="+", default=PARTS, help="the tables to make; all by default")
    arguments = parser.parse_args()
    print(describe_machine("numpy", "numba", "ortools"))
    parts = {"engines": engines, "schemes": schemes, "first": first_runs, "highest": highest_distances}
    for name in arguments.only:
        parts[name](arguments.repeats)


def engines(repeats: int) -> None:
    """Algorithm 1 against the reference loop."""
    print("\n| (N, act, H) | words | G | reference s | ours s | reference / ours |\n|---|---|---|---|---|---|")
    for parameters, size in KNOWN_ANSWERS.items():
        print(compare_engines(parameters, size, repeats), flush=True)


def schemes(repeats: int) -> None:
    """The paper's schemes."""
    print(
        "\n| (K, N, act, H) | G | spread | sums | pairs at H_min | enumerate s | select s | process s | peak MB |\n"
        "|---|---|---|---|---|---|---|---|---|"
    )
    for scheme in PAPER_SCHEMES:
        print(measure_scheme(scheme, repeats), flush=True)


def first_runs(repeats: int) -> None:
    """Whole processes with an empty and with a filled cache of compiled kernels, and the lightest commands."""
    print("\n| command | compiled kernels | process s | least, most | CPU s |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        out = str(Path(folder) / "s.npy")
        command = ["scheme", "--quiet", "--force", "--out", out]
        command += ["--K", "1000", "--N", "32", "--act", "8", "--hmin", "6"]
        runs: dict[tuple[str, str], list[Process]] = {}
        for number in range(repeats):
            empty = str(Path(folder) / str(number))
            for state in ("none", "all"):
                run = run_process(command, {"NUMBA_CACHE_DIR": empty})
                runs.setdefault((" ".join(["scheme", *command[-8:]]), state), []).append(run)
            for light in ("--version", "--help"):
                runs.setdefault((light, ""), []).append(run_process([light]))
    for (name, state), measured in runs.items():
        seconds = [run.seconds for run in measured]
        cpu = median(run.cpu_seconds for run in measured)
        spread = f"{min(seconds):.2f}, {max(seconds):.2f}"
        print(f"| codedtool {name} | {state} | {median(seconds):.2f} | {spread} | {cpu:.2f} |", flush=True)


def highest_distances(repeats: int) -> None:
    """``--hmin max``: the distance that is found, and what was tried; one process each, kernels compiled before."""
    print("\n| (K, N, act) | H | spread | pairs at H | tried: H, words, s | process s |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for K, N, act in HIGHEST:
            out = str(Path(folder) / "s.npy")
            command = ["scheme", "--json", "--quiet", "--force", "--out", out, "--hmin", "max"]
            command += ["--K", str(K), "--N", str(N), "--act", str(act)]
            run_process(command)
            run = run_process(command)
            result = json.loads(run.text)
            tried = "; ".join(
                f"{one['min_distance']}, {one['most_words']}, {one['seconds']:.1f}" for one in result["tried"]
            )
            figures = f"{result['min_distance']} | {result['spread']} | {result['pairs_at_min']:,}"
            print(f"| {(K, N, act)} | {figures} | {tried} | {run.seconds:.1f} |", flush=True)


def compare_engines(parameters: tuple[int, int, int], size: int, repeats: int) -> str:
    """One table row; refuses to print a time for a wrong set G."""
    reference_seconds, our_seconds = [], []
    for round_number in range(repeats + 1):
        expected, reference_time = timed(lambda: reference_lexicode(*parameters))
        found, our_time = timed(lambda: lexicode(*parameters))
        if len(expected) != size or not np.array_equal(found.words, expected):
            raise SystemExit(f"{parameters}: wrong set G, {len(found.words)} and {len(expected)} words, not {size}")
        # The first round pays for compiling; a reference of many seconds does not notice it and is not repeated for it.
        if round_number > 0 or reference_time > 10:
            reference_seconds.append(reference_time)
            our_seconds.append(our_time)
        if len(reference_seconds) == repeats:
            break
    reference, ours = median(reference_seconds), median(our_seconds)
    return f"| {parameters} | {found.num_words:,} | {size:,} | {reference:.5f} | {ours:.5f} | {reference / ours:.2g} |"


def measure_scheme(scheme: tuple[int, int, int, int], repeats: int) -> str:
    """One table row from whole processes."""
    K, N, act, hmin = scheme
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        out = str(Path(folder) / "s.npy")
        command = ["scheme", "--json", "--quiet", "--force", "--out", out]
        command += ["--K", str(K), "--N", str(N), "--act", str(act), "--hmin", str(hmin)]
        for _ in range(repeats + 1):
            runs.append(run_process(command))
    seconds = median(run.seconds for run in runs[1:])
    megabytes = max(run.megabytes for run in runs[1:])
    result = json.loads(runs[-1].text)
    inner = result["seconds"]
    return (
        f"| {scheme} | {result['greedy_size']:,} | {result['spread']} | {result['s_min']}..{result['s_max']} "
        f"| {result['pairs_at_min']:,} | {inner['enumerate']:.2f} | {inner['select']:.2f} | {seconds:.2f} "
        f"| {megabytes:.0f} |"
    )


@dataclass(frozen=True)
class Process:
    """What a process printed, its wall-clock seconds, those of its processors, and its peak resident megabytes."""

    text: str
    seconds: float
    cpu_seconds: float
    megabytes: float


def run_process(arguments: list[str], environment: dict[str, str] | None = None) -> Process:
    """Run one codedtool command to its end."""
    command = [sys.executable, "-m", "codedtool", *arguments]
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | (environment or {})) as process:
        assert process.stdout is not None
        text = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - start
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}: {text}")
    return Process(text, seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def timed(function: Callable[[], Result]) -> tuple[Result, float]:
    """A function's result and its wall-clock seconds."""
    start = time.perf_counter()
    result = function()
    return result, time.perf_counter() - start


if __name__ == "__main__":
    main()
