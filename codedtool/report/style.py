"""Style of all figures: colours that colour-blind readers can tell apart, plain axes, and panels."""

from __future__ import annotations

import math

from matplotlib.axes import Axes
from matplotlib.figure import Figure

# The colours of Okabe & Ito (2008).
BLUE, ORANGE, GREEN, RED, PURPLE, SKY, YELLOW, BLACK = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#D55E00",
    "#CC79A7",
    "#56B4E9",
    "#F0E442",
    "#000000",
)
COLOURS = (BLUE, ORANGE, GREEN, RED, PURPLE, SKY)

# Blue is active and red inactive, as in the paper's figure 6.
ACTIVITY_COLOURS = {"active": BLUE, "inactive": RED}


def new_figure(
    columns: int = 1, rows: int = 1, *, width: float = 4.2, height: float = 3.2
) -> tuple[Figure, list[Axes]]:
    """A new figure of ``rows`` x ``columns`` panels of ``width`` x ``height`` inches, and its axes row by row."""
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten().tolist()
    for one in axes:
        one.spines[["top", "right"]].set_visible(False)
        one.grid(alpha=0.25, linewidth=0.6)
        one.set_axisbelow(True)
    return figure, axes


def new_panels(number: int, *, per_row: int) -> tuple[Figure, list[Axes]]:
    """A new figure with ``number`` small panels, at most ``per_row`` in a row, and its axes."""
    rows = math.ceil(number / per_row)
    figure, axes = new_figure(math.ceil(number / rows), rows, width=2.9, height=2.4)
    for unused in axes[number:]:
        unused.remove()
    return figure, axes[:number]
