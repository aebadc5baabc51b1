"""Figure of the distributions of absolute subNN outputs (figure 6)."""

from __future__ import annotations

from matplotlib.figure import Figure

from codedtool.analysis.activations import ActivationsResult
from codedtool.analysis.result import Drawing
from codedtool.report.style import ACTIVITY_COLOURS, new_panels


def draw(result: ActivationsResult) -> tuple[Drawing, ...]:
    """The figure of ``codedtool activations``."""
    alt = "Distributions of absolute outputs, for images of a subNN's classes and for other images"
    return (Drawing(result.name, alt, draw_activations(result)),)


def draw_activations(result: ActivationsResult) -> Figure:
    """Densities of a block's absolute outputs after Energy Normalization, on a log scale; one panel per subNN."""
    figure, panels = new_panels(len(result.subnns), per_row=5)
    for axes, subnn in zip(panels, result.subnns, strict=True):
        highest = 1
        for kind, part in subnn.parts:
            axes.stairs(part.density(subnn.edges), subnn.edges, color=ACTIVITY_COLOURS[kind], label=kind)
            highest = max([highest, *(number + 1 for number, count in enumerate(part.counts) if count)])
        # Up to half of the bins lie above the largest value, because the range is a power of two: cut them off.
        axes.set_xlim(0, subnn.edges[highest])
        axes.set_yscale("log")
        axes.set_title(f"subNN {subnn.subnn}", fontsize=9)
    panels[0].legend(title="for the class", fontsize=8, title_fontsize=8)
    figure.supxlabel(f"absolute output{result.after}, block {result.block}", fontsize=9)
    figure.supylabel("density", fontsize=9)
    return figure
