"""``codedtool cost``: what a run's network costs beside the plain one and a binary classifier."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from codedtool.cli.analysis import DEVICE_FLAGS, RunOption, opened
from codedtool.cli.session import Json, Quiet, print_json, print_table, say, verb
from codedtool.cli.train import Checkpoint, NoDownload, with_recipe_flags

if TYPE_CHECKING:
    from codedtool.analysis.cost import CostResult


@verb
@with_recipe_flags(*DEVICE_FLAGS)
def cost(
    class_name: Annotated[str, typer.Option("--class", help="Whose binary classifier: a name or number.")] = "0",
    run: RunOption = None,
    checkpoint: Checkpoint = "best",
    no_download: NoDownload = False,
    json_output: Json = False,
    quiet: Quiet = False,
    **values: Any,
) -> None:
    """Parameters, multiply-adds, memory and measured speed: coded, plain and binary classifier (table 5)."""
    with opened(run, values, checkpoint=checkpoint, no_download=no_download, quiet=quiet) as (subject, progress):
        from codedtool.analysis.artifacts import save_csv, save_figure, save_json
        from codedtool.analysis.cost import cost as analyse
        from codedtool.analysis.subject import class_index
        from codedtool.report.figures_cost import draw_cost

        result = analyse(subject, class_index=class_index(subject.classes, class_name), progress=progress)
        save_json(subject.run, "cost", result.to_json())
        save_csv(subject.run, "cost", result.rows())
        save_figure(subject.run, "cost", draw_cost(result))
    if json_output:
        print_json(result.to_json())
    _describe(result, to_stderr=json_output)


def _describe(result: CostResult, *, to_stderr: bool) -> None:
    from rich.table import Table

    table = Table(title=f"{result.preset}, {result.image_size} px, batch {result.batch_size}, {result.device}")
    for name in ("", "parameters", "GMACs", "images/s", "trained images/s", "kept MB/image", "peak MB"):
        table.add_column(name, justify="right" if name else "left")
    for one in result.networks:
        table.add_row(
            one.name,
            f"{one.parameters:,}",
            f"{one.macs / 1e9:.4f}",
            f"{one.images_per_second:.1f}",
            f"{one.training_images_per_second:.1f}",
            f"{one.kept_bytes / 1e6:.2f}",
            "-" if one.peak_bytes is None else f"{one.peak_bytes / 1e6:.0f}",
        )
    print_table(table, to_stderr=to_stderr)
    if result.paper_gmacs:
        figures = ", ".join(f"{name} {gmacs:.3f}" for name, gmacs in result.paper_gmacs.items())
        say(f"the paper's table 5 (fvcore): {figures} GMACs", to_stderr=to_stderr)
    for reason in result.skipped:
        say(f"skipped: {reason}", to_stderr=to_stderr)
