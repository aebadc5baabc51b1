"""Figure of a training: accuracy, losses and early decoders by epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from codedtool.interrupts import interrupts_held
from codedtool.report.style import BLUE, COLOURS, ORANGE, new_figure, percent_limits


@interrupts_held()
def draw_training(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Curves of the rows of metrics.csv, one row per epoch."""
    decoders = [key for key in rows[0] if key.startswith("val_decoder_accuracy_")]
    figure, panels = new_figure(3 if decoders else 2)
    epochs = [row["epoch"] for row in rows]
    for key, colour in (("train", ORANGE), ("val", BLUE)):
        panels[0].plot(epochs, [100 * row[f"{key}_accuracy"] for row in rows], color=colour, label=key)
        panels[1].plot(epochs, [row[f"{key}_loss"] for row in rows], color=colour, label=key)
    panels[0].set_ylabel("accuracy, %")
    panels[1].set_ylabel("classification loss")
    panels[1].set_yscale("log")
    for number, key in enumerate(decoders):
        colour = COLOURS[number % len(COLOURS)]
        style = ("-", "--", ":")[number // len(COLOURS) % 3]
        values = [100 * row[key] for row in rows]
        panels[2].plot(epochs, values, style, color=colour, label=key.removeprefix("val_decoder_accuracy_"))
    if decoders:
        panels[2].set_ylabel("accuracy of the early decoders, %")
    for panel in (panels[0], *panels[2:]):
        percent_limits(panel)
    for panel in panels:
        panel.set_xlabel("epoch")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        if len(rows) == 1:
            # One point makes no line.
            for line in panel.lines:
                line.set_marker("o")
        panel.legend(fontsize=7)
    return figure
