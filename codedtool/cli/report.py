"""``codedtool report``: one page with every result of a run."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from codedtool.analysis.catalogue import ALL_NEGATIVES
from codedtool.cli.analyses import compared
from codedtool.cli.runs import (
    DEVICE_FLAGS,
    Checkpoint,
    Compare,
    NoDownload,
    Ood,
    RunOption,
    Seed,
    given,
    loading,
    opened,
    with_recipe_flags,
)
from codedtool.cli.session import Json, Quiet, end_with, print_json, say, say_left_out, verb
from codedtool.errors import InputError


@verb
@with_recipe_flags(*DEVICE_FLAGS)
def report(
    run: RunOption = None,
    plain: Compare = None,
    ood: Ood = None,
    out: Annotated[Path | None, typer.Option("--out", help="The page, .html.", show_default="RUN/report.html")] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only",
            help="Parts of the page to make, as eval,bc: training, paths, samples, classes, or commands; repeat it or "
            "use commas.",
            show_default="all",
        ),
    ] = None,
    skip: Annotated[
        list[str] | None, typer.Option("--skip", help="Parts of the page to leave out, written as for --only.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing page.")] = False,
    all_negatives: Annotated[bool, typer.Option(ALL_NEGATIVES.flag, help=ALL_NEGATIVES.help)] = False,
    seed: Seed = 0,
    checkpoint: Checkpoint = "best",
    no_download: NoDownload = False,
    json_output: Json = False,
    quiet: Quiet = False,
    **values: Any,
) -> None:
    """Run every analysis that applies to a run, and write all tables and figures as one HTML page.

    An analysis that fails is left out with its reason. Parts that an earlier report finished with the same weights,
    images and options are used again. The page needs no network. Figures, their data and the tables also go to
    RUN/analysis/.
    """
    if out is not None and out.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"`out` {out}: the page is an .html file")
    changes = given(values)
    with loading(quiet=quiet) as progress, ExitStack() as stack:
        from codedtool.report.page import write_report

        subject = stack.enter_context(
            opened(run, changes, progress=progress, checkpoint=checkpoint, no_download=no_download)
        )
        if "data" in changes:
            # A data set that was named must be there; without the run's own, stored parts still make a page.
            _ = subject.data
        inputs = compared(
            stack, subject, plain, ood, changes, checkpoint=checkpoint, no_download=no_download, progress=progress
        )
        target = out or subject.run.path / "report.html"
        result = write_report(
            subject,
            target,
            **inputs,
            seed=seed,
            all_negatives=all_negatives,
            only=_names(only),
            skip=_names(skip),
            force=force,
            progress=progress,
        )
    if json_output:
        print_json(result.to_json())
    say_left_out(result.skipped, to_stderr=json_output)
    if result.reused:
        say(f"used again, as made before: {', '.join(result.reused)}", to_stderr=json_output)
    say(f"wrote {result.path}", to_stderr=json_output)
    end_with(result.failed)


def _names(texts: list[str] | None) -> tuple[str, ...]:
    """["eval,bc", "cost"] -> ("eval", "bc", "cost")."""
    return tuple(name.strip() for text in texts or () for name in text.split(",") if name.strip())
