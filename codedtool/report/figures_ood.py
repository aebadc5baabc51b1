"""Figure of out-of-distribution detection: true against false positives of every score."""

from __future__ import annotations

from matplotlib.figure import Figure

from codedtool.analysis.ood import OodResult
from codedtool.analysis.result import Drawing, percent
from codedtool.report.style import COLOURS, new_figure


def draw(result: OodResult) -> tuple[Drawing, ...]:
    """The figure of ``codedtool ood``."""
    return (Drawing(result.name, "True against false positives, score by score", draw_ood(result)),)


def draw_ood(result: OodResult) -> Figure:
    """One panel per network and one curve per score; a single block's codeword distance is left to the table."""
    networks = list(dict.fromkeys(one.network for one in result.detections))
    figure, axes = new_figure(len(networks))
    for panel, network in zip(axes, networks, strict=True):
        shown = [
            one
            for one in result.detections
            if one.network == network and (not one.score.startswith("codeword") or one.score.endswith("all blocks"))
        ]
        for one, colour in zip(shown, COLOURS, strict=False):
            panel.plot(
                [100 * fpr for fpr, _ in one.curve],
                [100 * tpr for _, tpr in one.curve],
                color=colour,
                label=f"{one.score}: AUROC {percent(one.auroc)}%",
            )
        panel.plot([0, 100], [0, 100], color="black", linewidth=0.6, linestyle=":")
        panel.set_xlim(0, 100)
        panel.set_ylim(0, 100)
        panel.set_title(network, fontsize=9)
        panel.set_xlabel("images of the other data set taken for the run's own, %")
        panel.legend(fontsize=7, loc="lower right")
    axes[0].set_ylabel("images of the run's data set recognised, %")
    return figure
