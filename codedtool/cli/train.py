"""``codedtool train``: train a network whose information paths follow coding schemes."""

from __future__ import annotations

import shlex
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from codedtool.budget import Budget
from codedtool.cli.runs import (
    Config,
    NoDownload,
    SchemeFiles,
    StageNames,
    UncodedStages,
    described,
    given,
    interruptible_training,
    loading,
    resolve,
    with_recipe_flags,
)
from codedtool.cli.session import Json, Quiet, in_flags, print_json, refuse_stated, say, verb
from codedtool.errors import InputError
from codedtool.training.launch import read_launch

if TYPE_CHECKING:
    from codedtool.training.train import TrainResult


@verb
@with_recipe_flags()
def train(
    schemes: SchemeFiles = None,
    stages: StageNames = None,
    uncoded_stages: UncodedStages = None,
    config: Config = None,
    run_name: Annotated[
        str | None, typer.Option("--run-name", help="Folder under runs/.", show_default="the data set and a number")
    ] = None,
    init: Annotated[
        str | None,
        typer.Option(
            "--init",
            help="Weights to begin with: a run, a .safetensors or .pth state dict of torchvision's or timm's network "
            "of the same architecture, or the word torchvision.",
            show_default="random weights",
        ),
    ] = None,
    classes: Annotated[
        Path | None,
        typer.Option(
            "--classes",
            help="A file with the names of the data set's classes in the order of the schemes' rows: one per line, or "
            "a JSON list.",
            show_default="the data set's order",
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run --run-name, or the latest run.")] = False,
    checkpoint: Annotated[
        Literal["best", "last", "previous"],
        typer.Option("--checkpoint", help="With --resume, the checkpoint of the run to continue from."),
    ] = "last",
    no_download: NoDownload = False,
    json_output: Json = False,
    quiet: Quiet = False,
    **values: Any,
) -> None:
    """Train a Coded ResNeXt with a recipe; every value of the recipe is a flag.

    Without --recipe the data set decides. folder:PATH takes small for fewer than 20,000 images of at most 64 px and for
    fewer than 100,000 larger ones, else cifar10 or imagenet. Another --batch-size scales the recipe's learning rate.
    Fewer --epochs shorten its warm-up and cool-down.
    """
    main = read_launch().rank == 0  # of torchrun's processes, one talks
    changes = given(values)
    budget = Budget()
    with loading(quiet=quiet or not main) as progress, interruptible_training(budget):
        from codedtool.data import read_classes
        from codedtool.training import train as training
        from codedtool.training.run import Run

        download = not no_download
        if resume:
            _refuse_with_resume(
                schemes=schemes,
                stages=stages,
                uncoded_stages=uncoded_stages,
                config=config,
                init=init,
                classes=classes,
            )
            result = training.resume(
                Run.load(run_name),
                checkpoint=checkpoint,
                changes=changes,
                download=download,
                budget=budget,
                progress=progress,
                tell=partial(say, to_stderr=json_output),
                tell_epoch=progress.line,
            )
        else:
            refuse_stated(["checkpoint"], "needs `resume`: a new run has no checkpoint")
            resolved = resolve(schemes, stages, uncoded_stages, config, changes)
            assignment = resolved.assignment
            for line in (*described(assignment), *resolved.lines) if main else ():
                say(in_flags(line), to_stderr=json_output)
            provenance = {"command": shlex.join(["codedtool", *sys.argv[1:]]), **assignment.provenance()}
            result = training.train(
                resolved.recipe,
                assignment.schemes,
                run_name=run_name,
                init=init,
                download=download,
                provenance=provenance,
                given=resolved.given,
                classes=read_classes(classes) if classes is not None else (),
                budget=budget,
                progress=progress,
                tell=partial(say, to_stderr=json_output),
                tell_epoch=progress.line,
            )
    if not main:
        return
    if json_output:
        print_json(result.to_json())
    _describe(result, to_stderr=json_output)


def _refuse_with_resume(**options: Any) -> None:
    for key, value in options.items():
        if value:
            raise InputError(f"`{key}` and `resume` exclude each other: a resumed run keeps its schemes and recipe")


def _describe(result: TrainResult, *, to_stderr: bool) -> None:
    """Say the last epoch's numbers, block by block, and where the run is."""
    last = result.last
    say(
        f"epoch {result.epochs}: train loss {last['train_loss']:.4f}, accuracy {last['train_accuracy']:.2%}; "
        f"validation loss {last['val_loss']:.4f}, accuracy {last['val_accuracy']:.2%}, "
        f"best {result.best_accuracy:.2%}",
        to_stderr=to_stderr,
    )
    for key, value in last.items():
        if key.startswith("val_coding_loss_"):
            block = key.removeprefix("val_coding_loss_")
            say(
                f"  block {block}: coding loss {value:.4f}, early decoder {last[f'val_decoder_accuracy_{block}']:.2%}",
                to_stderr=to_stderr,
            )
    say(f"run {result.run.path} in {result.seconds:.1f} s", to_stderr=to_stderr)
