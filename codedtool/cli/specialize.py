"""``codedtool specialize``: accuracy without some of a block's active, or inactive, subNNs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from codedtool.cli.analysis import DEVICE_FLAGS, RunOption, Seed, opened
from codedtool.cli.session import Json, Quiet, print_json, print_table, say, verb
from codedtool.cli.train import Checkpoint, NoDownload, with_recipe_flags

if TYPE_CHECKING:
    from codedtool.analysis.specialization import SpecializeResult


@verb
@with_recipe_flags(*DEVICE_FLAGS)
def specialize(
    run: RunOption = None,
    blocks: Annotated[
        list[str] | None,
        typer.Option("--block", help="A coded block, as s2.3; repeat it for more.", show_default="all"),
    ] = None,
    repeats: Annotated[int, typer.Option("--repeats", help="Random draws per image and number removed.", min=1)] = 1,
    seed: Seed = 0,
    checkpoint: Checkpoint = "best",
    no_download: NoDownload = False,
    json_output: Json = False,
    quiet: Quiet = False,
    **values: Any,
) -> None:
    """Remove random active or inactive subNNs of one block at a time and see the accuracy (figures 2a and 9).

    The figure and its data go to RUN/analysis/specialize*.
    """
    with opened(run, values, checkpoint=checkpoint, no_download=no_download, quiet=quiet) as (subject, progress):
        from codedtool.analysis import specialization
        from codedtool.analysis.artifacts import save_csv, save_figure, save_json
        from codedtool.report.figures_paths import draw_specialization

        result = specialization.specialize(subject, blocks=blocks, repeats=repeats, seed=seed, progress=progress)
        save_json(subject.run, "specialize", result.to_json())
        save_csv(subject.run, "specialize", result.rows())
        figure = save_figure(subject.run, "specialize", draw_specialization(result))
    if json_output:
        print_json(result.to_json())
    _describe(result, to_stderr=json_output)
    say(f"figure and numbers: {figure} and .svg, .csv, .json beside it", to_stderr=json_output)


def _describe(result: SpecializeResult, *, to_stderr: bool) -> None:
    """A line per block and kind, a column per number removed."""
    from rich.table import Table

    columns = max(len(curve) for curves in result.blocks for curve in (curves.active, curves.inactive))
    table = Table(
        "block",
        "removed",
        *(f"k={k}" for k in range(columns)),
        title=f"accuracy (%) on {result.num_images} images of {result.data}, checkpoint {result.checkpoint}",
        title_justify="left",
        box=None,
    )
    for curves in result.blocks:
        for kind, accuracies in (("active", curves.active), ("inactive", curves.inactive)):
            table.add_row(curves.block, kind, *(f"{100 * accuracy:.2f}" for accuracy in accuracies))
    print_table(table, to_stderr=to_stderr)
