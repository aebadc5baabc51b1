"""``codedtool plan``: from a number of classes or a folder of images to a network and the commands that train it."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from codedtool.analysis.result import NONE, Table
from codedtool.budget import Budget
from codedtool.cli.completion import complete_data
from codedtool.cli.runs import loading
from codedtool.cli.session import EXIT_INTERRUPTED, Json, Quiet, interruptible, print_json, print_table, say, verb
from codedtool.files import check_target, write_atomically

if TYPE_CHECKING:
    from codedtool.budget import Progress
    from codedtool.training.plan import Candidate, Plan


@verb
def plan(
    num_classes: Annotated[
        int | None,
        typer.Option("--K", help="Number of classes; required without --data.", show_default="that of --data"),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            help="cifar10, cifar100 or folder:PATH, whose classes and image sizes are looked at; required without --K.",
            autocompletion=complete_data,
        ),
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(
            "--image-size",
            min=8,
            max=1024,
            help="Side of the images in pixels.",
            show_default="the recipe's, or 32, from K = 1000 on 224",
        ),
    ] = None,
    device: Annotated[
        Literal["auto", "cpu", "cuda", "xla"], typer.Option("--device", help="Where the speed is measured.")
    ] = "auto",
    write: Annotated[
        bool,
        typer.Option("--write", help="Make the schemes in schemes/ and write plan.toml, which train --config reads."),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite existing files.")] = False,
    json_output: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compare networks for a number of classes or a data set, choose one, and print the commands that train it."""
    with loading(quiet=quiet) as progress:
        from codedtool.training.plan import plan as make_plan

        planned = make_plan(num_classes, data=data, image_size=image_size, device=device, progress=progress)
        written = _write(planned, force=force, progress=progress) if write else []
    if json_output:
        print_json(planned.to_json() | {"written": [str(path) for path in written]})
    print_table(_table(planned), to_stderr=json_output)
    for line in _lines(planned, written):
        say(line, to_stderr=json_output)


def _write(planned: Plan, *, force: bool, progress: Progress) -> list[Path]:
    """Make the schemes and the config file; returns the files."""
    from codedtool.cli.scheme import provenance_of, save_partial
    from codedtool.coding.result import SchemeResult, SearchInterrupted
    from codedtool.training.plan import make_schemes

    config = Path("plan.toml")
    made = [Path(path) for path in planned.scheme_paths() if path.endswith(".npy")]
    for path in (config, *made, *(path.with_suffix(".json") for path in made)):
        check_target(path, force=force)
    budget = Budget(300.0)
    commands = [shlex.join(command) for command in planned.scheme_commands()]
    results: list[SchemeResult] = []
    interruption: SearchInterrupted | None = None
    try:
        with interruptible(budget):
            results.extend(make_schemes(planned, budget=budget, progress=progress))
    except SearchInterrupted as error:
        interruption = error  # what was found is saved outside of `interruptible`, whose alarm must not cut it short
    for path, result, command in zip(made, results, commands, strict=False):
        result.scheme.save(path, provenance=provenance_of(result, command), force=force)
    if interruption is not None:
        for path in made[: len(results)]:
            say(f"wrote {path}", to_stderr=True)
        save_partial(interruption.best, made[len(results)], commands[len(results)])
        raise typer.Exit(EXIT_INTERRUPTED)
    write_atomically(config, planned.config().encode())
    return [*made, config]


def _table(planned: Plan) -> Table:
    header = (
        *("network", "N", "N_act", "H_min", "at most", "parameters", "multiply-adds, M", "kept per image, MB"),
        *("a class keeps", "images/s", "hours"),
    )
    rows = tuple(_row(planned, one, number == planned.chosen) for number, one in enumerate(planned.candidates))
    caption = (
        f"Networks for K = {planned.num_classes} at {_size(planned)}. N_act and H_min of both coded parts; "
        "H_min was found in a short search,\na larger one than 'at most' is impossible; 'a class keeps': the share of "
        f"the parameters in its classifier; images/s in training on {planned.device}"
    )
    return Table(caption, header, rows)


def _size(planned: Plan) -> str:
    """The side of the images in pixels, and in training if it is another."""
    size = f"{planned.image_size} px"
    return size if planned.train_size == planned.image_size else f"{size}, trained at {planned.train_size} px"


def _row(planned: Plan, one: Candidate, is_chosen: bool) -> tuple[str, ...]:
    hours = planned.hours(one)
    return (
        ("* " if is_chosen else "  ") + one.preset,
        str(one.length),
        ", ".join(str(scheme.act) for scheme in one.schemes),
        ", ".join(str(scheme.min_distance) for scheme in one.schemes),
        ", ".join(str(scheme.bound) for scheme in one.schemes),
        f"{one.parameters:,}",
        f"{one.macs / 1e6:,.0f}",
        f"{one.kept_bytes / 1e6:,.1f}",
        f"{one.classifier_share:.0%}",
        f"{one.images_per_second:,.1f}",
        NONE if hours is None else f"{hours:,.1f}",
    )


def _lines(planned: Plan, written: list[Path]) -> list[str]:
    """The choice, the recipe, and the commands that are left."""
    recipe = planned.recipe
    epochs = f"{recipe.epochs} epochs in batches of {recipe.batch_size}"
    if planned.num_images is not None:
        epochs += f", {planned.num_images:,} images"
    lines = [f"* taken: {planned.reason}", f"{planned.recipe_reason}; {epochs}"]
    if recipe.split:
        lines.append(f"The folder has no val/: {recipe.split:.0%} of every class's images are for validation (--split)")
    commands = planned.commands()
    if written:
        lines.append(f"wrote {', '.join(map(str, written))}")
        commands = [["codedtool", "train", "--config", "plan.toml"], commands[-1]]
    return [*lines, *(f"$ {shlex.join(command)}" for command in commands)]
