"""Confidence calibration (appendix C, table 6): the gap between confidence and accuracy, before and after temperatures.

Shape suffixes: n images, K classes, L coded blocks (early decoders).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from codedtool.analysis.result import Table, percent, spread
from codedtool.analysis.temperature import Likelihood, Temperature, check_descent
from codedtool.budget import Progress, silent
from codedtool.errors import InputError
from codedtool.training.subject import Outputs

# "h_aug, tau >= 0" is h_aug with no negative tau: agreement of early decoders then never raises the confidence.
Method = Literal["uncalibrated", "h_T", "h_aug", "h_aug, tau >= 0"]


class CalibrationError(NamedTuple):
    """Calibration errors of some images.

    Attributes:
        ece: expected calibration error, 0..1.
        mce: maximum calibration error, 0..1.
    """

    ece: float
    mce: float


@dataclass(frozen=True)
class ReliabilityBin:
    """One bin of a reliability diagram: the images whose confidence lies in (lower, upper].

    Attributes:
        lower, upper: edges of the bin, 0..1.
        count: number of images in the bin.
        confidence: their mean confidence, 0..1 (eq. 9).
        accuracy: their accuracy, 0..1 (eq. 8).
    """

    lower: float
    upper: float
    count: int
    confidence: float
    accuracy: float


def reliability_bins(
    confidence_n: torch.Tensor, correct_n: torch.Tensor, *, bins: int = 15
) -> tuple[ReliabilityBin, ...]:
    """The non-empty bins of a reliability diagram, in order (appendix C, eq. 8 and 9).

    Args:
        confidence_n: (n,) floats in 0..1: the probability that the network gives to the predicted class.
        correct_n: (n,) bool: whether the predicted class is the right one.
        bins: number M of bins of equal width, I_m = ((m-1)/M, m/M]. A confidence of exactly 0 is in the first bin.

    Raises:
        InputError: there is no image or no bin, the lengths differ, or a confidence is outside 0..1.

    Example:
        >>> for part in reliability_bins(torch.tensor([0.3, 0.4, 0.9]), torch.tensor([False, True, True]), bins=2):
        ...     print(part.lower, part.upper, part.count, round(part.confidence, 2), part.accuracy)
        0.0 0.5 2 0.35 0.5
        0.5 1.0 1 0.9 1.0
    """
    if bins < 1:
        raise InputError(f"`bins` must be at least 1, got {bins}")
    if confidence_n.dim() != 1 or confidence_n.shape != correct_n.shape or not len(confidence_n):
        raise InputError(
            "confidences and their correctness must be two vectors of one length of at least 1, "
            f"got shapes {tuple(confidence_n.shape)} and {tuple(correct_n.shape)}"
        )
    confidence_n, correct_n = confidence_n.double(), correct_n.double()
    # Rounding may lift a softmax slightly above 1. NaN, from a network that diverged, counts as outside.
    outside_n = ~((confidence_n >= 0) & (confidence_n <= 1 + 1e-6))
    if bool(outside_n.any()):
        value = float(confidence_n[outside_n][0])
        raise InputError(f"a confidence is the probability of the predicted class, in 0..1, got {value}")
    edges = torch.arange(bins + 1, dtype=torch.float64) / bins
    bin_n = (torch.bucketize(confidence_n, edges) - 1).clamp(0, bins - 1)
    counts = torch.bincount(bin_n, minlength=bins)
    confidences = torch.bincount(bin_n, confidence_n, minlength=bins) / counts
    accuracies = torch.bincount(bin_n, correct_n, minlength=bins) / counts
    return tuple(
        ReliabilityBin(m / bins, (m + 1) / bins, int(counts[m]), float(confidences[m]), float(accuracies[m]))
        for m in counts.nonzero().flatten().tolist()
    )


def expected_calibration_error(
    confidence_n: torch.Tensor, correct_n: torch.Tensor, *, bins: int = 15
) -> CalibrationError:
    """Expected and maximum calibration error (appendix C; Naeini et al. 2015).

    With bins B_m, ECE = sum_m |B_m|/n |acc(B_m) - conf(B_m)|, and MCE = max_m |acc(B_m) - conf(B_m)|. Empty bins are
    skipped. A bin with few images can make the MCE large by chance.

    Args:
        confidence_n: (n,) floats in 0..1: the probability that the network gives to the predicted class.
        correct_n: (n,) bool: whether the predicted class is the right one.
        bins: number of bins of equal width, at least 1.

    Raises:
        InputError: as for `reliability_bins`.

    Example:
        >>> expected_calibration_error(torch.tensor([0.75, 0.75]), torch.tensor([True, False]))
        CalibrationError(ece=0.25, mce=0.25)
    """
    parts = reliability_bins(confidence_n, correct_n, bins=bins)
    gaps = [abs(part.accuracy - part.confidence) for part in parts]
    ece = sum(part.count * gap for part, gap in zip(parts, gaps, strict=True)) / len(confidence_n)
    return CalibrationError(ece, max(gaps))


def stratified_splits(
    targets_n: torch.Tensor, fit_share: float, *, repeats: int = 1, seed: int = 0
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Random splits of images into a part to fit on and a part to test on, with the same share of every class.

    Args:
        targets_n: (n,) int64 classes. Classes without any image are ignored.
        fit_share: share of the images in the part to fit on, between 0 and 1.
        repeats: number of splits, at least 1.
        seed: seed of the splits, any integer of at least 0.

    Returns:
        For each split, the sorted indices of both parts.

    Raises:
        InputError: ``fit_share`` or ``repeats`` is out of range, a class has only one image, or a part has fewer images
            than there are classes.
    """
    from sklearn.model_selection import StratifiedShuffleSplit

    if not 0 < fit_share < 1 or repeats < 1:
        raise InputError(
            f"fit shares must lie between 0 and 1, and `repeats` must be at least 1, got {fit_share} and {repeats}"
        )
    counts = torch.bincount(targets_n)
    alone = (counts == 1).nonzero().flatten().tolist()
    if alone:
        raise InputError(
            f"calibration divides the images of every class into two parts, and class number {alone[0]} "
            f"has 1 image ({len(alone)} such classes); evaluate on at least 2 images of each class"
        )
    n, num_classes = len(targets_n), int((counts > 0).sum())
    smaller = min(int(fit_share * n), n - int(fit_share * n))
    if smaller < num_classes:
        needed = math.ceil(num_classes / min(fit_share, 1 - fit_share))
        raise InputError(
            f"a split of {n} images with fit share {fit_share} leaves a part of {smaller}, fewer than the "
            f"{num_classes} classes; evaluate on at least {needed} images"
        )
    # A SeedSequence takes seeds of any size; scikit-learn's own seeds end at 2^32.
    random = np.random.RandomState(np.random.MT19937(np.random.SeedSequence(seed)))
    splitter = StratifiedShuffleSplit(n_splits=repeats, train_size=fit_share, random_state=random)
    return [
        (torch.from_numpy(np.sort(fit)), torch.from_numpy(np.sort(test)))
        for fit, test in splitter.split(np.zeros(n), targets_n.numpy())
    ]


@dataclass(frozen=True)
class MethodCalibration:
    """Calibration errors of one method at one fit share, over all splits.

    Attributes:
        method: name of the method.
        fit_share: share of the images that temperatures were fitted on, 0..1.
        ece_mean, mce_mean: mean errors on the test parts, 0..1.
        ece_std, mce_std: their sample standard deviations (n - 1), 0..1; 0 for one split.
        temperature, taus: means of the fitted values.
        bins: reliability diagram of the test parts of all splits together. An image counts once for each split.
    """

    method: Method
    fit_share: float
    ece_mean: float
    ece_std: float
    mce_mean: float
    mce_std: float
    temperature: float
    taus: tuple[float, ...]
    bins: tuple[ReliabilityBin, ...]


@dataclass(frozen=True)
class CalibrationResult:
    """Table 6 of a run.

    Attributes:
        methods: for every fit share: uncalibrated, h_T, h_aug, and h_aug with tau >= 0.
        num_images: number of images that were split.
        repeats: number of splits for each fit share.
        iterations, lr: number of iterations and step size of gradient descent.
        num_bins: number of bins of the calibration errors.
        seed: seed of the splits.
        skipped: the methods that were left out, each with the reason.
    """

    methods: tuple[MethodCalibration, ...]
    num_images: int
    repeats: int
    iterations: int
    lr: float
    num_bins: int
    seed: int
    skipped: tuple[str, ...]

    def table(self) -> Table:
        """Table 6: the calibration errors, the mean temperature and the mean taus of every method."""
        return Table(
            f"Calibration error, %: mean ± standard deviation of {self.repeats} splits of {self.num_images} images",
            ("method", "images to fit, %", "ECE", "MCE", "T", "tau"),
            tuple(
                (
                    one.method,
                    percent(one.fit_share),
                    spread(one.ece_mean, one.ece_std),
                    spread(one.mce_mean, one.mce_std),
                    f"{one.temperature:.3f}",
                    " ".join(f"{tau:+.3f}" for tau in one.taus),
                )
                for one in self.methods
            ),
        )

    def to_json(self) -> dict[str, Any]:
        """The result in JSON's types."""
        document = asdict(self)
        document["skipped"] = list(self.skipped)
        document["methods"] = [
            {**asdict(method), "taus": list(method.taus), "bins": [asdict(part) for part in method.bins]}
            for method in self.methods
        ]
        return document

    def rows(self) -> list[dict[str, Any]]:
        """One row per method and fit share; the taus are in the columns tau_1, tau_2, ..."""
        rows = []
        for method in self.methods:
            row = asdict(method)
            del row["bins"], row["taus"]
            rows.append(row | {f"tau_{i}": tau for i, tau in enumerate(method.taus, start=1)})
        return rows


def calibrate(
    outputs: Outputs,
    *,
    seed: int = 0,
    repeats: int = 41,
    fit_shares: Sequence[float] = (0.25, 0.5),
    iterations: int = 600,
    lr: float = 0.1,
    bins: int = 15,
    progress: Progress = silent,
) -> CalibrationResult:
    """Fit temperatures on one part of random splits, and measure ECE and MCE on the other part (table 6).

    The splits keep the shares of the classes. The protocol is that of appendix C: one split and "40 times more".
    `fit_temperature` describes how h_T and h_aug are fitted.

    Args:
        outputs: outputs of the network for the validation images.
        seed: seed of the splits.
        repeats: number of splits for each fit share, at least 1.
        fit_shares: shares of the images that temperatures are fitted on, each between 0 and 1.
        iterations: iterations of gradient descent, at least 1 (paper: 600).
        lr: step size of gradient descent, above 0 (paper: 0.1).
        bins: number of bins of the calibration errors (paper: 15).
        progress: where to report the progress.

    Returns:
        Mean and standard deviation of the errors of every method and fit share.

    Raises:
        InputError: as for `stratified_splits`, `fit_temperature` and `reliability_bins`.
    """
    check_descent(iterations, lr)
    splits = {share: stratified_splits(outputs.targets, share, repeats=repeats, seed=seed) for share in fit_shares}
    methods: list[Method] = ["uncalibrated", "h_T"]
    skipped: tuple[str, ...] = ()
    if outputs.decoded.shape[1]:
        methods += ["h_aug", "h_aug, tau >= 0"]
    else:
        skipped = ("h_aug: without coded blocks there is no early decoder",)
    likelihood = Likelihood(outputs, progress)
    results = []
    for share, parts in splits.items():
        for method in methods:
            if method == "uncalibrated":
                temperatures = [Temperature()] * repeats
            else:
                temperatures = likelihood.fit(
                    [fit for fit, _ in parts],
                    augmented=method.startswith("h_aug"),
                    positive_taus=method == "h_aug, tau >= 0",
                    iterations=iterations,
                    lr=lr,
                )
            tests = [test for _, test in parts]
            phase = f"{method}, {share:.0%} to fit"
            results.append(_measure(outputs, method, share, temperatures, tests, bins, progress, phase))
    return CalibrationResult(tuple(results), len(outputs.targets), repeats, iterations, lr, bins, seed, skipped)


def _measure(
    outputs: Outputs,
    method: Method,
    share: float,
    temperatures: Sequence[Temperature],
    tests: Sequence[torch.Tensor],
    bins: int,
    progress: Progress,
    phase: str,
) -> MethodCalibration:
    """The errors of one temperature for each split, measured on the images that it was not fitted on."""
    correct_n = outputs.predictions == outputs.targets
    confidences, errors = [], []
    for repeat, (temperature, test) in enumerate(zip(temperatures, tests, strict=True)):
        progress(phase, repeat, len(tests))
        confidences.append(temperature.confidence(outputs.logits[test], outputs.decoded[test]))
        errors.append(expected_calibration_error(confidences[-1], correct_n[test], bins=bins))
    spread = np.std(errors, axis=0, ddof=1) if len(errors) > 1 else np.zeros(2)
    ece, mce = np.mean(errors, axis=0).tolist()
    temperature, *taus = np.mean([(each.temperature, *each.taus) for each in temperatures], axis=0).tolist()
    pooled = reliability_bins(torch.cat(confidences), correct_n[torch.cat(list(tests))], bins=bins)
    return MethodCalibration(
        method, share, ece, float(spread[0]), mce, float(spread[1]), temperature, tuple(taus), pooled
    )
