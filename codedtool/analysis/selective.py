"""Selective prediction: the network answers only the images of highest confidence (El-Yaniv & Wiener 2010).

Shape suffixes: n images, S scores, G groups of images with equal scores.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from codedtool.analysis.calibration import stratified_splits
from codedtool.analysis.result import Table, percent
from codedtool.analysis.temperature import Temperature, agreement, fit_temperature
from codedtool.errors import InputError
from codedtool.training.subject import Outputs

COVERAGES = (0.5, 0.8, 0.9, 0.95, 1.0)

_MAX_POINTS = 200


@dataclass(frozen=True, eq=False)
class RiskCoverage:
    """The risk-coverage curve of one score.

    Attributes:
        score: name of the score.
        risk_n: (n,) float64 in 0..1; entry k-1 is the share of wrong answers among the k images of highest score.
    """

    score: str
    risk_n: torch.Tensor

    @property
    def aurc(self) -> float:
        """Area under the curve: the mean risk over the coverages 1/n, 2/n, ..., 1 (Geifman & El-Yaniv 2017)."""
        return float(self.risk_n.mean())

    def risk_at(self, coverage: float) -> float:
        """The risk at the smallest coverage k/n that is at least ``coverage``.

        Raises:
            InputError: ``coverage`` is not above 0 and at most 1.
        """
        if not 0 < coverage <= 1:
            raise InputError(f"`coverage` must be above 0 and at most 1, got {coverage}")
        n = len(self.risk_n)
        # The product may be slightly above a whole number through rounding: it then means that number.
        return float(self.risk_n[max(1, math.ceil(coverage * n - 1e-9 * n)) - 1])

    def points(self, limit: int = _MAX_POINTS) -> list[tuple[float, float]]:
        """At most ``limit`` points (coverage, risk) of the curve, evenly spaced; the last is at full coverage."""
        n = len(self.risk_n)
        counts = torch.linspace(1, n, min(n, limit), dtype=torch.float64).round().long()
        return [(count / n, float(self.risk_n[count - 1])) for count in counts.tolist()]


def risk_coverage(correct_n: torch.Tensor, *scores: torch.Tensor, name: str = "score") -> RiskCoverage:
    """The exact risk-coverage curve of a score (El-Yaniv & Wiener 2010).

    Images are answered in the order of their score, the highest first. Among images of equal score, the curve is the
    mean over all their orders, so it does not depend on the order in which the images are given.

    Args:
        correct_n: (n,) bool: whether the prediction is right.
        scores: (n,) numbers, higher for images that are answered first. Further scores break the ties of the first.
        name: name of the score.

    Raises:
        InputError: there is no image or no score, or the lengths differ.

    Example:
        >>> curve = risk_coverage(torch.tensor([True, False, True, True]), torch.tensor([0.9, 0.6, 0.8, 0.7]))
        >>> curve.risk_n.tolist()
        [0.0, 0.0, 0.0, 0.25]
        >>> curve.aurc
        0.0625
    """
    if not len(correct_n) or not scores or any(score.shape != correct_n.shape for score in scores):
        shapes = [tuple(score.shape) for score in scores]
        raise InputError(f"scores must be vectors as long as the answers' {tuple(correct_n.shape)}, got {shapes}")
    score_nS = torch.stack([-score.double() for score in scores], dim=1)
    _, group_n, size_G = torch.unique(score_nS, dim=0, return_inverse=True, return_counts=True)
    wrong_G = torch.bincount(group_n, (~correct_n.bool()).double(), minlength=len(size_G))
    wrong_n = torch.cumsum((wrong_G / size_G).repeat_interleave(size_G), dim=0)
    return RiskCoverage(name, wrong_n / torch.arange(1, len(correct_n) + 1, dtype=torch.float64))


@dataclass(frozen=True, eq=False)
class SelectiveResult:
    """Risk-coverage curves of several confidence scores on the same images.

    Attributes:
        curves: curves of the scores softmax, h_aug and decoder agreement.
        num_images: number of images that the curves were measured on.
        num_fit: number of other images, which h_aug was fitted on.
        temperature: the fitted h_aug; None without early decoders.
        seed: seed of the split.
        skipped: the scores that were left out, each with the reason.
    """

    curves: tuple[RiskCoverage, ...]
    num_images: int
    num_fit: int
    temperature: Temperature | None
    seed: int
    skipped: tuple[str, ...]

    def table(self) -> Table:
        """The area under every curve, and the risk at some coverages."""
        return Table(
            f"Wrong answers if only the images of highest score are answered, %: {self.num_images} images",
            ("score", "area under the curve", *(f"{coverage:.0%} answered" for coverage in COVERAGES)),
            tuple((curve.score, *map(percent, (curve.aurc, *map(curve.risk_at, COVERAGES)))) for curve in self.curves),
        )

    def to_json(self) -> dict[str, Any]:
        """The result in JSON's types; a curve has at most 200 points."""
        fitted = self.temperature
        return {
            "num_images": self.num_images,
            "num_fit": self.num_fit,
            "seed": self.seed,
            "temperature": fitted and {"temperature": fitted.temperature, "taus": list(fitted.taus)},
            "scores": [
                {
                    "score": curve.score,
                    "aurc": curve.aurc,
                    "risk_at_coverage": {f"{coverage:g}": curve.risk_at(coverage) for coverage in COVERAGES},
                    "curve": [{"coverage": coverage, "risk": risk} for coverage, risk in curve.points()],
                }
                for curve in self.curves
            ],
            "skipped": list(self.skipped),
        }

    def rows(self) -> list[dict[str, Any]]:
        """One row per score and point of its curve."""
        return [
            {"score": curve.score, "coverage": coverage, "risk": risk}
            for curve in self.curves
            for coverage, risk in curve.points()
        ]


def selective(outputs: Outputs, *, seed: int = 0, iterations: int = 600, lr: float = 0.1) -> SelectiveResult:
    """Compare confidence scores by the share of wrong answers among the images of highest score.

    Three scores are compared: the highest softmax probability; the highest probability of h_aug (eq. 11); and the
    number of early decoders that agree with the prediction (table 3), with ties broken by the softmax. h_aug is fitted
    on a random half of the images with the same share of every class. All scores are compared on the other half.

    Args:
        outputs: outputs of the network for the validation images.
        seed: seed of the split.
        iterations: iterations of gradient descent, at least 1.
        lr: step size of gradient descent, above 0.

    Returns:
        The risk-coverage curve of every score. Without coded blocks, only softmax is there.

    Raises:
        InputError: as for `stratified_splits` and `fit_temperature`.
    """
    ((fit, test),) = stratified_splits(outputs.targets, 0.5, seed=seed)
    judged = _part(outputs, test)
    correct_n = judged.predictions == judged.targets
    softmax_n = Temperature().confidence(judged.logits)
    curves = [risk_coverage(correct_n, softmax_n, name="softmax")]
    fitted: Temperature | None = None
    skipped: Sequence[str] = ()
    if outputs.decoded.shape[1]:
        fitted = fit_temperature(_part(outputs, fit), iterations=iterations, lr=lr)
        agreeing_n = agreement(judged.logits, judged.decoded).sum(1)
        curves += [
            risk_coverage(correct_n, fitted.confidence(judged.logits, judged.decoded), name="h_aug"),
            risk_coverage(correct_n, agreeing_n, softmax_n, name="decoder agreement"),
        ]
    else:
        reason = "without coded blocks there is no early decoder"
        skipped = (f"h_aug: {reason}", f"decoder agreement: {reason}")
    return SelectiveResult(tuple(curves), len(test), len(fit), fitted, seed, tuple(skipped))


def _part(outputs: Outputs, index: torch.Tensor) -> Outputs:
    """The outputs for the images with the given indices."""
    energies = tuple(values_nN[index] for values_nN in outputs.energies)
    return Outputs(outputs.logits[index], outputs.targets[index], energies, outputs.decoded[index])
