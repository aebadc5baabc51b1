"""``codedtool train``: train a network whose information paths follow coding schemes."""

from __future__ import annotations

import inspect
import os
import shlex
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer

from codedtool.budget import Budget
from codedtool.cli.session import EXIT_INTERRUPTED, Json, Quiet, in_flags, print_json, progress_display, say, verb
from codedtool.errors import InputError
from codedtool.training.recipe import Recipe, settings
from codedtool.training.settings import SettingIgnored

if TYPE_CHECKING:
    from codedtool.training.stages import Assignment
    from codedtool.training.train import TrainResult

_PANEL = "Recipe (a value that is not given is that of the data set's recipe)"

Function = TypeVar("Function", bound=Callable[..., Any])

Checkpoint = Annotated[
    Literal["best", "last", "previous"], typer.Option("--checkpoint", help="Which checkpoint of the run.")
]
SchemeFiles = Annotated[
    list[Path] | None,
    typer.Option("--scheme", help="A scheme's .npy; repeat it to give every coded stage its own."),
]
StageNames = Annotated[
    str | None,
    typer.Option("--stages", help="Stages of the --scheme options in their order, as s2,s3.", show_default="by ratio"),
]
UncodedStages = Annotated[
    str | None, typer.Option("--uncoded-stages", help="Coded stages of the preset to leave plain, as s2.")
]
Config = Annotated[Path | None, typer.Option("--config", help="A TOML file of recipe values; flags win over it.")]
NoDownload = Annotated[bool, typer.Option("--no-download", help="Never fetch a data set that is not there.")]


def flag(key: str) -> str:
    """The command-line flag of a key: batch_size -> --batch-size."""
    return "--" + key.replace("_", "-")


def prepare_torch() -> None:
    """To be called before PyTorch is first imported: its idle CPU threads sleep instead of spinning.

    Spinning costs five to ten times the work of a small network as soon as another process wants the cores.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def with_recipe_flags(*keys: str) -> Callable[[Function], Function]:
    """Give a command one optional flag per key of `Recipe` (all, without ``keys``) in place of its ``**values``.

    A flag that is not given arrives as None, so that the config file and the recipe can speak for it.
    """

    def decorate(function: Function) -> Function:
        signature = inspect.signature(function, eval_str=True)
        own = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
        flags = []
        for key, setting in settings().items():
            kind = setting.kind
            if keys and key not in keys:
                continue
            names = f"{flag(key)}/--no-{key.replace('_', '-')}" if kind is bool else flag(key)
            option = typer.Option(names, help=setting.help, show_default=False, rich_help_panel=_PANEL)
            flags.append(
                inspect.Parameter(
                    key,
                    inspect.Parameter.KEYWORD_ONLY,
                    default=None,
                    annotation=Annotated[kind | None, option],
                )
            )
        function.__signature__ = signature.replace(parameters=[*own, *flags])  # type: ignore[attr-defined]  # read by typer
        return function

    return decorate


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
    resume: Annotated[bool, typer.Option("--resume", help="Go on with --run-name, or with the latest run.")] = False,
    checkpoint: Checkpoint = "last",
    no_download: NoDownload = False,
    json_output: Json = False,
    quiet: Quiet = False,
    **values: Any,
) -> None:
    """Train a Coded ResNeXt with the recipe of its data set; every value of the recipe is a flag."""
    prepare_torch()
    main = os.environ.get("RANK", "0") == "0"  # of torchrun's processes, one talks
    given = {key: value for key, value in values.items() if value is not None}
    budget = Budget()
    with warnings_on_stderr(), progress_display(quiet=quiet or not main) as progress, finishing_the_step(budget):
        progress("loading PyTorch", 0, None)
        from codedtool.training import train as training
        from codedtool.training.loop import Interrupted
        from codedtool.training.run import Run

        try:
            if resume:
                _refuse_with_resume(schemes=schemes, stages=stages, uncoded_stages=uncoded_stages, config=config)
                run = Run.load(run_name)
                result = training.resume(
                    run,
                    checkpoint=checkpoint,
                    changes=given,
                    download=not no_download,
                    budget=budget,
                    progress=progress,
                )
            else:
                recipe, assignment = resolve(schemes, stages, uncoded_stages, config, given)
                for line in assignment.lines() if main else ():
                    say(line, to_stderr=json_output)
                provenance = {"command": shlex.join(["codedtool", *sys.argv[1:]]), **assignment.provenance()}
                result = training.train(
                    recipe,
                    assignment.schemes,
                    run_name=run_name,
                    download=not no_download,
                    provenance=provenance,
                    budget=budget,
                    progress=progress,
                )
        except Interrupted as interruption:
            typer.echo(f"interrupted: {in_flags(str(interruption))}", err=True)
            raise typer.Exit(EXIT_INTERRUPTED) from None
    if not main:
        return
    if json_output:
        print_json(result.to_json())
    _describe(result, to_stderr=json_output)


def resolve(
    schemes: list[Path] | None, stages: str | None, uncoded: str | None, config: Path | None, given: dict[str, Any]
) -> tuple[Recipe, Assignment]:
    """The recipe (flags win over the config file, that over the data set's recipe), and which scheme goes where."""
    from codedtool.training.recipe import default_data, read_config, recipe_for, warn_of_ignored
    from codedtool.training.stages import assign

    own = {"scheme": list, "stages": str, "uncoded_stages": str}
    values = read_config(config, {**settings(), **own}) if config is not None else {}
    from_file = {key: values.pop(key) for key in own if key in values}
    for key, value in from_file.items():
        if type(value) is not own[key]:
            raise InputError(
                f"--config {config}: {key} must be {'a list' if own[key] is list else 'text'}, got {value!r}"
            )
    values |= given
    paths = schemes or [Path(str(path)) for path in from_file.get("scheme", [])]
    assignment = assign(
        paths,
        data=values.get("data"),
        preset=values.get("preset") or None,
        stages=_names(stages or from_file.get("stages")),
        uncoded_stages=_names(uncoded or from_file.get("uncoded_stages")) or (),
    )
    data = values.get("data") or default_data(assignment.num_classes, values.get("data_dir", Recipe().data_dir))
    recipe = recipe_for(data).with_values({**values, "preset": assignment.preset})
    warn_of_ignored(recipe, values, coded=bool(assignment.schemes))
    return recipe, assignment


def _names(text: str | None) -> tuple[str, ...] | None:
    """``s2,s3`` -> (s2, s3)."""
    return None if text is None else tuple(name.strip() for name in text.split(",") if name.strip())


def _refuse_with_resume(**options: Any) -> None:
    for key, value in options.items():
        if value:
            name = "--scheme" if key == "schemes" else flag(key)
            raise InputError(f"{name} and --resume exclude each other: a resumed run keeps its schemes and recipe")


@contextmanager
def warnings_on_stderr() -> Iterator[None]:
    """Within it, a warning of this package (a setting ignored, images left out) is one line on stderr."""
    package = str(Path(__file__).parents[1])
    with warnings.catch_warnings():
        usual = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], filename: str, *rest: Any) -> None:
            if category is SettingIgnored or filename.startswith(package):
                typer.echo(f"warning: {in_flags(str(message))}", err=True)
            else:
                usual(message, category, filename, *rest)

        warnings.showwarning = show  # type: ignore[assignment]  # takes what the real one takes
        warnings.simplefilter("always", SettingIgnored)
        yield


@contextmanager
def finishing_the_step(budget: Budget) -> Iterator[None]:
    """Within it, Ctrl-C (or SIGTERM) asks the budget to stop after the step; a second one stops at once."""

    def ask(signum: int, frame: FrameType | None) -> None:
        if budget.stop_reason() is not None:
            raise KeyboardInterrupt
        budget.interrupt()
        typer.echo("stopping after this step, then saving a checkpoint (again: stop at once)", err=True)

    previous = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _describe(result: TrainResult, *, to_stderr: bool) -> None:
    """The last epoch, block by block, and where everything is."""
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
