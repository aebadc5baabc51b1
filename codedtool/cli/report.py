"""``codedtool report``: one page with every result of a run."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

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
from codedtool.cli.session import Json, Quiet, print_json, say, say_left_out, verb
from codedtool.errors import InputError


@verb
@with_recipe_flags(*DEVICE_FLAGS)
def report(
    run: RunOption = None,
    plain: Compare = None,
    ood: Ood = None,
    out: Annotated[Path | None, typer.Option("--out", help="The page, .html.", show_default="RUN/report.html")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing page.")] = False,
    seed: Seed = 0,
    checkpoint: Checkpoint = "best",
    no_download: NoDownload = False,
    json_output: Json = False,
    quiet: Quiet = False,
    **values: Any,
) -> None:
    """Run every analysis that applies to a run, and write all tables and figures as one HTML page.

    The page needs no network. Figures, their data and the tables also go to RUN/analysis/.
    """
    if out is not None and out.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"`out` {out}: the page is an .html file")
    changes = given(values)
    with loading(quiet=quiet) as progress, ExitStack() as stack:
        from codedtool.report.page import write_report

        subject = stack.enter_context(
            opened(run, changes, progress=progress, checkpoint=checkpoint, no_download=no_download)
        )
        inputs = compared(stack, subject, plain, ood, changes, no_download=no_download, progress=progress)
        target = out or subject.run.path / "report.html"
        result = write_report(subject, target, **inputs, seed=seed, force=force, progress=progress)
    if json_output:
        print_json(result.to_json())
    say_left_out(result.skipped, to_stderr=json_output)
    say(f"wrote {result.path}", to_stderr=json_output)
