"""What the methods find against published values of A(N, H, w), all exactly known: ``python -m benchmarks.tables``.

A(N, H, w) is the most words of length N and weight w at pairwise distance H. Sources:

triples   Steiner triple systems and maximum packings: T. Kirkman 1847; J. Spencer, Maximal consistent families of
          triples, J. Comb. Theory 5, 1968.
quads     Steiner quadruple systems and what follows from them: H. Hanani, On quadruple systems, Canad. J. Math. 12,
          1960; A(11,4,4), A(12,4,4): M. Best, A(11,4,4) = 35, 1978, and BSSS.
B79       A. Brouwer, Optimal packings of K4's into a Kn, J. Comb. Theory A 26, 1979.
Witt      S(5,8,24), S(5,6,12), and their derived and residual codes: E. Witt, 1938; BSSS.
Steiner   S(2,5,21), S(2,5,25), S(3,5,17), S(3,5,26), S(3,6,26): R. Denniston, H. Hanani, ...; C. Colbourn, J. Dinitz,
          Handbook of Combinatorial Designs, 2007, II.5.
Hadamard  rows of Hadamard matrices: N. Semakov, V. Zinoviev, Equidistant maximal q-ary codes, 1968; BSSS.
BSSS      A. Brouwer, J. Shearer, N. Sloane, W. Smith, A new table of constant weight codes, IEEE Trans. IT 36, 1990.

Every code is checked with numpy before it is counted; the column "bound" is this project's own upper bound, so where it
equals A the value does not rest on the source alone.
"""

from __future__ import annotations

import argparse
import time
from math import comb

import numpy as np

from benchmarks.machine import describe_machine
from codedtool.budget import Work
from codedtool.coding.bounds import upper_bound
from codedtool.coding.solvers.algebra.cyclic import linear_code_words
from codedtool.coding.solvers.algebra.orbits import orbit_code
from codedtool.coding.solvers.lexicode import lexicode
from codedtool.coding.words import distance_histogram

# source -> {(N, H, w): A(N, H, w)}
KNOWN: dict[str, dict[tuple[int, int, int], int]] = {
    "triples": {
        (n, 4, 3): a
        for n, a in {
            7: 7, 8: 8, 9: 12, 10: 13, 11: 17, 12: 20, 13: 26, 14: 28, 15: 35, 16: 37, 17: 44, 19: 57, 21: 70, 25: 100,
            27: 117,
        }.items()
    },
    "quads": {
        (n, 4, 4): a
        for n, a in {
            8: 14, 9: 18, 10: 30, 11: 35, 12: 51, 13: 65, 14: 91, 15: 105, 16: 140, 20: 285, 22: 385, 26: 650, 28: 819,
        }.items()
    },
    "B79": {
        (n, 6, 4): a
        for n, a in {
            10: 5, 11: 6, 12: 9, 13: 13, 14: 14, 15: 15, 16: 20, 17: 20, 18: 22, 19: 25, 20: 30, 21: 31, 22: 37, 23: 40,
            24: 42, 25: 50, 26: 52, 27: 54, 28: 63,
        }.items()
    },
    "Witt": {
        (10, 4, 5): 36, (11, 4, 5): 66, (12, 4, 6): 132, (20, 8, 6): 40, (20, 8, 7): 80, (20, 8, 8): 130,
        (21, 8, 6): 56, (21, 8, 7): 120, (21, 8, 8): 210, (22, 8, 6): 77, (22, 8, 7): 176, (22, 8, 8): 330,
        (23, 8, 7): 253, (23, 8, 8): 506, (24, 8, 8): 759, (24, 8, 12): 2576,
    },
    "Steiner": {
        (17, 6, 5): 68, (21, 8, 5): 21, (25, 8, 5): 30, (26, 6, 5): 260, (26, 8, 6): 130,
    },
    "Hadamard": {
        (10, 6, 5): 6, (11, 6, 5): 11, (12, 6, 6): 22, (15, 8, 7): 15, (16, 8, 8): 30, (19, 10, 9): 19,
        (20, 10, 10): 38, (24, 12, 12): 46, (27, 14, 13): 27, (28, 14, 14): 54,
    },
    "BSSS": {
        (12, 6, 5): 12, (13, 6, 5): 18, (13, 6, 6): 26, (14, 6, 5): 28, (14, 6, 6): 42, (14, 6, 7): 42, (15, 6, 5): 42,
        (15, 6, 6): 70, (15, 6, 7): 78, (16, 6, 5): 48, (16, 6, 6): 112, (16, 6, 8): 150, (16, 8, 6): 16,
    },
}  # fmt: skip

# Lexicodes of more words than this are left out: none of them is near a known value.
_LEXICODE_WORDS = 10_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--source", choices=[*KNOWN], help="only the values of one source")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print(describe_machine("numpy", "numba", "ortools"))
    print("\n| (N, H, w) | A | bound | lexicode | linear code | orbits | group | below A | seconds | source |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    num_sets = num_equal = 0
    for source, values in KNOWN.items():
        if arguments.source in (None, source):
            for parameters, value in values.items():
                below = measure(*parameters, value, source, arguments.seed)
                num_sets += 1
                num_equal += below == 0
    print(f"\nEqual to the known value: {num_equal} of {num_sets}.")


def measure(length: int, min_distance: int, act: int, value: int, source: str, seed: int) -> int:
    """Print one table row; returns by how much the best code falls short."""
    start = time.perf_counter()
    greedy = linear = 0
    if comb(length, act) <= _LEXICODE_WORDS:
        greedy = checked(lexicode(length, act, min_distance).words, act, min_distance)
    listed = linear_code_words(length, act, min_distance) if min_distance >= 4 else None
    if listed is not None:
        linear = checked(listed.words, act, min_distance)
    orbits, group = 0, ""
    if max(greedy, linear) < value:
        found = orbit_code(length, act, min_distance, Work(seed), num_classes=value)
        if found is not None:
            orbits, group = checked(found.words, act, min_distance), found.group
    seconds = time.perf_counter() - start
    below = value - max(greedy, linear, orbits)
    bound = upper_bound(length, act, min_distance).best
    cells = [(length, min_distance, act), value, bound, greedy, linear or "", orbits or "", group, below]
    print("| " + " | ".join(map(str, cells)) + f" | {seconds:.2f} | {source} |", flush=True)
    if below < 0:
        raise SystemExit(f"{cells}: more words than there can be")
    return below


def checked(words: np.ndarray, act: int, min_distance: int) -> int:
    """The number of words, after they were found to be a code."""
    if len(words) and (np.bitwise_count(words) != act).any():
        raise SystemExit("a word of the wrong weight")
    if len(words) > 1 and min(distance_histogram(words)) < min_distance:
        raise SystemExit("two words too close")
    return len(words)


if __name__ == "__main__":
    main()
