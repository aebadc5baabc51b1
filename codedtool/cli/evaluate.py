"""``codedtool eval``: accuracy and early decoders of a trained run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from codedtool.cli.session import Json, Quiet, print_json, progress_display, say, verb
from codedtool.cli.train import Checkpoint, NoDownload, prepare_torch, warnings_on_stderr, with_recipe_flags

if TYPE_CHECKING:
    from codedtool.training.train import EvalResult

RunOption = Annotated[
    str | None, typer.Option("--run", help="A run's folder, or its name under runs/.", show_default="the latest")
]


@verb
@with_recipe_flags(
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
def evaluate(
    run: RunOption = None,
    checkpoint: Checkpoint = "best",
    no_download: NoDownload = False,
    json_output: Json = False,
    quiet: Quiet = False,
    **values: Any,
) -> None:
    """Evaluate a run on the validation set of its data set, or of another one with the same classes (table 2)."""
    prepare_torch()
    changes = {key: value for key, value in values.items() if value is not None}
    with warnings_on_stderr(), progress_display(quiet=quiet) as progress:
        progress("loading PyTorch", 0, None)
        from codedtool.training.run import Run
        from codedtool.training.train import evaluate_run

        result = evaluate_run(
            Run.load(run), checkpoint=checkpoint, changes=changes, download=not no_download, progress=progress
        )
    if json_output:
        print_json(result.to_json())
    _describe(result, to_stderr=json_output)


def _describe(result: EvalResult, *, to_stderr: bool) -> None:
    """The numbers, block by block."""
    say(
        f"{result.run.path}, checkpoint {result.checkpoint}, {result.data}: {result.num_images} images, "
        f"accuracy {result.accuracy:.2%}, loss {result.loss:.4f} in {result.seconds:.1f} s",
        to_stderr=to_stderr,
    )
    for block, loss in result.coding_loss.items():
        say(
            f"  block {block}: coding loss {loss:.4f}, early decoder {result.decoder_accuracy[block]:.2%}",
            to_stderr=to_stderr,
        )
