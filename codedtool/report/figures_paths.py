"""Figures of the information paths: specialization (figures 2a and 9) and activations (figure 6)."""

from __future__ import annotations

import math

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from codedtool.analysis.activations import ActivationsResult
from codedtool.analysis.specialization import SpecializeResult
from codedtool.report.style import BLUE, RED, new_figure

# Blue is active and red inactive, as in the paper's figure 6.
_COLOURS = {"active": BLUE, "inactive": RED}
_MARKERS = {"active": "o", "inactive": "s"}


def draw_specialization(result: SpecializeResult) -> Figure:
    """Accuracy (percent) by the number of removed subNNs, active and inactive ones; a panel per block."""
    figure, panels = _panels(len(result.blocks), per_row=3)
    for axes, curves in zip(panels, result.blocks, strict=True):
        for kind, accuracies in (("active", curves.active), ("inactive", curves.inactive)):
            axes.plot(
                range(len(accuracies)),
                [100 * accuracy for accuracy in accuracies],
                color=_COLOURS[kind],
                marker=_MARKERS[kind],
                markersize=3,
                label=kind,
            )
        axes.set_title(f"block {curves.block} ({curves.act}/{curves.num_subnns})", fontsize=9)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if axes is not panels[0]:
            axes.sharey(panels[0])
    # Limits were those of each panel's own curves until it shared the first one's.
    panels[0].autoscale(axis="y")
    panels[0].legend(title="removed", fontsize=8, title_fontsize=8)
    figure.supxlabel("removed subNNs", fontsize=9)
    figure.supylabel("accuracy, %", fontsize=9)
    return figure


def draw_activations(result: ActivationsResult) -> Figure:
    """Densities, on a log scale, of a block's absolute normalized outputs; a panel per subNN."""
    figure, panels = _panels(len(result.subnns), per_row=5)
    for axes, subnn in zip(panels, result.subnns, strict=True):
        highest = 1
        for kind, part in subnn.parts:
            axes.stairs(part.density(subnn.edges), subnn.edges, color=_COLOURS[kind], label=kind)
            highest = max([highest, *(number + 1 for number, count in enumerate(part.counts) if count)])
        # The range is a power of two: up to half of its bins lie above the largest value.
        axes.set_xlim(0, subnn.edges[highest])
        axes.set_yscale("log")
        axes.set_title(f"subNN {subnn.subnn}", fontsize=9)
    panels[0].legend(title="for the class", fontsize=8, title_fontsize=8)
    figure.supxlabel(f"absolute output after Energy Normalization, block {result.block}", fontsize=9)
    figure.supylabel("density", fontsize=9)
    return figure


def _panels(number: int, *, per_row: int) -> tuple[Figure, list[Axes]]:
    """A figure with ``number`` small panels in rows as even as can be, of at most ``per_row``."""
    rows = math.ceil(number / per_row)
    figure, axes = new_figure(math.ceil(number / rows), rows, width=2.9, height=2.4)
    for unused in axes[number:]:
        unused.remove()
    return figure, axes[:number]
