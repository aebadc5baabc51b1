"""``codedtool export``: a trained network or binary classifier as an ONNX or torch.export file, or a copy of a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from codedtool.cli.runs import RunOption, loading
from codedtool.cli.session import Json, Quiet, print_json, say, verb
from codedtool.errors import InputError

if TYPE_CHECKING:
    from codedtool.deploy.export import Kind
    from codedtool.training.checkpoint import Which


@verb
def export(
    run: RunOption = None,
    checkpoint: Annotated[
        Literal["best", "last", "previous"] | None,
        typer.Option("--checkpoint", help="Which checkpoint of the run.", show_default="best"),
    ] = None,
    classifier: Annotated[
        Path | None,
        typer.Option("--bc", help="Export this binary classifier (.safetensors, from codedtool bc) in place of a run."),
    ] = None,
    kind: Annotated[
        Literal["onnx", "torch", "pt2", "run"],
        typer.Option(
            "--format",
            help="onnx; torch (pt2 means the same): a .pt2 file for torch.export.load; run: a light copy of the run to "
            "share, without the state of its training and its machine's paths.",
        ),
    ] = "onnx",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Where the file (.onnx or .pt2) or the copy of the run goes.",
            show_default="RUN/export/model.onnx, beside the classifier, or RUN/export/run",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file, or an earlier copy.")] = False,
    json_output: Json = False,
    quiet: Quiet = False,
) -> None:
    """Export a trained network, or a binary classifier, as one file that runs without codedtool, or a run to share.

    The file takes float32 images in 0..1 and normalizes them itself; it is checked against the network before it is
    written.
    """
    if classifier is not None:
        for name, value in (("run", run), ("checkpoint", checkpoint)):
            if value is not None:
                raise InputError(
                    f"`{name}` {value} has no meaning with `classifier`, whose file is complete: give one of the two"
                )
    if kind == "run":
        if classifier is not None:
            raise InputError("`kind` run has no meaning with `classifier`, whose file is complete: give one of the two")
        _export_copy(run, out, checkpoint or "best", force=force, json_output=json_output, quiet=quiet)
        return
    file_kind: Kind = "torch" if kind == "pt2" else kind
    with loading(quiet=quiet) as progress:
        from codedtool.deploy.export import export_classifier, export_run
        from codedtool.training.run import Run

        if classifier is not None:
            result = export_classifier(classifier, out, kind=file_kind, force=force, progress=progress)
        else:
            result = export_run(
                Run.load(run), out, kind=file_kind, checkpoint=checkpoint or "best", force=force, progress=progress
            )
    if json_output:
        print_json(result.to_json())
    say(
        f"{result.path}: {result.bytes / 2**20:.1f} MiB, outputs {', '.join(result.outputs)}; differs from the "
        f"network by {result.max_difference:.1e} of the largest value",
        to_stderr=json_output,
    )


def _export_copy(
    run: str | None, out: Path | None, checkpoint: Which, *, force: bool, json_output: bool, quiet: bool
) -> None:
    with loading(quiet=quiet):
        from codedtool.training.light import light_copy
        from codedtool.training.run import Run

        copy = light_copy(Run.load(run), out, checkpoint=checkpoint, force=force)
    if json_output:
        print_json(copy.to_json())
    say(
        f"{copy.path}: {copy.bytes / 2**20:.1f} MiB, checkpoint {copy.checkpoint}; every command reads it, and a new "
        "training can begin with its weights (train --init)",
        to_stderr=json_output,
    )
