"""Figure of specialization (figures 2a and 9): accuracy by the number of removed subNNs."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from codedtool.analysis.result import Drawing
from codedtool.analysis.specialization import SpecializeResult
from codedtool.report.style import ACTIVITY_COLOURS, new_panels, percent_limits

_MARKERS = {"active": "o", "inactive": "s"}


def draw(result: SpecializeResult) -> tuple[Drawing, ...]:
    """The figure of ``codedtool specialize``."""
    alt = "Accuracy by the number of removed subNNs, block by block"
    return (Drawing(result.name, alt, draw_specialization(result)),)


def draw_specialization(result: SpecializeResult) -> Figure:
    """Accuracy in per cent by the number of removed active and inactive subNNs, one panel per block."""
    figure, panels = new_panels(len(result.blocks), per_row=3)
    for axes, curves in zip(panels, result.blocks, strict=True):
        for kind, accuracies in (("active", curves.active), ("inactive", curves.inactive)):
            axes.plot(
                range(len(accuracies)),
                [100 * accuracy for accuracy in accuracies],
                color=ACTIVITY_COLOURS[kind],
                marker=_MARKERS[kind],
                markersize=3,
                label=kind,
            )
        axes.set_title(f"block {curves.block} ({curves.act}/{curves.num_subnns})", fontsize=9)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if axes is not panels[0]:
            axes.sharey(panels[0])
    # All panels share the first one's limits, which must hold all curves.
    lowest = min(100 * accuracy for curves in result.blocks for accuracy in (*curves.active, *curves.inactive))
    percent_limits(panels[0], low=lowest - 3)
    panels[0].legend(title="removed", fontsize=8, title_fontsize=8)
    figure.supxlabel("removed subNNs", fontsize=9)
    figure.supylabel("accuracy, %", fontsize=9)
    return figure
