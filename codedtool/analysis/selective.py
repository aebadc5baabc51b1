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
from codedtool.analysis.result import Table, percent, spread
from codedtool.analysis.temperature import Likelihood, Temperature, agreement, check_descent
from codedtool.errors import InputError
from codedtool.training.subject import Outputs

COVERAGES = (0.5, 0.8, 0.9, 0.95, 1.0)

_MAX_POINTS = 200


@dataclass(frozen=True, eq=False)
class RiskCoverage:
    """The risk-coverage curve of one score.

    Attributes:
        score: name of the score.
        risk_n: (n,) float64 in 0..1; entry k-1 is the share of wrong answers among the k images of highest score. Of
            several splits, it is the mean.
        deviation_n: (n,) the sample standard deviation of ``risk_n`` over the splits; None for one split.
        aurc_deviation: that of the area under the curve; 0 for one split.
    """

    score: str
    risk_n: torch.Tensor
    deviation_n: torch.Tensor | None = None
    aurc_deviation: float = 0.0

    @property
    def aurc(self) -> float:
        """Area under the curve: the mean risk over the coverages 1/n, 2/n, ..., 1 (Geifman & El-Yaniv 2017)."""
        return float(self.risk_n.mean())

    def risk_at(self, coverage: float) -> float:
        """The risk at the smallest coverage k/n that is at least ``coverage``.

        Raises:
            InputError: ``coverage`` is not above 0 and at most 1.
        """
        return float(self.risk_n[self._at(coverage)])

    def deviation_at(self, coverage: float) -> float:
        """The standard deviation of `risk_at` over the splits; 0 for one split."""
        return 0.0 if self.deviation_n is None else float(self.deviation_n[self._at(coverage)])

    def _at(self, coverage: float) -> int:
        if not 0 < coverage <= 1:
            raise InputError(f"`coverage` must be above 0 and at most 1, got {coverage}")
        n = len(self.risk_n)
        # The product may be slightly above a whole number through rounding: it then means that number.
        return max(1, math.ceil(coverage * n - 1e-9 * n)) - 1

    def points(self, limit: int = _MAX_POINTS) -> list[tuple[float, float]]:
        """At most ``limit`` points (coverage, risk) of the curve, evenly spaced; the last is at full coverage."""
        n = len(self.risk_n)
        return [(count / n, float(self.risk_n[count - 1])) for count in self._counts(limit)]

    def band(self, limit: int = _MAX_POINTS) -> list[tuple[float, float]]:
        """At the coverages of `points`, the risk minus and plus its standard deviation."""
        if self.deviation_n is None:
            return []
        low_n, high_n = self.risk_n - self.deviation_n, self.risk_n + self.deviation_n
        return [(max(0.0, float(low_n[k - 1])), min(1.0, float(high_n[k - 1]))) for k in self._counts(limit)]

    def _counts(self, limit: int) -> list[int]:
        n = len(self.risk_n)
        return torch.linspace(1, n, min(n, limit), dtype=torch.float64).round().long().tolist()


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


def mean_curve(curves: Sequence[RiskCoverage]) -> RiskCoverage:
    """The mean of the curves of one score over several splits, with the standard deviations.

    Args:
        curves: curves of equally many images, at least one.
    """
    if len(curves) == 1:
        return curves[0]
    risk_Rn = torch.stack([curve.risk_n for curve in curves])
    deviation = float(torch.tensor([curve.aurc for curve in curves], dtype=torch.float64).std())
    return RiskCoverage(curves[0].score, risk_Rn.mean(0), risk_Rn.std(0), deviation)


@dataclass(frozen=True, eq=False)
class SelectiveResult:
    """Risk-coverage curves of several confidence scores on the same images, as means over random splits.

    Attributes:
        curves: curves of the scores softmax, h_aug and decoder agreement.
        num_images: number of images of a split that the curves were measured on.
        num_fit: number of other images, which h_aug was fitted on.
        temperature: the fitted h_aug, of several splits the means of its values; None without early decoders.
        seed: seed of the splits.
        skipped: the scores that were left out, each with the reason.
        repeats: number of splits.
    """

    curves: tuple[RiskCoverage, ...]
    num_images: int
    num_fit: int
    temperature: Temperature | None
    seed: int
    skipped: tuple[str, ...]
    repeats: int = 1

    def table(self) -> Table:
        """The area under every curve, and the risk at some coverages."""
        means = f": mean ± standard deviation of {self.repeats} splits" if self.repeats > 1 else ""
        return Table(
            f"Wrong answers if only the images of highest score are answered, %{means}, {self.num_images} images",
            ("score", "area under the curve", *(f"{coverage:.0%} answered" for coverage in COVERAGES)),
            tuple(
                (
                    curve.score,
                    self._cell(curve.aurc, curve.aurc_deviation),
                    *(self._cell(curve.risk_at(coverage), curve.deviation_at(coverage)) for coverage in COVERAGES),
                )
                for curve in self.curves
            ),
        )

    def _cell(self, mean: float, deviation: float) -> str:
        return spread(mean, deviation) if self.repeats > 1 else percent(mean)

    def to_json(self) -> dict[str, Any]:
        """The result in JSON's types; a curve has at most 200 points."""
        fitted = self.temperature
        return {
            "num_images": self.num_images,
            "num_fit": self.num_fit,
            "seed": self.seed,
            "repeats": self.repeats,
            "temperature": fitted and {"temperature": fitted.temperature, "taus": list(fitted.taus)},
            "scores": [
                {
                    "score": curve.score,
                    "aurc": curve.aurc,
                    "aurc_std": curve.aurc_deviation,
                    "risk_at_coverage": {f"{coverage:g}": curve.risk_at(coverage) for coverage in COVERAGES},
                    "std_at_coverage": {f"{coverage:g}": curve.deviation_at(coverage) for coverage in COVERAGES},
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


def selective(
    outputs: Outputs, *, seed: int = 0, repeats: int = 1, iterations: int = 600, lr: float = 0.1
) -> SelectiveResult:
    """Compare confidence scores by the share of wrong answers among the images of highest score.

    Three scores are compared: the highest softmax probability; the highest probability of h_aug (eq. 11); and the
    number of early decoders that agree with the prediction (table 3), with ties broken by the softmax. h_aug is fitted
    on a random half of the images with the same share of every class. All scores are compared on the other half. One
    half holds few wrong answers of a good network, so several splits give steadier curves.

    Args:
        outputs: outputs of the network for the validation images.
        seed: seed of the splits.
        repeats: number of random splits, at least 1.
        iterations: iterations of gradient descent, at least 1.
        lr: step size of gradient descent, above 0.

    Returns:
        The mean risk-coverage curve of every score. Without coded blocks, only softmax is there.

    Raises:
        InputError: as for `stratified_splits` and `fit_temperature`.
    """
    check_descent(iterations, lr)
    splits = stratified_splits(outputs.targets, 0.5, repeats=repeats, seed=seed)
    correct_n = outputs.predictions == outputs.targets
    softmax_n = Temperature().confidence(outputs.logits)
    curves = {"softmax": [risk_coverage(correct_n[test], softmax_n[test], name="softmax") for _, test in splits]}
    fitted: Temperature | None = None
    skipped: Sequence[str] = ()
    if outputs.decoded.shape[1]:
        temperatures = Likelihood(outputs).fit(
            [fit for fit, _ in splits], augmented=True, positive_taus=False, iterations=iterations, lr=lr
        )
        agreeing_n = agreement(outputs.logits, outputs.decoded).sum(1)
        augmented, agreeing = "h_aug", "decoder agreement"
        curves |= {augmented: [], agreeing: []}
        for temperature, (_, test) in zip(temperatures, splits, strict=True):
            confidence_m = temperature.confidence(outputs.logits[test], outputs.decoded[test])
            curves[augmented].append(risk_coverage(correct_n[test], confidence_m, name=augmented))
            curves[agreeing].append(risk_coverage(correct_n[test], agreeing_n[test], softmax_n[test], name=agreeing))
        values_RP = torch.tensor([(one.temperature, *one.taus) for one in temperatures], dtype=torch.float64)
        mean, *taus = values_RP.mean(0).tolist()
        fitted = Temperature(mean, tuple(taus))
    else:
        reason = "without coded blocks there is no early decoder"
        skipped = (f"h_aug: {reason}", f"decoder agreement: {reason}")
    fit, test = splits[0]
    return SelectiveResult(
        tuple(mean_curve(each) for each in curves.values()), len(test), len(fit), fitted, seed, tuple(skipped), repeats
    )
