"""``codedtool sweep``: train a grid of settings and draw what varies with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
    names_in,
    resolve,
    with_recipe_flags,
)
from codedtool.cli.session import Json, Quiet, end_with, in_flags, say, show, verb
from codedtool.errors import InputError

if TYPE_CHECKING:
    from codedtool.coding.scheme import CodingScheme

# In place of a scheme's file: the stage stays plain (r = 1).
_PLAIN = "plain"


@verb
@with_recipe_flags()
def sweep(
    vary: Annotated[
        list[str],
        typer.Option(
            "--vary",
            help="KEY=VALUE,VALUE,… of a recipe's value, as mu=0,1,2, or scheme=A.npy+B.npy,C.npy+D.npy for sets of "
            "schemes, where the word plain leaves its stage of --stages plain; repeat for a grid.",
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

    A training that fails is reported in its place, and the others are done. The same command continues a sweep that was
    stopped: it keeps finished runs as they are (figure 5, appendix D).
    """
    if name in ("", ".", "..", "latest") or Path(name).name != name:
        raise InputError(f"`name` {name!r} must be the name of one folder, and not 'latest'")
    flags = given(values)
    budget = Budget()
    with loading(quiet=quiet) as progress, interruptible_training(budget):
        from codedtool.analysis.sweep import SCHEME, parse_vary, save_sweep
        from codedtool.analysis.sweep import sweep as analyse
        from codedtool.report.figures_sweep import draw_sweep
        from codedtool.training.run import DEFAULT_FOLDER

        grid: dict[str, Any] = {}
        for text in vary:
            key, read = parse_vary(text)
            if key in grid or key in flags:
                raise InputError(f"`vary` {key}: it is given twice")
            grid[key] = read
        if SCHEME in grid and schemes:
            raise InputError("`vary` scheme and `schemes` exclude each other")
        sets = {"+".join(Path(file).stem for file in files): files for files in grid.get(SCHEME, ())}
        if len(sets) < len(grid.get(SCHEME, ())):
            raise InputError("`vary` scheme: two sets of files have the same names; rename the files")
        resolved = {
            label: resolve(*_without_plain(files, stages, uncoded_stages), config, flags)
            for label, files in sets.items()
        }
        if SCHEME in grid:
            grid[SCHEME] = tuple(sets)
            found = next(iter(resolved.values()))
            if any(one.recipe != found.recipe for one in resolved.values()):
                raise InputError("`vary` scheme: the sets do not fit one `preset`; name it")
            assigned: dict[str, CodingScheme] = {}
            lines = [
                line for label, one in resolved.items() for line in (f"scheme={label}:", *described(one.assignment))
            ]
        else:
            found = resolve(schemes, stages, uncoded_stages, config, flags)
            assigned = found.assignment.schemes
            lines = described(found.assignment) if assigned else []
        for line in (*lines, *found.lines):
            say(in_flags(line), to_stderr=json_output)
        result = analyse(
            found.base,
            assigned,
            grid,
            scheme_sets={label: one.assignment.schemes for label, one in resolved.items()},
            given=found.given,
            folder=DEFAULT_FOLDER / name,
            num_seeds=seeds,
            download=not no_download,
            budget=budget,
            progress=progress,
        )
        files = save_sweep(result, draw_sweep)
    show(result, as_json=json_output, heading=f"{len(result.points)} points", files=files)
    end_with(result.failed)


def _without_plain(
    files: Sequence[str], stages: str | None, uncoded: str | None
) -> tuple[list[Path], str | None, str | None]:
    """The schemes of a set, the stages that they code, and those that stay plain, with the set's words plain."""
    if _PLAIN not in files:
        return [Path(file) for file in files], stages, uncoded
    places = names_in(stages) or ()
    if len(places) != len(files):
        raise InputError("`vary` scheme: a set with the word plain needs `stages` with one stage for each of its words")
    coded = [(Path(file), place) for file, place in zip(files, places, strict=True) if file != _PLAIN]
    plain = [place for file, place in zip(files, places, strict=True) if file == _PLAIN]
    kept = ",".join(place for _, place in coded)
    return [file for file, _ in coded], kept or None, ",".join([*([uncoded] if uncoded else []), *plain])
