"""The figures of `calibrate`: reliability and calibration errors (table 6), and risk-coverage curves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from codedtool.analysis.calibration import CalibrationResult
from codedtool.analysis.confidence import ConfidenceResult
from codedtool.analysis.result import Drawing
from codedtool.analysis.selective import SelectiveResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours can be told apart with any kind of colour vision. Each has its own marker and dash.
_LOOKS: dict[str, tuple[str, str, Literal["-", "--", "-.", ":"]]] = {
    "uncalibrated": ("#555555", "o", "-"),
    "h_T": ("#0072B2", "s", "--"),
    "h_aug": ("#D55E00", "^", "-."),
    "h_aug, tau >= 0": ("#CC79A7", "v", ":"),
    "softmax": ("#555555", "o", "-"),
    "decoder agreement": ("#009E73", "D", "--"),
}

# The paper's symbols for the methods.
_LABELS = {"h_T": "$h_T$", "h_aug": "$h_{aug}$", "h_aug, tau >= 0": r"$h_{aug}$, $\tau \geq 0$"}


def draw(result: ConfidenceResult) -> tuple[Drawing, ...]:
    """The figures of ``codedtool calibrate``."""
    return (
        Drawing("calibration", "Reliability and calibration error", draw_calibration(result.calibration)),
        Drawing(
            "selective", "Share of wrong answers by share of answered images", draw_risk_coverage(result.selective)
        ),
    )


def draw_calibration(result: CalibrationResult) -> Figure:
    """The reliability diagram of the largest fit share, and the ECE and MCE of every fit share.

    In the diagram, the area of a marker grows with the share of images in its bin. Bars show means over the splits, and
    their error bars show standard deviations.
    """
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    diagram, ece, mce = figure.subplots(1, 3, width_ratios=(1.3, 1, 1))
    _draw_reliability(diagram, result)
    _draw_bars(ece, result, "ece")
    _draw_bars(mce, result, "mce")
    names = list(dict.fromkeys(method.method for method in result.methods))
    handles = []
    for name in names:
        color, marker, dash = _LOOKS[name]
        handles.append(Line2D([], [], color=color, marker=marker, linestyle=dash, label=_LABELS.get(name, name)))
    figure.legend(handles=handles, loc="outside upper center", ncols=len(names), frameon=False)
    return figure


def _draw_reliability(axes: Axes, result: CalibrationResult) -> None:
    largest = max(method.fit_share for method in result.methods)
    axes.plot([0, 100], [0, 100], color="#AAAAAA", linewidth=1, zorder=1)
    for method in result.methods:
        if method.fit_share != largest:
            continue
        color, marker, dash = _LOOKS[method.method]
        total = sum(part.count for part in method.bins)
        confidences = [100 * part.confidence for part in method.bins]
        accuracies = [100 * part.accuracy for part in method.bins]
        areas = [12 + 150 * part.count / total for part in method.bins]
        axes.plot(confidences, accuracies, color=color, linestyle=dash, linewidth=1.2)
        axes.scatter(
            confidences,
            accuracies,
            s=areas,
            color=color,
            marker=marker,
            alpha=0.75,
            linewidths=0,
            zorder=2,
        )
    axes.set(xlabel="confidence (%)", ylabel="accuracy (%)", xlim=(0, 102), ylim=(-2, 102))
    axes.set_aspect("equal")


def _draw_bars(axes: Axes, result: CalibrationResult, error: str) -> None:
    shares = sorted({method.fit_share for method in result.methods})
    names = list(dict.fromkeys(method.method for method in result.methods))
    width = 0.8 / len(names)
    for method in result.methods:
        color, _, _ = _LOOKS[method.method]
        offset = (names.index(method.method) - (len(names) - 1) / 2) * width
        axes.bar(
            shares.index(method.fit_share) + offset,
            100 * getattr(method, f"{error}_mean"),
            width,
            yerr=100 * getattr(method, f"{error}_std"),
            color=color,
            ecolor="black",
            capsize=2,
        )
    axes.set_xticks(range(len(shares)), [f"{100 * share:g}/{100 - 100 * share:g}" for share in shares])
    axes.set(xlabel="fit/test split (%)", ylabel=f"{error.upper()} (%)", ylim=(0, None))
    axes.spines[["top", "right"]].set_visible(False)


def draw_risk_coverage(result: SelectiveResult) -> Figure:
    """Risk against coverage, one curve per confidence score. The legend gives the area under each curve (AURC).

    Of several splits, a curve is the mean, and the band around it is one standard deviation wide on each side.
    """
    figure = Figure(figsize=(5.4, 3.8), layout="constrained")
    axes = figure.subplots()
    for curve in result.curves:
        color, _, dash = _LOOKS[curve.score]
        points = curve.points()
        coverages = [100 * coverage for coverage, _ in points]
        if band := curve.band():
            low, high = ([100 * edge[side] for edge in band] for side in (0, 1))
            axes.fill_between(coverages, low, high, color=color, alpha=0.12, linewidth=0)
        axes.plot(
            coverages,
            [100 * risk for _, risk in points],
            color=color,
            linestyle=dash,
            linewidth=1.6,
            label=f"{_LABELS.get(curve.score, curve.score)} (AURC {100 * curve.aurc:.2f} %)",
        )
    # Without a wrong answer all curves lie on the axis, which then needs a range of its own.
    nothing_wrong = all(not curve.risk_n.any() for curve in result.curves)
    top = 1 if nothing_wrong else None
    axes.set(xlabel="coverage: images answered (%)", ylabel="risk: wrong among them (%)", xlim=(0, 100), ylim=(0, top))
    if nothing_wrong:
        axes.text(50, 0.3, f"all {result.num_images} images are answered rightly", ha="center")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="upper left")
    return figure
