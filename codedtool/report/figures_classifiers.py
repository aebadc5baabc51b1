"""Figures of binary classifiers: precision against recall (2b, 2c, 8) and histograms of their scores (3, 7)."""

from __future__ import annotations

from collections import Counter

from matplotlib.figure import Figure

from codedtool.analysis.bc import BcResult
from codedtool.analysis.classifier_metrics import ClassifierMetrics, ClassifiersResult
from codedtool.analysis.result import Drawing
from codedtool.report.style import BLUE, COLOURS, GREEN, ORANGE, label_points, new_figure, percent_limits, short_label
from codedtool.text import for_figure

# With at most this many classes, the names fit beside the points.
_NAMED = 20


def draw(result: BcResult) -> tuple[Drawing, ...]:
    """The figures of ``codedtool bc``. The scatter plot is left out for one class, where it would be a single point."""
    found = result.classifiers
    scores = Drawing(
        f"{result.name}_scores", "Histograms of the classifiers' logits for the first classes", draw_scores(found)
    )
    if result.class_name is not None:
        return (scores,)
    return (Drawing(result.name, "Precision and recall of every class's classifier", draw_classifiers(found)), scores)


def draw_classifiers(result: ClassifiersResult) -> Figure:
    """Precision and recall of every class: one panel per set of negatives, one colour per source of scores."""
    sets = ["val", "ood"] if result.ood else ["val"]
    figure, axes = new_figure(len(sets), height=3.6, width=5.0)
    for panel, name in zip(axes, sets, strict=True):
        for source, colour in zip(result.sources, COLOURS, strict=False):
            found = [metrics for one in result.of(source) if (metrics := getattr(one, name)) is not None]
            # Many classes with few images have the same point: its area is their number, as in figure 2c.
            points = Counter((100 * metrics.recall, 100 * metrics.precision) for metrics in found)
            panel.scatter(
                [recall for recall, _ in points],
                [precision for _, precision in points],
                s=[16 * number for number in points.values()],
                color=colour,
                alpha=0.8,
                label=source,
            )
        # A good network's points are told apart only if the axes begin near them.
        percent_limits(panel, "x")
        percent_limits(panel, "y")
        panel.set_xlabel("recall, %")
        negatives = f", negatives of {_short(result.ood)}" if result.ood and name == "ood" else ""
        panel.set_ylabel(f"precision, %{negatives}")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=8, loc="outside upper center", ncols=2, frameon=False)
    for panel, name in zip(axes, sets, strict=True):
        named = result.of(result.sources[0])
        if len(named) <= _NAMED:
            places = [_place(one, name) for source in result.sources for one in result.of(source)]
            label_points(
                panel, places[: len(named)], [short_label(one.class_name) for one in named], places[len(named) :]
            )
    return figure


def draw_scores(result: ClassifiersResult) -> Figure:
    """Histograms of the scores of positives, negatives and out-of-distribution images, one panel per class."""
    columns = min(5, len(result.histograms))
    rows = -(-len(result.histograms) // columns)
    figure, axes = new_figure(columns, rows, width=2.4, height=1.9)
    thresholds = {one.class_name: one.threshold for one in result.of(result.sources[0])}
    for panel, one in zip(axes, result.histograms, strict=False):
        for name, values, colour in (
            ("positives", one.positives, BLUE),
            ("negatives", one.negatives, ORANGE),
            (f"negatives of {_short(result.ood or '')}", one.ood, GREEN),
        ):
            if values is not None:
                panel.stairs(values, one.edges, color=colour, fill=True, alpha=0.45, label=name)
        panel.axvline(thresholds[one.class_name], color="black", linewidth=0.8, linestyle="--", label="threshold")
        panel.set_title(short_label(one.class_name), fontsize=8)
        panel.set_yticks([])
        panel.tick_params(labelsize=7)
    for panel in axes[len(result.histograms) :]:
        panel.set_visible(False)
    axes[0].legend(fontsize=6)
    figure.supxlabel("logit of the binary classifier", fontsize=8)
    return figure


def _place(one: ClassifierMetrics, name: str) -> tuple[float, float]:
    metrics = getattr(one, name)
    return (100 * metrics.recall, 100 * metrics.precision)


def _short(name: str) -> str:
    """A data set's name as a short label of a figure: of a path, only the last part."""
    return for_figure(name.rpartition("/")[2])
