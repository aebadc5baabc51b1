"""Figure of a sweep (figure 5): accuracy, early decoders and binary classifiers against the varied value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import fmean
from typing import Any

from matplotlib.figure import Figure

from codedtool.analysis.sweep import SweepPoint, SweepResult
from codedtool.interrupts import interrupts_held
from codedtool.report.style import COLOURS, new_figure
from codedtool.text import for_figure

# Means and standard deviations of a point's measurements.
_Figures = Mapping[str, tuple[float, float]]


def _decoders(figures: _Figures) -> list[tuple[float, float]]:
    """Those of the early decoders, in the order of the blocks. Points with other schemes may code other blocks."""
    return [pair for key, pair in figures.items() if key.startswith("decoder_")]


# Title of each panel -> function that chooses a point's measurements for it. Their mean is drawn.
_PANELS: dict[str, Callable[[_Figures], list[tuple[float, float]]]] = {
    "accuracy, %": lambda figures: [figures["accuracy"]] if figures else [],
    "early decoder of the last block, %": lambda figures: _decoders(figures)[-1:],
    "mean early decoder, %": _decoders,
    "mean F1 of the binary classifiers, %": lambda figures: [figures["bc_f1"]] if "bc_f1" in figures else [],
}

# The most letters that fit below a panel side by side.
_LETTERS = 40


@interrupts_held()
def draw_sweep(result: SweepResult) -> Figure:
    """One panel per kind of measurement, plotted over the first varied key.

    Every combination of the other keys' values is a line. Error bars are standard deviations over seeds.
    """
    panels = {title: choose for title, choose in _PANELS.items() if any(choose(p.figures) for p in result.points)}
    figure, axes = new_figure(len(panels))
    first, *others = result.varied
    lines: dict[tuple[Any, ...], list[SweepPoint]] = {}
    for point in result.points:
        if point.figures:
            lines.setdefault(tuple(point.values[key] for key in others), []).append(point)
    values = list(dict.fromkeys(point.values[first] for point in result.points))
    is_number = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    for panel, (label, choose) in zip(axes, panels.items(), strict=True):
        for number, (rest, points) in enumerate(lines.items()):
            measured = [(point, chosen) for point in points if (chosen := choose(point.figures))]
            panel.errorbar(
                [point.values[first] if is_number else values.index(point.values[first]) for point, _ in measured],
                [100 * fmean(value for value, _ in chosen) for _, chosen in measured],
                yerr=[100 * fmean(deviation for _, deviation in chosen) for _, chosen in measured],
                fmt="o-",
                markersize=4,
                capsize=2,
                color=COLOURS[number % len(COLOURS)],
                label=for_figure(", ".join(f"{key}={value}" for key, value in zip(others, rest, strict=True))) or None,
            )
        if not is_number:
            texts = [for_figure(str(value)) for value in values]
            # Names that would run into each other stand upright.
            upright = sum(map(len, texts)) > _LETTERS
            panel.set_xticks(range(len(values)), texts, rotation=90 if upright else 0)
        # Not up to 100%: what varies is the difference between the points.
        low, high = panel.get_ylim()
        panel.set_ylim(max(low, 0), min(high, 100))
        panel.set_xlabel(first)
        panel.set_ylabel(label)
    if others:
        axes[0].legend(fontsize=7)
    return figure
