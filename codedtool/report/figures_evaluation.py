"""Figure of the evaluation: the confusion matrix."""

from __future__ import annotations

from matplotlib.figure import Figure

from codedtool.analysis.evaluation import EvalResult
from codedtool.analysis.result import Drawing
from codedtool.report.style import new_figure, short_label

# The most classes whose names, and whose shares as numbers, fit into the figure.
_MOST_NAMES, _MOST_NUMBERS = 40, 12


def draw(result: EvalResult) -> tuple[Drawing, ...]:
    """The figure of ``codedtool eval``."""
    alt = "Confusion matrix: of the images of every class, the share taken for each class"
    return (Drawing(f"{result.name}_confusion", alt, draw_confusion(result)),)


def draw_confusion(result: EvalResult) -> Figure:
    """The confusion matrix in per cent of every class's images: a row per class, a column per class taken for."""
    names = [short_label(one.name) for one in result.classes]
    shares = [[100 * count / max(1, sum(row)) for count in row] for row in result.confusion]
    side = min(9.0, max(4.2, 1.5 + 0.35 * len(names)))
    figure, (axes,) = new_figure(width=side + 0.8, height=side)
    axes.grid(visible=False)
    picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100, interpolation="nearest")
    axes.set_xlabel("class that the image is taken for")
    axes.set_ylabel("class of the image")
    if len(names) <= _MOST_NAMES:
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
        axes.set_yticks(range(len(names)), names, fontsize=7)
    if len(names) <= _MOST_NUMBERS:
        for number, row in enumerate(shares):
            for other, share in enumerate(row):
                if share:
                    colour = "white" if share > 50 else "black"
                    axes.text(other, number, f"{share:.0f}", ha="center", va="center", fontsize=7, color=colour)
    figure.colorbar(picture, ax=axes, label="images of the class, %", shrink=0.8)
    return figure
