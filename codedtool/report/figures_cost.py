"""Figure of table 5: the cost of each network in per cent of the run's network."""

from __future__ import annotations

from matplotlib.figure import Figure

from codedtool.analysis.cost import CostResult
from codedtool.analysis.result import Drawing
from codedtool.report.style import COLOURS, new_figure, short_label
from codedtool.text import for_figure


def draw(result: CostResult) -> tuple[Drawing, ...]:
    """The figure of ``codedtool cost``."""
    return (Drawing(result.name, "Cost in per cent of the run's network", draw_cost(result)),)


def draw_cost(result: CostResult) -> Figure:
    """Parameters, multiply-adds and images/s of each network, in per cent of the run's own network."""
    figure, (panel,) = new_figure(width=5.5)
    names = {"parameters_ratio": "parameters", "macs_ratio": "multiply-adds", "speed_ratio": "images/s"}
    rows = result.network_rows()
    width = 0.8 / len(rows)
    for number, (row, colour) in enumerate(zip(rows, COLOURS, strict=False)):
        places = [place + (number - (len(rows) - 1) / 2) * width for place in range(len(names))]
        label = short_label(row["name"], 60)
        bars = panel.bar(places, [100 * row[key] for key in names], width, color=colour, label=label)
        panel.bar_label(bars, fmt="%.0f", fontsize=7)
    panel.set_xticks(range(len(names)), list(names.values()))
    panel.set_ylabel(f"% of {for_figure(rows[0]['name'])}")
    figure.legend(fontsize=8, loc="outside upper center", ncols=1, frameon=False)
    return figure
