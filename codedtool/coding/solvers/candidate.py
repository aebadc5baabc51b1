"""The result of a solver, and the findings that the solvers of one search share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from codedtool.coding.solvers.lexicode import Lexicode


@dataclass(frozen=True)
class Candidate:
    """K codewords that keep rules A and C.

    Attributes:
        words: (K,) uint64, distinct, of the problem's length, weight and distance.
        method: which words they were chosen from, such as "lexicode" (see `SchemeResult.method`).
        selection: how they were chosen, in words.
    """

    words: NDArray[np.uint64]
    method: str
    selection: str


@dataclass
class Findings:
    """Findings of the solvers of one search.

    Attributes:
        greedy: algorithm 1's greedy set G, or None before it was enumerated.
        best: the candidate with the most even columns, or None while there is none.
        most_words: the most words at the problem's distance that a solver found, K or not.
    """

    greedy: Lexicode | None = None
    best: Candidate | None = None
    most_words: int = 0

    def note(self, words: NDArray[np.uint64]) -> None:
        """Count these words, of which K are to be chosen if they are as many."""
        self.most_words = max(self.most_words, len(words))
