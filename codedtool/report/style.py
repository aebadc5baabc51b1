"""Style of all figures: colours that colour-blind readers can tell apart, plain axes, and panels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal
from unicodedata import east_asian_width

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from codedtool.text import for_figure

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


def short_label(name: str, most: int = 24) -> str:
    """A name for a figure, of at most ``most`` letters; the tables have it whole."""
    return for_figure(name if len(name) <= most else f"{name[: most - 1]}…")


def percent_limits(axes: Axes, which: Literal["x", "y"] = "y", *, low: float | None = None) -> None:
    """Let an axis in per cent end at 100; it begins at ``low``, or a little below the lowest value that is drawn.

    The limit stands slightly above 100, so that markers and lines at 100% are seen whole.
    """
    begin = (axes.dataLim.y0 if which == "y" else axes.dataLim.x0) if low is None else low
    if not math.isfinite(begin):
        begin = 0.0
    begin = min(begin, 95.0)
    margin = 0.03 * (100 - begin)
    limits = (begin if low is not None else max(-margin, begin - margin), 100 + margin)
    (axes.set_ylim if which == "y" else axes.set_xlim)(*limits)


# Size of the letters of point labels, their width as a part of it, and the height of a line.
_LABEL_POINTS, _LETTER, _LINE = 7, 0.65, 1.6


def label_points(
    axes: Axes, points: Sequence[tuple[float, float]], labels: Sequence[str], others: Sequence[tuple[float, float]] = ()
) -> None:
    """Write a label beside every point so that labels cover neither each other nor a point.

    A label that finds no place beside its point stands further away, with a line to the point. A label without any free
    place is left out.

    Args:
        axes: axes with their limits, ticks and legends, whose room is then known.
        points: the points in the axes' units.
        labels: one for each point.
        others: further points that no label may cover.
    """
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()
    scale = 72 / figure.dpi
    room = axes.get_window_extent()
    # In typographic points from the lower left corner; boxes are (left, bottom, right, top).
    places = (axes.transData.transform([*points, *others]) - (room.x0, room.y0)) * scale
    taken = [(x - 2.5, y - 2.5, x + 2.5, y + 2.5) for x, y in places.tolist()]
    line = _LINE * _LABEL_POINTS
    for (x, y), point, label in zip(places.tolist(), points, labels, strict=False):
        # Chinese and Japanese letters are as wide as high.
        letters = sum(1.05 if east_asian_width(letter) in "WF" else _LETTER for letter in label)
        wide = letters * _LABEL_POINTS
        for dx, dy in _offsets(wide, line, room.height * scale):
            box = (x + dx, y + dy, x + dx + wide, y + dy + line)
            is_inside = box[0] >= 0 and box[1] >= 0 and box[2] <= room.width * scale and box[3] <= room.height * scale
            if is_inside and not any(_overlap(box, other) for other in taken):
                taken.append(box)
                is_far = abs(dy + line / 2) > 2 * line or abs(dx + wide / 2) > wide
                axes.annotate(
                    label,
                    point,
                    xytext=(dx, dy),
                    textcoords="offset points",
                    fontsize=_LABEL_POINTS,
                    va="bottom",
                    arrowprops={"arrowstyle": "-", "linewidth": 0.4, "color": "#777777"} if is_far else None,
                )
                break


def _offsets(wide: float, line: float, height: float) -> list[tuple[float, float]]:
    """Places of a label's lower left corner relative to its point, the nearest first."""
    rows = range(-int(height / line), int(height / line) + 1)
    found = [(3 + (column - 2) * (wide + 6) / 2, (row - 0.5) * line) for row in rows for column in range(-6, 9)]
    return sorted(found, key=lambda offset: math.hypot(offset[0] + wide / 2, 2 * (offset[1] + line / 2)))


def _overlap(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def new_panels(number: int, *, per_row: int) -> tuple[Figure, list[Axes]]:
    """A new figure with ``number`` small panels, at most ``per_row`` in a row, and its axes."""
    rows = math.ceil(number / per_row)
    figure, axes = new_figure(math.ceil(number / rows), rows, width=2.9, height=2.4)
    for unused in axes[number:]:
        unused.remove()
    return figure, axes[:number]
