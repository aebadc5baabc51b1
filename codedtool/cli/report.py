"""``codedtool report``: one page with everything about a run."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from codedtool.cli.analysis import DEVICE_FLAGS, Compare, Ood, RunOption, Seed, opened
from codedtool.cli.session import Json, Quiet, print_json, say, verb
from codedtool.cli.train import Checkpoint, NoDownload, with_recipe_flags
from codedtool.errors import InputError


@verb
@with_recipe_flags(*DEVICE_FLAGS)
def report(
    run: RunOption = None,
    compare: Compare = None,
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
    """Run every analysis that applies, and write all tables and figures as one HTML page that needs no network.

    Figures, their data and the tables also go to RUN/analysis/.
    """
    if out is not None and out.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"--out {out}: the page is an .html file")
    with opened(run, values, checkpoint=checkpoint, no_download=no_download, quiet=quiet) as (subject, progress):
        from codedtool.analysis.subject import find_negatives, opened_run
        from codedtool.report.page import write_report
        from codedtool.training.run import Run

        negatives = find_negatives(subject, ood, download=not no_download, progress=progress)
        with ExitStack() as stack:
            plain = None
            if compare is not None:
                changes = {key: value for key, value in values.items() if value is not None}
                plain = stack.enter_context(
                    opened_run(Run.load(compare), changes=changes, download=not no_download, progress=progress)
                )
            result = write_report(
                subject,
                out or subject.run.path / "report.html",
                plain=plain,
                ood=negatives,
                seed=seed,
                force=force,
                progress=progress,
            )
    if json_output:
        print_json(result.to_json())
    for reason in result.skipped:
        say(f"left out: {reason}", to_stderr=json_output)
    say(f"wrote {result.path}", to_stderr=json_output)
