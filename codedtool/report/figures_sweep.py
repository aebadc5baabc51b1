"""Figure of a sweep (figure 5): accuracy, early decoders and binary classifiers against the varied value."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from codedtool.analysis.sweep import SweepPoint, SweepResult
from codedtool.interrupts import interrupts_held
from codedtool.report.style import COLOURS, new_figure
from codedtool.text import for_figure

# The most letters that fit below a panel side by side.
_LETTERS = 40


@interrupts_held()
def draw_sweep(result: SweepResult) -> Figure:
    """One panel per kind of measurement, plotted over the first varied key.

    Every combination of the other keys' values is a line. Error bars are standard deviations over seeds.
    """
    names = result.measured
    decoders = [name for name in names if name.startswith("decoder_")]
    panels = {"accuracy, %": ["accuracy"]}
    if decoders:
        panels["early decoder of the last block, %"] = [decoders[-1]]
        panels["mean early decoder, %"] = decoders
    if "bc_f1" in names:
        panels["mean F1 of the binary classifiers, %"] = ["bc_f1"]
    figure, axes = new_figure(len(panels))
    first, *others = result.varied
    lines: dict[tuple[Any, ...], list[SweepPoint]] = {}
    for point in result.points:
        if point.figures:
            lines.setdefault(tuple(point.values[key] for key in others), []).append(point)
    values = list(dict.fromkeys(point.values[first] for point in result.points))
    is_number = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    for panel, (label, keys) in zip(axes, panels.items(), strict=True):
        for number, (rest, points) in enumerate(lines.items()):
            panel.errorbar(
                [point.values[first] if is_number else values.index(point.values[first]) for point in points],
                [100 * sum(point.figures[key][0] for key in keys) / len(keys) for point in points],
                yerr=[100 * sum(point.figures[key][1] for key in keys) / len(keys) for point in points],
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
