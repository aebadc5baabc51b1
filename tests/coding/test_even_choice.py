"""Whole orbits with even columns: found where they exist, and None where they do not."""

from __future__ import annotations

import numpy as np

from codedtool.budget import Work
from codedtool.coding.solvers.even_choice import choose_balanced_union


def test_a_union_that_cannot_be() -> None:
    words = np.array([0b0011, 0b1100, 0b0101, 0b1010], dtype=np.uint64)
    orbit = np.array([0, 0, 1, 1])
    assert choose_balanced_union(words, orbit, 4, 2, Work()).tolist() in ([0, 1], [2, 3])
    assert choose_balanced_union(words, orbit, 4, 3, Work()) is None
    assert choose_balanced_union(words, np.array([0, 1, 0, 1]), 4, 2, Work()) is None
