"""Floor 5: the command line. A command parses its flags, calls a typed function and shows the result.

The commands that measure a run are made from the catalogue of analyses; every other command has a file of its own.
"""

from __future__ import annotations

import copy
import sys
from typing import Annotated, Any

import typer

from codedtool import __version__
from codedtool.analysis.catalogue import CATALOGUE
from codedtool.cli import (
    analyses,
    assign,
    bounds,
    cost,
    export,
    networks,
    plan,
    predict,
    report,
    scheme,
    schemes,
    sweep,
    train,
    verify,
)
from codedtool.cli.commands import OneDocument, RunCommand
from codedtool.cli.ranks import leave_to_rank_0
from codedtool.cli.session import say
from codedtool.cli.streams import failure_of, guard_streams
from codedtool.errors import InputError

# Panels of `codedtool --help`, in the order of use.
_SCHEMES, _TRAINING, _RESULTS, _DEPLOYMENT = "Schemes", "Training", "Results of a run", "Predictions and exports"

_ORDER = (
    *("scheme", "schemes", "verify", "bounds", "plan", "networks", "train", "sweep"),
    *(row.name for row in CATALOGUE),
    *("report", "predict", "export"),
)


class _InOrderOfUse(OneDocument):
    """The group of all commands. Without it, typer lists a command that has commands of its own last."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(super().list_commands(ctx), key=_ORDER.index)


app = typer.Typer(
    cls=_InOrderOfUse,
    name="codedtool",
    help="Find coding schemes, prove how good they are, and train classifiers whose information paths follow them.",
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
    """Find coding schemes, prove how good they are, and train classifiers whose information paths follow them."""


scheme_group = typer.Typer(invoke_without_command=True)
scheme_group.callback()(scheme.scheme)
scheme_group.command("assign", cls=RunCommand)(assign.assign)
app.add_typer(scheme_group, name="scheme", rich_help_panel=_SCHEMES)
app.command("plan", rich_help_panel=_TRAINING)(plan.plan)
app.command("schemes", rich_help_panel=_SCHEMES)(schemes.schemes)
app.command("verify", rich_help_panel=_SCHEMES)(verify.verify)
app.command("bounds", rich_help_panel=_SCHEMES)(bounds.bounds)
app.command("networks", rich_help_panel=_TRAINING)(networks.networks)
app.command("train", cls=RunCommand, rich_help_panel=_TRAINING)(train.train)
app.command("sweep", cls=RunCommand, rich_help_panel=_TRAINING)(sweep.sweep)
for row in CATALOGUE:
    command = cost.command_of(row) if row.name == "cost" else analyses.command_of(row)
    app.command(row.name, cls=RunCommand, rich_help_panel=_RESULTS)(command)
app.command("report", cls=RunCommand, rich_help_panel=_RESULTS)(report.report)
app.command("predict", cls=RunCommand, rich_help_panel=_DEPLOYMENT)(predict.predict)
app.command("export", cls=RunCommand, rich_help_panel=_DEPLOYMENT)(export.export)


def _called(words: list[str]) -> typer.Typer:
    """The program with only the command that ``words`` call: typer builds all that there are, which takes 0.07 s."""
    called = copy.copy(app)
    called.registered_commands = [one for one in app.registered_commands if one.name in words[:1]]
    called.registered_groups = [one for one in app.registered_groups if one.name in words[:1]]
    # Help, completion and the nearest names of a misspelt one need all commands.
    return called if called.registered_commands or called.registered_groups else app


def main() -> None:
    """The ``codedtool`` console script and ``python -m codedtool``."""
    guard_streams()
    leave_to_rank_0()
    try:
        _called(sys.argv[1:])(prog_name="codedtool")
    except SystemExit as end:
        lost = failure_of(sys.stdout)
        if lost is None or end.code:
            raise
        say(f"error: what the command printed is lost: cannot write to standard output ({lost})", to_stderr=True)
        raise SystemExit(InputError.exit_code) from None
