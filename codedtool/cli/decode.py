"""``codedtool decode``: early decoders, agreement and early exits of a trained run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from codedtool.cli.analysis import DEVICE_FLAGS, RunOption, opened
from codedtool.cli.session import Json, Quiet, print_json, print_table, say, verb
from codedtool.cli.train import Checkpoint, NoDownload, with_recipe_flags

if TYPE_CHECKING:
    from codedtool.analysis.decoding import DecodeResult


@verb
@with_recipe_flags(*DEVICE_FLAGS)
def decode(
    run: RunOption = None,
    exit_rules: Annotated[
        list[str] | None,
        typer.Option(
            "--exit",
            help="Stop at the first block where the last M decoders agree (agree:M) or the nearest codeword leads by X "
            "(margin:X, 0 to 1); repeat for several. A curve of both is always drawn.",
        ),
    ] = None,
    checkpoint: Checkpoint = "best",
    no_download: NoDownload = False,
    json_output: Json = False,
    quiet: Quiet = False,
    **values: Any,
) -> None:
    """Accuracy of every early decoder, agreement with the final answer, and early exits (section 4.4).

    Tables, the figure and its data go to RUN/analysis/decode*.
    """
    with opened(run, values, checkpoint=checkpoint, no_download=no_download, quiet=quiet) as (subject, progress):
        from codedtool.analysis.artifacts import save_figure
        from codedtool.analysis.decoding import ExitRule, save_decoding
        from codedtool.analysis.decoding import decode as analyse
        from codedtool.report.figures_decoding import draw_decoding

        rules = tuple(ExitRule.parse(text) for text in exit_rules or ())
        result = analyse(subject, rules=rules, progress=progress)
        save_decoding(subject.run, result)
        save_figure(subject.run, "decode", draw_decoding(result))
    if json_output:
        print_json(result.to_json())
    _describe(result, [str(rule) for rule in rules], to_stderr=json_output)


def _describe(result: DecodeResult, asked: list[str], *, to_stderr: bool) -> None:
    from rich.table import Table

    say(f"{result.num_images} images, accuracy {result.accuracy:.2%}", to_stderr=to_stderr)
    blocks = Table(title="early decoders")
    agreement = Table(title="final accuracy by agreeing decoders")
    for table, names in (
        (blocks, ("block", "accuracy")),
        (agreement, ("agreeing", "images", "accuracy")),
        (exits := Table(title="early exits"), ("rule", "accuracy", "multiply-adds", "measured time")),
    ):
        for name in names:
            table.add_column(name, justify="right")
    for name, value in result.decoder_accuracy.items():
        blocks.add_row(name, f"{value:.2%}")
    for row in result.agreement:
        accuracy = "-" if row.accuracy is None else f"{row.accuracy:.2%}"
        agreement.add_row(str(row.agreeing), str(row.num_images), accuracy)
    for point in result.exits:
        mark = " *" if point.rule in asked else ""
        exits.add_row(point.rule + mark, f"{point.accuracy:.2%}", f"{point.macs_ratio:.1%}", f"{point.time_ratio:.1%}")
    for table in (blocks, agreement, exits):
        print_table(table, to_stderr=to_stderr)
