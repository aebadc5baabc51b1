"""Floor 5: the command line, one file per verb; parses, calls a typed function, prints, and ends with an exit code."""

from __future__ import annotations

from typing import Annotated

import typer

from codedtool import __version__
from codedtool.cli import (
    activations,
    assign,
    bc,
    bounds,
    calibrate,
    cost,
    decode,
    evaluate,
    export,
    predict,
    report,
    scheme,
    specialize,
    sweep,
    train,
    verify,
)

app = typer.Typer(
    name="codedtool",
    help="Find coding schemes, prove how good they are, and build classifiers whose information paths follow them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"codedtool {__version__}")
        raise typer.Exit


@app.callback()
def codedtool(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Find coding schemes, prove how good they are, and build classifiers whose information paths follow them."""


schemes = typer.Typer(invoke_without_command=True)
schemes.callback()(scheme.scheme)
schemes.command("assign")(assign.assign)
app.add_typer(schemes, name="scheme")
app.command("verify")(verify.verify)
app.command("bounds")(bounds.bounds)
app.command("train")(train.train)
app.command("eval")(evaluate.evaluate)
app.command("bc")(bc.bc)
app.command("decode")(decode.decode)
app.command("specialize")(specialize.specialize)
app.command("calibrate")(calibrate.calibrate)
app.command("activations")(activations.activations)
app.command("cost")(cost.cost)
app.command("predict")(predict.predict)
app.command("report")(report.report)
app.command("export")(export.export)
app.command("sweep")(sweep.sweep)


def main() -> None:
    """The ``codedtool`` console script and ``python -m codedtool``."""
    app(prog_name="codedtool")
