"""What the verbs that look at a trained run share: their flags, the run opened, and the files it gets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from codedtool.budget import Progress
from codedtool.cli.session import progress_display
from codedtool.cli.train import prepare_torch, warnings_on_stderr

if TYPE_CHECKING:
    from codedtool.analysis.subject import Subject

RunOption = Annotated[
    str | None, typer.Option("--run", help="A run's folder, or its name under runs/.", show_default="the latest")
]
Compare = Annotated[
    str | None, typer.Option("--compare", help="A run of the plain control: its classifiers are a baseline.")
]
Ood = Annotated[
    str | None,
    typer.Option(
        "--ood",
        help="A data set of other classes: out-of-distribution negatives; none for no such set.",
        show_default="cifar100 for cifar10 and the reverse, where it is there",
    ),
]
Seed = Annotated[int, typer.Option("--seed", help="Of everything drawn at random.", min=0)]

# The recipe's values that an analysis may change.
DEVICE_FLAGS = (
    "data",
    "data_dir",
    "skip_bad_images",
    "eval_size",
    "batch_size",
    "precision",
    "channels_last",
    "device",
    "num_workers",
)


@contextmanager
def opened(
    run: str | None,
    values: dict[str, Any],
    *,
    checkpoint: Literal["best", "last", "previous"],
    no_download: bool,
    quiet: bool,
) -> Iterator[tuple[Subject, Progress]]:
    """The run that the flags name, opened for analysis, and where to report."""
    prepare_torch()
    changes = {key: value for key, value in values.items() if value is not None}
    with warnings_on_stderr(), progress_display(quiet=quiet) as progress:
        progress("loading PyTorch", 0, None)
        from codedtool.analysis.subject import opened_run
        from codedtool.training.run import Run

        with opened_run(
            Run.load(run), checkpoint=checkpoint, changes=changes, download=not no_download, progress=progress
        ) as subject:
            yield subject, progress
