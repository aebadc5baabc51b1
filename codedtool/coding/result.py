"""The result of a search for a scheme, with its certificate, and the exception of an interrupted search."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from codedtool.budget import StopReason
from codedtool.coding.bounds import UpperBound, upper_bound
from codedtool.coding.scheme import CodingScheme
from codedtool.errors import InfeasibleError

if TYPE_CHECKING:
    from codedtool.coding.orders.pairing import JointOrder


class NotFoundError(InfeasibleError):
    """K words were neither found nor proved impossible at one distance.

    Attributes:
        most_words: the most words that were found at it.
        stopped: why the search ended early, or None.
    """

    def __init__(self, message: str, most_words: int, stopped: StopReason | None) -> None:
        super().__init__(message)
        self.most_words, self.stopped = most_words, stopped


@dataclass(frozen=True)
class Attempt:
    """The search at one distance, where the highest was asked for.

    Attributes:
        min_distance: H_min.
        most_words: the most words that were found at it; K if K words were.
        stopped: why it ended early, or None; "time limit" also means the distance's share of it.
        seconds: wall-clock seconds.
        is_impossible: whether K words were proved impossible at it; ``most_words`` is then 0, because none were sought.
    """

    min_distance: int
    most_words: int
    stopped: StopReason | None
    seconds: float = field(compare=False)
    is_impossible: bool = False

    def provenance(self) -> dict[str, Any]:
        """The attempt as plain JSON types, without the seconds."""
        return {
            "min_distance": self.min_distance,
            "most_words": self.most_words,
            "is_impossible": self.is_impossible,
            "stopped": self.stopped,
        }


@dataclass(frozen=True)
class Extension:
    """What an extension kept, and how even its columns could be.

    Attributes:
        num_given: how many rows are those of the given scheme, word for word.
        given_sha256: the given scheme's identity.
        spread_bound: no codewords added to the given ones make S_max - S_min smaller.
        spread: S_max - S_min of all rows.
    """

    num_given: int
    given_sha256: str
    spread_bound: int
    spread: int

    @property
    def is_optimal(self) -> bool:
        """Whether no other new codewords would make the columns more even."""
        return self.spread == self.spread_bound

    def provenance(self) -> dict[str, Any]:
        """The extension as plain JSON types."""
        return {
            "num_given": self.num_given,
            "given_sha256": self.given_sha256,
            "spread_bound": self.spread_bound,
            "spread_is_optimal": self.is_optimal,
        }


@dataclass(frozen=True)
class SchemeResult:
    """A found scheme, how it was found, and how good it is proved to be.

    >>> from codedtool import find_scheme
    >>> result = find_scheme(num_classes=6, length=6, act=3, min_distance=2)
    >>> result.method, result.num_words, result.bound.best
    ('lexicode', 20, 20)

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
        seconds: wall-clock seconds of the whole search, over all distances tried: "enumerate" (listing words),
            "select" (choosing K of them) and "total".
        stopped: why the search ended early, or None.
        joint: how the rows were ordered beside the companions, or None without companions.
        extension: the rows that were kept from a given scheme, or None if there was none.
        tried: the searches at each distance, in their order, where the highest was asked for.
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
    joint: JointOrder | None = None
    extension: Extension | None = None
    tried: tuple[Attempt, ...] = ()

    @classmethod
    def of(
        cls,
        scheme: CodingScheme,
        *,
        method: str,
        selection: str,
        seed: int,
        seconds: dict[str, float],
        greedy_size: int | None = None,
        stopped: StopReason | None = None,
    ) -> SchemeResult:
        """The result with this scheme, and the bounds at its distance and at the next one."""
        return cls(
            scheme=scheme,
            method=method,
            selection=selection,
            seed=seed,
            greedy_size=greedy_size,
            num_words=math.comb(scheme.length, scheme.act),
            bound=upper_bound(scheme.length, scheme.act, scheme.min_distance),
            next_bound=upper_bound(scheme.length, scheme.act, scheme.min_distance + 2),
            seconds=seconds,
            stopped=stopped,
        )

    @property
    def hmin_is_optimal(self) -> bool:
        """Whether K words at distance H_min + 2 are proved impossible."""
        return self.next_bound.best < self.scheme.num_classes

    def with_words(self, scheme: CodingScheme, selection: str) -> SchemeResult:
        """This result with K others of all words of its N and N_act, and the bounds at their distance."""
        return replace(
            self,
            scheme=scheme,
            method="all words",
            selection=selection,
            bound=upper_bound(scheme.length, scheme.act, scheme.min_distance),
            next_bound=upper_bound(scheme.length, scheme.act, scheme.min_distance + 2),
        )

    def provenance(self) -> dict[str, Any]:
        """The part of a scheme's JSON beside the table's own figures; the same for the same seed and versions."""
        return {
            "method": self.method,
            "selection": self.selection,
            "seed": self.seed,
            "greedy_size": self.greedy_size,
            **_certificate(self.scheme, self.bound, self.next_bound),
            "stopped": self.stopped,
            **({} if self.joint is None else {"joint": self.joint.provenance()}),
            **({} if self.extension is None else {"extension": self.extension.provenance()}),
            **({"tried": [one.provenance() for one in self.tried]} if self.tried else {}),
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
            "joint": None if self.joint is None else self.joint.provenance(),
            "tried": [{**one.provenance(), "seconds": one.seconds} for one in self.tried],
        }


def bounds_of(scheme: CodingScheme) -> dict[str, Any]:
    """The bounds in a scheme's JSON, for a scheme that no search has just found."""
    bound, higher = (upper_bound(scheme.length, scheme.act, scheme.min_distance + more) for more in (0, 2))
    return _certificate(scheme, bound, higher)


def _certificate(scheme: CodingScheme, bound: UpperBound, higher: UpperBound) -> dict[str, Any]:
    """What is proved of a scheme's distance, as plain JSON types."""
    return {
        "upper_bound": bound.best,
        "hmin_is_optimal": higher.best < scheme.num_classes,
        "certificate": {"at_min_distance": asdict(bound), "at_next_distance": asdict(higher)},
    }


class SearchInterrupted(KeyboardInterrupt):
    """The search was interrupted; ``best`` is the best valid scheme so far, or None when there was none yet."""

    def __init__(self, best: SchemeResult | None) -> None:
        super().__init__("interrupted")
        self.best = best
