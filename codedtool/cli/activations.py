"""``codedtool activations``: how the outputs of subNNs are distributed, for their classes and for others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from codedtool.cli.analysis import DEVICE_FLAGS, RunOption, opened
from codedtool.cli.session import Json, Quiet, print_json, print_table, say, verb
from codedtool.cli.train import Checkpoint, NoDownload, with_recipe_flags

if TYPE_CHECKING:
    from codedtool.analysis.activations import ActivationsResult


@verb
@with_recipe_flags(*DEVICE_FLAGS)
def activations(
    run: RunOption = None,
    block: Annotated[
        str | None,
        typer.Option("--block", help="A coded block, as s3.2.", show_default="the second of the last coded stage"),
    ] = None,
    num_subnns: Annotated[int, typer.Option("--subnns", help="How many of its subNNs, the first ones.", min=1)] = 5,
    checkpoint: Checkpoint = "best",
    no_download: NoDownload = False,
    json_output: Json = False,
    quiet: Quiet = False,
    **values: Any,
) -> None:
    """Distribution of subNNs' absolute outputs for images of their classes and of others (figure 6).

    The figure and its data go to RUN/analysis/activations*.
    """
    with opened(run, values, checkpoint=checkpoint, no_download=no_download, quiet=quiet) as (subject, progress):
        from codedtool.analysis.activations import activations as collect
        from codedtool.analysis.artifacts import save_csv, save_figure, save_json
        from codedtool.report.figures_paths import draw_activations

        result = collect(subject, block=block, num_subnns=num_subnns, progress=progress)
        save_json(subject.run, "activations", result.to_json())
        save_csv(subject.run, "activations", result.rows())
        figure = save_figure(subject.run, "activations", draw_activations(result))
    if json_output:
        print_json(result.to_json())
    _describe(result, to_stderr=json_output)
    say(f"figure and numbers: {figure} and .svg, .csv, .json beside it", to_stderr=json_output)


def _describe(result: ActivationsResult, *, to_stderr: bool) -> None:
    """A line per subNN."""
    from rich.table import Table

    table = Table(
        "subNN",
        *(f"{kind} {what}" for kind in ("active", "inactive") for what in ("mean", "99%")),
        title=(
            f"absolute normalized outputs of block {result.block} on {result.num_images} images of {result.data}, "
            f"checkpoint {result.checkpoint}"
        ),
        title_justify="left",
        box=None,
    )
    for subnn in result.subnns:
        numbers = [number for _, part in subnn.parts for number in (part.mean, part.p99)]
        table.add_row(str(subnn.subnn), *("-" if number is None else f"{number:.4f}" for number in numbers))
    print_table(table, to_stderr=to_stderr)
