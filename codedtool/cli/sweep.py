"""``codedtool sweep``: train a grid of settings and draw what varies with it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from codedtool.budget import Budget
from codedtool.cli.session import (
    EXIT_INTERRUPTED,
    Json,
    Quiet,
    in_flags,
    print_json,
    print_table,
    progress_display,
    say,
    verb,
)
from codedtool.cli.train import (
    Config,
    NoDownload,
    SchemeFiles,
    StageNames,
    UncodedStages,
    finishing_the_step,
    prepare_torch,
    resolve,
    warnings_on_stderr,
    with_recipe_flags,
)
from codedtool.errors import InputError

if TYPE_CHECKING:
    from codedtool.analysis.sweep import SweepResult
    from codedtool.coding.scheme import CodingScheme


@verb
@with_recipe_flags()
def sweep(
    vary: Annotated[
        list[str],
        typer.Option(
            "--vary",
            help="KEY=VALUE,VALUE,… of a recipe's value, as mu=0,1,2, or scheme=A.npy+B.npy,C.npy+D.npy for sets of "
            "schemes; repeat for a grid.",
        ),
    ],
    name: Annotated[str, typer.Option("--name", help="Folder under runs/ that holds the grid's runs and its files.")],
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Seeds per point, from --seed on.")] = 1,
    schemes: SchemeFiles = None,
    stages: StageNames = None,
    uncoded_stages: UncodedStages = None,
    config: Config = None,
    no_download: NoDownload = False,
    json_output: Json = False,
    quiet: Quiet = False,
    **values: Any,
) -> None:
    """Train every combination of the varied values, and tabulate and draw accuracy, early decoders and classifiers.

    The same command goes on where it was stopped: finished runs are taken as they are (figure 5, appendix D).
    """
    if name in ("", ".", "..", "latest") or Path(name).name != name:
        raise InputError(f"--name {name!r} must be the name of one folder, and not 'latest'")
    prepare_torch()
    given = {key: value for key, value in values.items() if value is not None}
    budget = Budget()
    with warnings_on_stderr(), progress_display(quiet=quiet) as progress, finishing_the_step(budget):
        progress("loading PyTorch", 0, None)
        from codedtool.analysis.sweep import SCHEME, parse_vary, save_sweep
        from codedtool.analysis.sweep import sweep as analyse
        from codedtool.report.figures_sweep import draw_sweep
        from codedtool.training.loop import Interrupted
        from codedtool.training.run import DEFAULT_FOLDER

        grid: dict[str, Any] = {}
        for text in vary:
            key, found = parse_vary(text)
            if key in grid or key in given:
                raise InputError(f"--vary {key}: it is given twice")
            grid[key] = found
        if SCHEME in grid and schemes:
            raise InputError("--vary scheme and --scheme exclude each other")
        sets = {"+".join(Path(file).stem for file in files): files for files in grid.get(SCHEME, ())}
        if len(sets) < len(grid.get(SCHEME, ())):
            raise InputError("--vary scheme: two sets of files have the same names; rename the files")
        resolved = {
            label: resolve([Path(file) for file in files], stages, uncoded_stages, config, given)
            for label, files in sets.items()
        }
        if SCHEME in grid:
            grid[SCHEME] = tuple(sets)
            recipe = next(iter(resolved.values()))[0]
            if any(one != recipe for one, _ in resolved.values()):
                raise InputError("--vary scheme: the sets do not fit one --preset; name it")
            assigned: dict[str, CodingScheme] = {}
        else:
            recipe, assignment = resolve(schemes, stages, uncoded_stages, config, given)
            assigned = assignment.schemes
        try:
            result = analyse(
                recipe,
                assigned,
                grid,
                scheme_sets={label: found.schemes for label, (_, found) in resolved.items()},
                folder=DEFAULT_FOLDER / name,
                num_seeds=seeds,
                download=not no_download,
                budget=budget,
                progress=progress,
            )
        except Interrupted as interruption:
            typer.echo(f"interrupted: {in_flags(str(interruption))}", err=True)
            raise typer.Exit(EXIT_INTERRUPTED) from None
        save_sweep(result, draw_sweep(result))
    if json_output:
        print_json(result.to_json())
    _describe(result, to_stderr=json_output)


def _describe(result: SweepResult, *, to_stderr: bool) -> None:
    from rich.table import Table

    table = Table(title=f"%, {len(result.seeds)} seeds each" if len(result.seeds) > 1 else "%")
    names = list(result.points[0].figures)
    for key in (*result.varied, *names):
        table.add_column(key, justify="right")
    for point in result.points:
        figures = [
            f"{100 * mean:.2f}" + (f" ± {100 * deviation:.2f}" if len(result.seeds) > 1 else "")
            for mean, deviation in (point.figures[name] for name in names)
        ]
        table.add_row(
            *(f"{value:g}" if isinstance(value, float) else str(value) for value in point.values.values()), *figures
        )
    print_table(table, to_stderr=to_stderr)
    say(f"files: {result.folder}/sweep.json, .csv, .png and .svg", to_stderr=to_stderr)
