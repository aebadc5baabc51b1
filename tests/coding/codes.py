"""Checks of codes that the tests of this folder share; numpy alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from codedtool.coding.words import distance_histogram, words_to_table


def assert_code(words: NDArray[np.uint64], length: int, act: int, min_distance: int) -> None:
    """Rule A, rule C and the order of the words, by numpy alone."""
    assert (np.diff(words) > 0).all()
    assert int(words.max()) < 1 << length
    assert (np.bitwise_count(words) == act).all()
    assert min(distance_histogram(words)) >= min_distance


def column_sums(words: NDArray[np.uint64], length: int) -> NDArray[np.int64]:
    return words_to_table(words, length).sum(axis=0, dtype=np.int64)
