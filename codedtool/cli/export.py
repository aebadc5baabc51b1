"""``codedtool export``: a trained network or binary classifier as an ONNX or torch.export file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from codedtool.cli.runs import RunOption, loading
from codedtool.cli.session import Json, Quiet, print_json, say, verb
from codedtool.errors import InputError

if TYPE_CHECKING:
    from codedtool.deploy.export import Kind


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
        Literal["onnx", "torch", "pt2"],
        typer.Option("--format", help="onnx; or torch (pt2 means the same): a .pt2 file for torch.export.load."),
    ] = "onnx",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Where the file goes (.onnx or .pt2).",
            show_default="RUN/export/model.onnx, or beside the classifier",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
    json_output: Json = False,
    quiet: Quiet = False,
) -> None:
    """Export a trained network, or a binary classifier, as one file that runs without codedtool.

    The file takes float32 images in 0..1 and normalizes them itself; it is checked against the network before it is
    written.
    """
    if classifier is not None:
        for name, value in (("run", run), ("checkpoint", checkpoint)):
            if value is not None:
                raise InputError(
                    f"`{name}` {value} has no meaning with `classifier`, whose file is complete: give one of the two"
                )
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
