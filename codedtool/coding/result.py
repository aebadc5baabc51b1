"""What a search for a scheme returns, with its certificate, and what it raises when it is interrupted."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

from codedtool.budget import StopReason
from codedtool.coding.bounds import UpperBound, upper_bound
from codedtool.coding.scheme import CodingScheme


@dataclass(frozen=True)
class SchemeResult:
    """A found scheme, how it was found, and how good it is proved to be.

    Attributes:
        scheme: the scheme, re-verified with numpy.
        method: "lexicode" (K of the greedy set G), "all words" (K of all C(N, N_act) words), "linear code" (K words of
            one weight of a cyclic code), "orbits" (K words of a union of orbits of a permutation group), "random
            greedy" (drawn words kept where they fit) or "given".
        selection: how the K words were chosen, in words.
        seed: the seed of every random choice.
        greedy_size: |G|, or None when algorithm 1 was not run.
        num_words: C(N, N_act).
        bound: upper bounds on the number of codewords at the scheme's own H_min.
        next_bound: the same at H_min + 2.
        seconds: wall-clock seconds of "enumerate", "select" and "total".
        stopped: why the search ended before its own end, or None.
    """

    scheme: CodingScheme
    method: str
    selection: str
    seed: int
    greedy_size: int | None
    num_words: int
    bound: UpperBound
    next_bound: UpperBound
    seconds: dict[str, float] = field(compare=False)
    stopped: StopReason | None = None

    @property
    def hmin_is_optimal(self) -> bool:
        """Whether K words at distance H_min + 2 are proved impossible."""
        return self.next_bound.best < self.scheme.num_classes

    def with_scheme(self, scheme: CodingScheme, selection: str) -> SchemeResult:
        """This result with other words of the same K, N and N_act, and the bounds at their distance."""
        return replace(
            self,
            scheme=scheme,
            selection=selection,
            bound=upper_bound(scheme.length, scheme.act, scheme.min_distance),
            next_bound=upper_bound(scheme.length, scheme.act, scheme.min_distance + 2),
        )

    def provenance(self) -> dict[str, Any]:
        """What a scheme's JSON records beside the table's own figures; the same for the same seed and versions."""
        return {
            "method": self.method,
            "selection": self.selection,
            "seed": self.seed,
            "greedy_size": self.greedy_size,
            "upper_bound": self.bound.best,
            "hmin_is_optimal": self.hmin_is_optimal,
            "certificate": {
                "at_min_distance": asdict(self.bound),
                "at_next_distance": asdict(self.next_bound),
            },
            "stopped": self.stopped,
        }

    def to_json(self) -> dict[str, Any]:
        """The whole result as plain JSON types (SPEC section 1, the ``--json`` of ``scheme``)."""
        return {
            **self.scheme.summary(),
            "spread": self.scheme.spread,
            **self.provenance(),
            "num_words": self.num_words,
            "pairs_at_min": self.scheme.pairs_at_min,
            "distance_histogram": {str(d): n for d, n in self.scheme.distance_histogram.items()},
            "seconds": self.seconds,
        }


class SearchInterrupted(KeyboardInterrupt):
    """The search was interrupted; ``best`` is the best valid scheme so far, or None when there was none yet."""

    def __init__(self, best: SchemeResult | None) -> None:
        super().__init__("interrupted")
        self.best = best
