"""Shared by the commands that train a run or read one: their options, the recipe's flags, and the opened run."""

from __future__ import annotations

import inspect
import os
import shlex
import signal
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, TypeVar

import typer

from codedtool.budget import Budget, Progress
from codedtool.cli.completion import OF_RECIPE, complete_data, complete_run, complete_scheme
from codedtool.cli.session import EXIT_INTERRUPTED, Display, in_flags, progress_display, say
from codedtool.errors import InputError
from codedtool.interrupts import interrupts_held, signals_handled
from codedtool.training.recipe import Recipe, settings
from codedtool.training.recipes import RECIPES
from codedtool.training.settings import SettingIgnored

if TYPE_CHECKING:
    from codedtool.training.stages import Assignment
    from codedtool.training.subject import Subject

_PANEL = "Recipe: {section}"

# Panel and helps of the recipe's flags in commands that train nothing.
_PANEL_OF_RUN = "Images and machine"
_HELP_OF_RUN = {
    "data": "Data set with the run's classes, in place of the run's own: cifar10, cifar100, folder:PATH, digits or "
    "synthetic:K.",
    "eval_size": "Side of an image, in pixels.",
    "batch_size": "Images per forward pass, all devices together.",
}

# Values that the data set decides.
_WITHOUT_DEFAULT = ("recipe", "data", "preset")

Function = TypeVar("Function", bound=Callable[..., Any])

Checkpoint = Annotated[
    Literal["best", "last", "previous"], typer.Option("--checkpoint", help="Which checkpoint of the run.")
]
SchemeFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "--scheme",
        help="A scheme's .npy, or the name of a shipped one (`codedtool schemes`); repeat it to give every coded stage "
        "its own.",
        autocompletion=complete_scheme,
    ),
]
StageNames = Annotated[
    str | None,
    typer.Option(
        "--stages",
        help="Stages of the --scheme options in their order, as s2,s3, or blocks of stages, as s3.1-3,s3.4-6.",
        show_default="by ratio",
    ),
]
UncodedStages = Annotated[
    str | None, typer.Option("--uncoded-stages", help="Coded stages of the preset to leave plain, as s2.")
]
RunOption = Annotated[
    str | None,
    typer.Option(
        "--run",
        help="A run's folder, or its name under runs/.",
        show_default="the latest",
        autocompletion=complete_run,
    ),
]
Compare = Annotated[
    str | None,
    typer.Option(
        "--compare",
        help="A run of the plain control, as a baseline; at the same --checkpoint.",
        autocompletion=complete_run,
    ),
]
Ood = Annotated[
    str | None,
    typer.Option(
        "--ood",
        help="A data set of other classes, whose images are out-of-distribution negatives; none: no such set.",
        autocompletion=complete_data,
        show_default="cifar100 for cifar10 and the reverse, where it is there",
    ),
]
Seed = Annotated[int, typer.Option("--seed", help="Seed of everything that is drawn at random.", min=0)]
Config = Annotated[Path | None, typer.Option("--config", help="A TOML file of recipe values; flags win over it.")]
NoDownload = Annotated[bool, typer.Option("--no-download", help="Never fetch a data set that is not there.")]


def prepare_torch() -> None:
    """To be called before PyTorch is first imported: its idle CPU threads wait some microseconds, then sleep.

    GNU's OpenMP lets them spin for milliseconds, which makes a small network five to ten times slower as soon as
    another process wants the cores. Sleeping at once costs a quarter of the speed on idle cores. A thousand turns cost
    little in either case (`benchmarks.training`). Other OpenMP libraries know the policy alone. The user's own choice
    stays.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def _flag(key: str) -> str:
    """The flag of a recipe's key: batch_size -> --batch-size."""
    return "--" + key.replace("_", "-")


def _defaults(key: str) -> str | bool:
    """The default of a recipe's key, and the recipes whose value differs, as 300; imagenet 250; digits 30."""
    if key in _WITHOUT_DEFAULT:
        return False
    usual = getattr(Recipe(), key)
    others: dict[str, list[str]] = {}
    for name, recipe in RECIPES.items():
        if getattr(recipe, key) != usual:
            others.setdefault(_shown(getattr(recipe, key)), []).append(name)
    return "; ".join([_shown(usual), *(f"{', '.join(names)} {value}" for value, names in others.items())])


def _shown(value: Any) -> str:
    """A recipe's value as help texts show it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value) or "none"


def with_recipe_flags(*keys: str) -> Callable[[Function], Function]:
    """Give a command one optional flag per key of `Recipe` (all, without ``keys``) in place of its ``**values``.

    A flag that is not given arrives as None, so that the config file and the recipe can speak for it.
    """

    def decorate(function: Function) -> Function:
        signature = inspect.signature(function, eval_str=True)
        own = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
        flags = []
        for key, setting in settings().items():
            if keys and key not in keys:
                continue
            names = f"{_flag(key)}/--no-{key.replace('_', '-')}" if setting.kind is bool else _flag(key)
            panel = _PANEL_OF_RUN if keys else _PANEL.format(section=setting.section)
            option = typer.Option(
                names,
                help=_HELP_OF_RUN.get(key, setting.help) if keys else setting.help,
                show_default="the run's" if keys else _defaults(key),
                rich_help_panel=panel,
                autocompletion=OF_RECIPE.get(key),
            )
            flags.append(
                inspect.Parameter(
                    key,
                    inspect.Parameter.KEYWORD_ONLY,
                    default=None,
                    annotation=Annotated[setting.kind | None, option],
                )
            )
        function.__signature__ = signature.replace(parameters=[*own, *flags])  # type: ignore[attr-defined]  # read by typer
        return function

    return decorate


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


def given(values: Mapping[str, Any]) -> dict[str, Any]:
    """The flags that were given; a flag that was not is None."""
    return {key: value for key, value in values.items() if value is not None}


@contextmanager
def loading(*, quiet: bool) -> Iterator[Display]:
    """Within it, PyTorch is imported and used: warnings are one line each, and progress is shown."""
    prepare_torch()
    with warnings_on_stderr(), progress_display(quiet=quiet) as progress:
        progress("loading PyTorch", 0, None)
        with interrupts_held():
            import torch  # noqa: F401  # the commands import it again, each where it needs it
        yield progress


@contextmanager
def opened(
    run: str | None,
    changes: Mapping[str, Any],
    *,
    progress: Progress,
    checkpoint: Literal["best", "last", "previous"] = "best",
    no_download: bool = False,
) -> Iterator[Subject]:
    """The run that the flags name, opened for analysis with some values of its recipe changed."""
    from codedtool.training.run import Run
    from codedtool.training.subject import opened_run

    with opened_run(
        Run.load(run), checkpoint=checkpoint, changes=changes, download=not no_download, progress=progress
    ) as subject:
        yield subject


@contextmanager
def interruptible_training(budget: Budget) -> Iterator[None]:
    """Within it, Ctrl-C finishes the step and saves a checkpoint, and the command ends with exit code 130."""
    from codedtool.training.runtime import Interrupted

    with finishing_the_step(budget):
        try:
            yield
        except Interrupted as interruption:
            say(f"interrupted: {in_flags(str(interruption))}", to_stderr=True)
            raise typer.Exit(EXIT_INTERRUPTED) from None


class Resolved(NamedTuple):
    """What a command line and a config file say about a training.

    Attributes:
        recipe: every value of the training.
        assignment: which scheme codes which stage.
        base: the recipe by name, from which ``recipe`` was composed.
        given: the recipe's values that the flags or the file set.
        lines: for people, about the choice of the recipe and the values that followed others.
    """

    recipe: Recipe
    assignment: Assignment
    base: Recipe
    given: Mapping[str, Any]
    lines: tuple[str, ...]


def resolve(
    schemes: list[Path] | None, stages: str | None, uncoded: str | None, config: Path | None, given: dict[str, Any]
) -> Resolved:
    """What is to be trained; flags win over the config file, and that over the recipe by name."""
    from codedtool.training.recipes import composed, default_data, warn_of_ignored
    from codedtool.training.run_data import find_recipe
    from codedtool.training.settings import read_config
    from codedtool.training.stages import assign

    own = {"scheme": list, "stages": str, "uncoded_stages": str}
    values = read_config(config, {**settings(), **own}) if config is not None else {}
    from_file = {key: values.pop(key) for key in own if key in values}
    for key, value in from_file.items():
        if type(value) is not own[key]:
            raise InputError(
                f"--config {config}: {key} must be {'a list' if own[key] is list else 'text'}, got {value!r}"
            )
    # Before the values lead to anything: each has its type and bounds.
    values = {key: settings()[key].checked(key, value) for key, value in values.items()} | given
    paths = schemes or [Path(str(path)) for path in from_file.get("scheme", [])]
    data = values.get("data")
    found = find_recipe(data, values.get("recipe")) if data else None
    assignment = assign(
        paths,
        preset=values.get("preset") or None,
        image_size=None if found is None else _image_size(found[0], values),
        stages=names_in(stages or from_file.get("stages")),
        uncoded_stages=names_in(uncoded or from_file.get("uncoded_stages")) or (),
    )
    if found is None:
        data = default_data(assignment.num_classes, values.get("data_dir", Recipe().data_dir))
        found = find_recipe(data, values.get("recipe"))
    base, chosen = found
    values["preset"] = assignment.preset
    recipe, lines = composed(base, values)
    warn_of_ignored(recipe, values, coded=bool(assignment.schemes))
    return Resolved(recipe, assignment, base, values, (chosen, *lines))


def _image_size(recipe: Recipe, values: Mapping[str, Any]) -> int:
    """The side of the larger images, in training or evaluation."""
    recipe = recipe.with_values({key: values[key] for key in ("train_size", "eval_size") if key in values})
    return max(recipe.train_size, recipe.eval_size)


def described(assignment: Assignment) -> list[str]:
    """Lines on the network and its schemes, with the command that makes the partner of a scheme that is alone."""
    partner = assignment.partner
    if partner is None:
        return assignment.lines()
    numbers = f"--K {partner.num_classes} --N {partner.length} --act {partner.act} --hmin max"
    files = shlex.join(["--with", str(partner.given), "--out", str(partner.out)])
    return [*assignment.lines(), f"  to make its partner: codedtool scheme {numbers} {files}"]


def names_in(text: str | None) -> tuple[str, ...] | None:
    """``s2,s3`` -> (s2, s3)."""
    return None if text is None else tuple(name.strip() for name in text.split(",") if name.strip())


@contextmanager
def warnings_on_stderr() -> Iterator[None]:
    """Within it, a warning of this package (a setting ignored, images left out) is one line on stderr, told once."""
    package = str(Path(__file__).parents[1])
    with warnings.catch_warnings():
        usual = warnings.showwarning
        told: set[str] = set()

        def show(message: Warning | str, category: type[Warning], filename: str, *rest: Any) -> None:
            if category is SettingIgnored or filename.startswith(package):
                # Python forgets what it has shown whenever a library changes the filters.
                if str(message) not in told:
                    told.add(str(message))
                    say(f"warning: {in_flags(str(message))}", to_stderr=True)
            else:
                usual(message, category, filename, *rest)

        warnings.showwarning = show  # type: ignore[assignment]  # takes what the real one takes
        warnings.simplefilter("always", SettingIgnored)
        yield


@contextmanager
def finishing_the_step(budget: Budget) -> Iterator[None]:
    """Within it, Ctrl-C (or SIGTERM) asks a training to stop after its step; a second one stops at once.

    Before the first step, while data are read, and in the analyses of a sweep, already the first one stops at once.
    """

    def ask(signum: int, frame: FrameType | None) -> None:
        if budget.stop_reason() is not None or not budget.is_watched:
            raise KeyboardInterrupt
        budget.interrupt()
        say("stopping after this step, then saving a checkpoint (again: stop at once)", to_stderr=True)

    with signals_handled({signal.SIGINT: ask, signal.SIGTERM: ask}):
        yield
