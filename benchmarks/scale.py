"""Time and memory of large schemes against K and N: ``python -m benchmarks.scale``.

Every row is a process of its own, pinned to two cores where the system allows it, with compiled kernels on disk. The
words are checked with numpy in that process: weight, distance and column sums, outside the time measured.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time

import numpy as np
from numpy.typing import NDArray

from benchmarks.machine import describe_machine
from codedtool.budget import Work
from codedtool.coding.problem import Problem
from codedtool.coding.solvers.algebra.cyclic import linear_code_words
from codedtool.coding.solvers.algebra.orbits import orbit_code
from codedtool.coding.solvers.even_choice import choose_even
from codedtool.coding.solvers.sampler import sample_words
from codedtool.coding.words import distance_histogram, words_to_table

# (method, K, N, N_act, H_min): the goals first, then growth in K, then in N.
ROWS = (
    ("orbits", 1000, 32, 8, 8),
    ("linear code", 1000, 32, 16, 12),
    ("linear code", 21841, 64, 8, 8),
    ("linear code", 21841, 64, 16, 16),
    ("sampler", 21841, 64, 16, 14),
    ("sampler", 100000, 64, 16, 12),
    *(("sampler", k, 64, 16, 12) for k in (1000, 3000, 10000, 30000)),
    *(("linear code", k, 64, 8, 8) for k in (1000, 3000, 10000, 27000)),
    *(("sampler", 1000, n, n // 4, 2 * (n // 10)) for n in (24, 32, 40, 48, 56, 64)),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--row", help=argparse.SUPPRESS)
    row = parser.parse_args().row
    if row is not None:
        print(json.dumps(measure(*json.loads(row))))
        return
    print(describe_machine("numpy", "numba", "ortools"))
    print("\n| method | (K, N, act, H) | words found | spread | H of the K | seconds | peak MB |")
    print("|---|---|---|---|---|---|---|")
    run_row(ROWS[0])  # compiles
    for parameters in ROWS:
        result = run_row(parameters)
        print(
            f"| {parameters[0]} | {parameters[1:]} | {result['found']:,} | {result['spread']} | {result['distance']} "
            f"| {result['seconds']:.1f} | {result['megabytes']:.0f} |",
            flush=True,
        )


def run_row(parameters: tuple[str, int, int, int, int]) -> dict[str, float]:
    """`measure` in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.scale", "--row", json.dumps(parameters)]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout)


def measure(method: str, num_classes: int, length: int, act: int, min_distance: int) -> dict[str, float]:
    """Words found, spread and distance of the K chosen, seconds and peak megabytes."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    start = time.perf_counter()
    found, words = find(method, num_classes, length, act, min_distance)
    seconds = time.perf_counter() - start
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if (np.bitwise_count(words) != act).any() or len(words) != num_classes:
        raise SystemExit(f"{method}: {len(words)} words, or a word of the wrong weight")
    sums = words_to_table(words, length).sum(axis=0, dtype=np.int64)
    distance = min(distance_histogram(words))
    if distance < min_distance:
        raise SystemExit(f"{method}: two words at distance {distance}")
    return {
        "found": found,
        "spread": int(sums.max() - sums.min()),
        "distance": distance,
        "seconds": seconds,
        "megabytes": megabytes,
    }


def find(method: str, num_classes: int, length: int, act: int, min_distance: int) -> tuple[int, NDArray[np.uint64]]:
    """How many words the method finds, and the K chosen."""
    problem = Problem(num_classes, length, act, min_distance)
    if method == "sampler":
        words = sample_words(problem).words
        return len(words), words
    if method == "orbits":
        code = orbit_code(length, act, min_distance, num_classes=num_classes)
    else:
        code = linear_code_words(length, act, min_distance)
    if code is None:
        raise SystemExit(f"{method}: nothing found")
    chosen = choose_even(code.words, code.orbit, problem, Work())
    return len(code.words), code.words[chosen]


if __name__ == "__main__":
    main()
