"""Figure of the early decoders: accuracy of every block (figure 4), agreement (table 3) and early exits."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from codedtool.analysis.decoding import DecodeResult
from codedtool.analysis.result import Drawing
from codedtool.report.style import BLUE, GREEN, ORANGE, new_figure, percent_limits


def draw(result: DecodeResult) -> tuple[Drawing, ...]:
    """The figure of ``codedtool decode``."""
    alt = "Accuracy of the early decoders, agreement, and accuracy against cost of early exits"
    return (Drawing(result.name, alt, draw_decoding(result)),)


def draw_decoding(result: DecodeResult) -> Figure:
    """Three panels: accuracy of every block, accuracy and share of images by agreement, early exits against cost."""
    figure, (blocks, agreement, exits) = new_figure(3, width=4.0)
    names = list(result.decoder_accuracy)
    blocks.plot(names, [100 * value for value in result.decoder_accuracy.values()], "o-", color=BLUE)
    blocks.axhline(100 * result.accuracy, color="black", linewidth=0.8, linestyle="--", label="whole network")
    blocks.set_ylabel("accuracy of the early decoder, %")
    blocks.set_xlabel("coded block")
    blocks.tick_params(axis="x", labelrotation=45 if len(names) > 6 else 0)
    percent_limits(blocks)
    blocks.legend(fontsize=8)

    found = [row for row in result.agreement if row.accuracy is not None]
    agreement.bar(
        [row.agreeing for row in result.agreement],
        [100 * row.num_images / result.num_images for row in result.agreement],
        color=ORANGE,
        alpha=0.5,
        label="images, %",
    )
    agreement.plot(
        [row.agreeing for row in found],
        [100 * (row.accuracy or 0) for row in found],
        "o-",
        color=BLUE,
        label="accuracy, %",
    )
    percent_limits(agreement, low=0)
    agreement.xaxis.set_major_locator(MaxNLocator(integer=True))
    agreement.set_xlabel("early decoders that agree")
    agreement.legend(fontsize=8)

    for kind, colour, marker in (("agree", BLUE, "o"), ("margin", GREEN, "s")):
        points = sorted(
            (point for point in result.exits if point.rule.startswith(kind)), key=lambda point: point.macs_ratio
        )
        exits.plot(
            [100 * point.macs_ratio for point in points],
            [100 * point.accuracy for point in points],
            f"{marker}-",
            color=colour,
            markersize=4,
            label=f"{kind}: multiply-adds",
        )
        exits.plot(
            [100 * point.time_ratio for point in points],
            [100 * point.accuracy for point in points],
            f"{marker}:",
            color=colour,
            markersize=3,
            alpha=0.6,
            label=f"{kind}: measured time",
        )
    exits.axhline(100 * result.accuracy, color="black", linewidth=0.8, linestyle="--")
    exits.set_xlabel("cost, % of the whole network")
    percent_limits(exits)
    exits.set_ylabel("accuracy with early exit, %")
    exits.legend(fontsize=7)
    return figure
