"""Giving similar classes codewords that overlap more, or less: the paper's conclusion conjectures that it helps.

Which row of a scheme a class gets changes none of the scheme's rules. Here it follows a matrix of similarities between
classes: to maximise (or minimise) sum_{i<k} M_ik <w_i, w_k> over all orders of the rows is a quadratic assignment
problem.
"""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from codedtool.budget import Budget, Progress, StopReason, Work, silent
from codedtool.coding.orders.annealing import slacks
from codedtool.coding.scheme import CodingScheme
from codedtool.errors import InputError
from codedtool.files import FileError, opened

# Two K x K tables of 8 bytes in the kernels, and as much again around them: 2 GB at the limit.
_MOST_CLASSES = 8192

# Similarities become whole numbers up to this: sums stay exact, and no similarity moves by more than a millionth.
_GRAIN = 1 << 20

# FAQ's matrix products and linear assignments take O(K^3) each: some 20 s at this K.
_FAQ_CLASSES = 1500

_ANNEALING_STEPS = 4_000_000
_TEMPERATURES = 100

# First and last temperature, in units of the typical change by a random swap.
_HOT, _COLD = 0.5, 0.005

_RANDOM_ORDERS = 200

# Products summed by one slice of annealing: about 0.1 s.
_SLICE_WORK = 40_000_000


@dataclass(frozen=True)
class Assignment:
    """Which codeword each class gets, and how much the codewords of similar classes overlap, against chance.

    An overlap is sum_{i<k} M_ik <w_i, w_k> / sum_{i<k} |M_ik|: for similarities >= 0, the number of ones (subNNs) that
    two classes share, averaged with the similarities as weights.

    Attributes:
        scheme: the scheme with its rows in the found order.
        permutation: (K,) int64; class i gets row ``permutation[i]`` of the scheme as it was given.
        repel: whether the overlap was to be small.
        overlap: of the found order.
        given_overlap: of the order in which the scheme was given.
        random_mean, random_std: mean and standard deviation over ``num_random`` random orders drawn with the seed.
        num_random: how many those were.
        num_beaten: how many of them the found order beats.
        method: how it was found: "given", "FAQ, swaps" or "annealing, swaps".
        seed: the seed of every random choice.
        seconds: wall-clock seconds.
        stopped: why the search ended before its own end, or None.
    """

    scheme: CodingScheme
    permutation: NDArray[np.int64] = field(compare=False)
    repel: bool
    overlap: float
    given_overlap: float
    random_mean: float
    random_std: float
    num_random: int
    num_beaten: int
    method: str
    seed: int
    seconds: float = field(compare=False)
    stopped: StopReason | None = None

    def provenance(self) -> dict[str, Any]:
        """The part of the assigned scheme's JSON beside the table's own figures; plain JSON types."""
        return {
            "method": "assignment",
            "assignment_method": self.method,
            "repel": self.repel,
            "overlap": self.overlap,
            "given_overlap": self.given_overlap,
            "random_overlap_mean": self.random_mean,
            "random_overlap_std": self.random_std,
            "random_orders": self.num_random,
            "random_orders_beaten": self.num_beaten,
            "seed": self.seed,
            "stopped": self.stopped,
            "permutation": self.permutation.tolist(),
        }


def load_similarity(path: str | os.PathLike[str], num_classes: int) -> NDArray[np.float64]:
    """Read a K x K matrix from a ``.npy`` and check it as `check_similarity` does; nothing pickled is read.

    Raises:
        InputError: no such file, not a ``.npy``, truncated, pickled or object data, or a matrix that breaks a rule;
            names the file.
    """
    source = Path(path)
    try:
        with opened(source, "give a K x K matrix's .npy"):
            pass  # numpy tells a refusal of the system without the path
        # Mapped, not read: a header that claims more than the file holds is refused before anything is allocated.
        with np.errstate(over="ignore"):
            matrix = np.load(source, mmap_mode="r", allow_pickle=False)
    except FileError:
        raise
    except Exception:
        # numpy's readers of .npy headers and archives raise whatever the tokenizer, the parser or zipfile did.
        raise InputError(
            f"{source}: not a readable .npy of numbers (pickled data is refused); save the matrix with numpy.save"
        ) from None
    if not isinstance(matrix, np.ndarray):
        matrix.close()
        raise InputError(f"{source}: an archive of arrays; give a .npy that holds one K x K matrix")
    try:
        return check_similarity(matrix, num_classes)
    except InputError as error:
        raise InputError(f"{source}: {error}") from None


def check_similarity(matrix: ArrayLike, num_classes: int) -> NDArray[np.float64]:
    """The symmetric (K, K) float64 similarities that ``matrix`` means, diagonal 0.

    A symmetric matrix is taken as it is (negative entries mean "dissimilar"). Any other matrix is taken as a confusion
    matrix, whose row i counts the classes that class i was taken for. Its entries must be >= 0. Each row is divided by
    its sum (diagonal included; a row of zeros stays), and entry (i, k) becomes the mean of (i, k) and (k, i).

    Args:
        matrix: K x K real numbers; the diagonal says nothing about pairs and is ignored but for those row sums.
        num_classes: K, which the scheme gives.

    Raises:
        InputError: wrong shape or kind, an entry that is not finite, a confusion matrix with a negative entry, or no
            entry other than 0 off the diagonal; names the rule, the place and the value.
    """
    given = np.asarray(matrix)
    if given.dtype.kind not in "biuf":
        raise InputError(f"similarities are real numbers, got dtype {given.dtype}; save them as float64")
    if given.shape != (num_classes, num_classes):
        raise InputError(
            f"similarities are a K x K matrix, K={num_classes} as in the scheme, got shape {given.shape}; "
            "row and column i are class i"
        )
    similarity = given.astype(np.float64)
    finite = np.isfinite(similarity)
    if not finite.all():
        row, column = (int(i) for i in np.argwhere(~finite)[0])
        raise InputError(f"similarities are finite, but row {row}, column {column} holds {similarity[row, column]}")
    if not np.allclose(similarity, similarity.T, rtol=1e-6, atol=0.0):
        if (similarity < 0).any():
            row, column = (int(i) for i in np.argwhere(similarity < 0)[0])
            raise InputError(
                "a matrix that is not symmetric is read as a confusion matrix, whose entries are >= 0, "
                f"but row {row}, column {column} holds {similarity[row, column]}; pass (M + M.T) / 2"
            )
        # By the largest entry first, so that the sum of a row of huge entries stays finite.
        similarity /= similarity.max()
        sums = similarity.sum(axis=1, keepdims=True)
        similarity = np.divide(similarity, sums, out=np.zeros_like(similarity), where=sums > 0)
    similarity = similarity / 2 + similarity.T / 2
    np.fill_diagonal(similarity, 0.0)
    if not similarity.any():
        raise InputError("every similarity of two different classes is 0, so no assignment is better than another")
    return similarity


def assign_classes(
    scheme: CodingScheme,
    similarity: ArrayLike,
    *,
    repel: bool = False,
    seed: int = 0,
    budget: Budget | None = None,
    progress: Progress = silent,
) -> Assignment:
    """Order the rows of ``scheme`` so that codewords of similar classes overlap more, or with ``repel`` less.

    FAQ (J. T. Vogelstein et al., Fast approximate quadratic programming for graph matching, PLoS ONE 2015; scipy's
    implementation) where K <= 1500, and simulated annealing over swaps of two classes; both are improved by swaps
    until none helps, and the better one is taken. Never worse than the order given.

    Args:
        scheme: K classes.
        similarity: (K, K), as `check_similarity` takes it.
        repel: make the overlap small instead of large.
        seed: of every random choice. Equal arguments give the equal assignment unless the budget cut it short or
            FAQ won (its matrix products are BLAS's, whose last digits may differ from machine to machine).
        budget: time limit and interrupt flag, polled every 0.1 s except inside FAQ; default none.
        progress: told the phase "assigning classes".

    Raises:
        InputError: a matrix that `check_similarity` refuses, K above 8192, a negative seed, or scipy is missing.
    """
    work = Work.started(seed, budget, progress)
    if scheme.num_classes > _MOST_CLASSES:
        raise InputError(
            f"classes are assigned for up to K={_MOST_CLASSES} (K x K tables in memory), got K={scheme.num_classes}"
        )
    start = time.monotonic()
    weights_KK = check_similarity(similarity, scheme.num_classes)
    search = _Search(scheme, weights_KK, repel, work)
    try:
        search.run()
    except KeyboardInterrupt:
        search.stopped = "interrupted"
    unit = float(np.abs(search.weights_KK).sum() / 2)
    sign = -1.0 if repel else 1.0
    random_overlaps = np.array(search.random_totals, dtype=np.float64) / unit
    return Assignment(
        scheme=CodingScheme(scheme.table[search.best]),
        permutation=search.best,
        repel=repel,
        overlap=sign * search.best_total / unit,
        given_overlap=sign * search.given_total / unit,
        random_mean=sign * float(random_overlaps.mean()),
        random_std=float(random_overlaps.std()),
        num_random=len(random_overlaps),
        num_beaten=sum(total < search.best_total for total in search.random_totals),
        method=search.method,
        seed=seed,
        seconds=time.monotonic() - start,
        stopped=search.stopped,
    )


class _Search:
    """One search for the greatest sum of weights times overlaps; `best` is a valid order at any moment."""

    def __init__(
        self,
        scheme: CodingScheme,
        similarity_KK: NDArray[np.float64],
        repel: bool,
        work: Work,
    ) -> None:
        table = scheme.table.astype(np.float64)
        self.overlaps_KK = np.rint(table @ table.T).astype(np.int64)
        np.fill_diagonal(self.overlaps_KK, 0)
        scaled = np.rint(similarity_KK / np.abs(similarity_KK).max() * _GRAIN).astype(np.int64)
        self.weights_KK = -scaled if repel else scaled
        self.num_classes = scheme.num_classes
        self.work = work
        self.random = np.random.default_rng(work.seed)
        self.stopped: StopReason | None = None
        self.best = np.arange(self.num_classes)
        self.best_total = self.given_total = self._total(self.best)
        self.random_totals: list[int] = []
        self.method = "given"

    def run(self) -> None:
        """Random orders to compare with, then FAQ and annealing."""
        for number in range(_RANDOM_ORDERS):
            # Two at least, or there is no deviation to speak of.
            if number >= 2 and self._is_stopped():
                return
            self.random_totals.append(self._total(self.random.permutation(self.num_classes)))
            self.work.progress("assigning classes", number + 1, _RANDOM_ORDERS, "random assignments to compare with")
        if self.num_classes <= _FAQ_CLASSES and not self._is_stopped():
            self._offer(self._climb(self._faq()), "FAQ, swaps")
        if not self._is_stopped():
            self._offer(self._climb(self._anneal(np.arange(self.num_classes))), "annealing, swaps")

    def _total(self, order: NDArray[np.int64]) -> int:
        """The sum over pairs of weight times overlap, counted afresh."""
        return int((self.weights_KK * self.overlaps_KK[np.ix_(order, order)]).sum()) // 2

    def _offer(self, order: NDArray[np.int64], method: str) -> None:
        """Keep ``order`` if it is better than the best."""
        total = self._total(order)
        if total > self.best_total:
            self.best, self.best_total, self.method = order.copy(), total, method

    def _faq(self) -> NDArray[np.int64]:
        """scipy's FAQ from the barycentre; nothing in it is random then, whatever generator it is given."""
        try:
            from scipy.optimize import quadratic_assignment
        except ImportError:
            raise InputError(
                "assigning classes needs scipy, which is not installed; pip install 'codedtool[assign]'"
            ) from None
        self.work.progress("assigning classes", 0, None, "FAQ")
        found = quadratic_assignment(
            self.weights_KK / _GRAIN,
            self.overlaps_KK.astype(np.float64),
            options={"maximize": True, "rng": np.random.default_rng(0)},
        )
        return np.asarray(found.col_ind, dtype=np.int64)

    def _anneal(self, order: NDArray[np.int64]) -> NDArray[np.int64]:
        """Simulated annealing from ``order``; returns the best order seen."""
        from codedtool.coding.orders import assignment_kernels

        order = order.copy()
        best = order.copy()
        overlaps_KK = self.overlaps_KK[np.ix_(order, order)]
        classes = assignment_kernels.Classes(self.weights_KK, overlaps_KK, order)
        total = self._total(order)
        totals = np.array([total, total], dtype=np.int64)
        random_state = self.random.integers(1, 1 << 63, size=1, dtype=np.uint64)
        typical = self._typical_gain(overlaps_KK)
        per_slice = max(1, min(_ANNEALING_STEPS // _TEMPERATURES, _SLICE_WORK // self.num_classes))
        for done in range(0, _ANNEALING_STEPS, per_slice):
            if self._is_stopped():
                break
            quantiles = slacks(typical * _HOT * (_COLD / _HOT) ** (done / _ANNEALING_STEPS))
            steps = min(per_slice, _ANNEALING_STEPS - done)
            assignment_kernels.anneal(classes, quantiles, random_state, steps, totals, best)
            self.work.progress("assigning classes", done + steps, _ANNEALING_STEPS, "annealing")
        return best

    def _climb(self, order: NDArray[np.int64]) -> NDArray[np.int64]:
        """Swaps that help, until none does."""
        from codedtool.coding.orders import assignment_kernels

        order = order.copy()
        overlaps_KK = self.overlaps_KK[np.ix_(order, order)]
        classes = assignment_kernels.Classes(self.weights_KK, overlaps_KK, order)
        rows = max(1, _SLICE_WORK // self.num_classes**2)
        improved = True
        while improved:
            improved = False
            for first in range(0, self.num_classes, rows):
                if self._is_stopped():
                    return order
                last = min(first + rows, self.num_classes)
                made = assignment_kernels.climb(classes, first, last)
                improved = improved or bool(made)
            self.work.progress("assigning classes", 0, None, "swaps")
        return order

    def _typical_gain(self, overlaps_KK: NDArray[np.int64]) -> float:
        """The root mean square change of the sum by some random swaps; at least 1."""
        from codedtool.coding.orders import assignment_kernels

        pairs = self.random.integers(self.num_classes, size=(256, 2))
        gains = [
            int(assignment_kernels.swap_gain(self.weights_KK, overlaps_KK, i, j)) for i, j in pairs.tolist() if i != j
        ]
        return max(1.0, math.sqrt(sum(gain * gain for gain in gains) / max(1, len(gains))))

    def _is_stopped(self) -> bool:
        self.stopped = self.work.stop_reason()
        return self.stopped is not None
