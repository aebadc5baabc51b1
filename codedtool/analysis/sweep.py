"""Trainings over a grid of recipe values and seeds, which can be resumed (figure 5, section 3.1.2, appendix D)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

from codedtool.analysis.artifacts import artifact_path, write_csv, write_figure, write_json
from codedtool.analysis.classifier_metrics import CODED, evaluate_classifiers
from codedtool.analysis.result import NONE, Result, Rows, Table, percent, spread
from codedtool.budget import Budget, Progress, silent
from codedtool.coding.scheme import CodingScheme
from codedtool.errors import Failure, InputError
from codedtool.files import exists, read_json
from codedtool.interrupts import was_interrupted
from codedtool.training.launch import ADVICE, read_launch
from codedtool.training.precision import as_begun
from codedtool.training.recipe import Recipe, settings
from codedtool.training.recipes import composed
from codedtool.training.run import Run
from codedtool.training.runtime import Interrupted
from codedtool.training.settings import check_key
from codedtool.training.stages import permuted
from codedtool.training.subject import opened_run
from codedtool.training.train import resume, train

# The key of `vary` that stands for the set of schemes; all other keys are those of the recipe.
SCHEME = "scheme"

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class _OtherRunError(InputError):
    """The folder holds a run of another sweep, so that nothing is to be trained there."""


@dataclass(frozen=True)
class SweepPoint:
    """The measurements of one combination of varied values.

    Attributes:
        values: the varied values, by key.
        figures: mean and sample standard deviation over the seeds (0 for one seed), by name, 0..1. The names are
            accuracy (after the last epoch), decoder_BLOCK (early decoder of a coded block), and bc_f1 (mean F1 of the
            binary classifiers). Empty if every run failed.
        runs: paths of the runs, one per seed that did not fail.
        failed: the runs that failed, which the figures are without.
    """

    values: dict[str, Any]
    figures: dict[str, tuple[float, float]]
    runs: tuple[str, ...]
    failed: tuple[Failure, ...] = ()


@dataclass(frozen=True)
class SweepResult(Result):
    """The measurements of all combinations.

    Attributes:
        folder: the folder of the sweep's runs and results.
        varied: keys of the varied values.
        seeds: seeds of the runs at every point.
        points: one point for each combination of values.
    """

    folder: Path
    varied: tuple[str, ...]
    seeds: tuple[int, ...]
    points: tuple[SweepPoint, ...]

    @property
    def name(self) -> str:
        return "sweep"

    @property
    def failed(self) -> tuple[Failure, ...]:
        """The runs that failed, point by point."""
        return tuple(failure for point in self.points for failure in point.failed)

    @property
    def measured(self) -> tuple[str, ...]:
        """Names of the measurements."""
        return tuple(dict.fromkeys(name for point in self.points for name in point.figures))

    def left_out(self) -> tuple[str, ...]:
        return tuple(map(str, self.failed))

    def tables(self) -> tuple[Table, ...]:
        names = self.measured
        several = len(self.seeds) > 1
        return (
            Table(
                f"Measurements, %: mean ± standard deviation of {len(self.seeds)} seeds"
                if several
                else "Measurements, %",
                (", ".join(self.varied), *names),
                tuple(
                    (
                        ", ".join(
                            f"{value:g}" if isinstance(value, float) else str(value) for value in point.values.values()
                        ),
                        *(_cell(point.figures.get(name), several=several) for name in names),
                    )
                    for point in self.points
                ),
            ),
        )

    def rows(self) -> dict[str, Rows]:
        return {self.name: self.point_rows()}

    def point_rows(self) -> list[dict[str, Any]]:
        """One row per point: its values, and the mean and standard deviation of every measurement."""
        return [
            point.values
            | {
                f"{name}{suffix}": value
                for name, pair in point.figures.items()
                for suffix, value in zip(("", "_std"), pair, strict=True)
            }
            for point in self.points
        ]

    def to_json(self) -> dict[str, Any]:
        return {
            "folder": str(self.folder),
            "varied": list(self.varied),
            "seeds": list(self.seeds),
            "points": [
                row
                | {"runs": list(point.runs)}
                | ({"failed": [failure.to_json() for failure in point.failed]} if point.failed else {})
                for row, point in zip(self.point_rows(), self.points, strict=True)
            ],
        }


def _cell(figure: tuple[float, float] | None, *, several: bool) -> str:
    """A mean, with the standard deviation where there are ``several`` seeds."""
    if figure is None:
        return NONE
    return spread(*figure) if several else percent(figure[0])


def parse_vary(text: str) -> tuple[str, tuple[Any, ...]]:
    """Read a key and its varied values from text.

    Args:
        text: KEY=VALUE,VALUE,... with a key of the recipe; or scheme=FILE+FILE,FILE,... with sets of scheme files.

    Raises:
        InputError: the form is another, the recipe has no such key (the message names the nearest), or a value has the
            wrong type or is repeated.

    Example:
        >>> parse_vary("mu=0,1,2")
        ('mu', (0.0, 1.0, 2.0))
        >>> parse_vary("scheme=A.npy+B.npy,C.npy")
        ('scheme', (('A.npy', 'B.npy'), ('C.npy',)))
    """
    name, equals, values = text.partition("=")
    key = name.strip().replace("-", "_")
    if key == SCHEME and values.strip():
        sets = tuple(tuple(file.strip() for file in part.split("+")) for part in values.split(","))
        if not all(all(files) for files in sets) or len(set(sets)) < len(sets):
            raise InputError(
                f"`vary` {text!r}: an empty or repeated set of files; write scheme=A.npy+B.npy,C.npy+D.npy"
            )
        return key, sets
    if not equals or not values.strip():
        raise InputError(f"`vary` {text!r} is not of the form mu=0,1,2")
    check_key(key, {**settings(), SCHEME: None}, what="`vary`")
    if key == "seed":
        raise InputError("`vary` seed: seeds are repeated at every point of the grid; give their number as `seeds`")
    if key == "recipe":
        raise InputError("`vary` recipe: a recipe sets many values at once; run one sweep for each `recipe`")
    kind: type = settings()[key].kind
    found: list[Any] = []
    for part in (part.strip() for part in values.split(",")):
        try:
            if kind is bool:
                found.append({"true": True, "false": False}[part.lower()])
            else:
                found.append(kind(part))
        except (ValueError, KeyError):
            raise InputError(f"`vary` {key}: {part!r} is not of type {kind.__name__}") from None
    if len(set(found)) < len(found):
        raise InputError(f"`vary` {key}: a value is given twice")
    return key, tuple(found)


def sweep(
    recipe: Recipe,
    schemes: Mapping[str, CodingScheme],
    vary: Mapping[str, Sequence[Any]],
    *,
    scheme_sets: Mapping[str, Mapping[str, CodingScheme]] | None = None,
    given: Mapping[str, Any] | None = None,
    folder: Path,
    num_seeds: int = 1,
    download: bool = True,
    budget: Budget | None = None,
    progress: Progress = silent,
) -> SweepResult:
    """Train every combination of values with every seed (figure 5).

    Finished runs in ``folder`` are used again, and unfinished ones are continued. A run that fails is reported at its
    point (`SweepPoint.failed`), and the sweep goes on; the same call tries it again.

    Args:
        recipe: the recipe that all runs share.
        schemes: the scheme of each coded stage.
        vary: values by the recipe's key; for the key "scheme", names of ``scheme_sets``.
        scheme_sets: the schemes by stage, by name; they replace ``schemes`` if "scheme" is varied.
        given: further values by the recipe's key, the same for all runs. As in a single training, the learning rate
            follows the batch, and warm-up and cool-down the epochs, unless they are given or vary.
        folder: the folder of the runs, one for each combination and seed.
        num_seeds: number of seeds: recipe.seed, recipe.seed + 1, ...
        download: whether a missing data set may be downloaded.
        budget: when it asks to stop, a checkpoint is saved and `Interrupted` is raised. The same call then continues.
        progress: where to report the progress.

    Returns:
        The measurements of every combination, over all seeds.

    Raises:
        InputError: a value is out of range, or a run in ``folder`` was trained with other values.
        Interrupted: ``budget`` asked to stop.
        Exception: every run failed; this is the first one's error.
    """
    launched = read_launch()
    if launched.world_size > 1:
        raise InputError(f"the environment has WORLD_SIZE={launched.world_size}, and a sweep is one process; {ADVICE}")
    if not vary:
        raise InputError("nothing varies: give `vary` as KEY=VALUE,VALUE")
    budget = budget or Budget()
    shared = dict(given or {})
    seeds = tuple(shared.get("seed", recipe.seed) + number for number in range(num_seeds))
    combinations = [dict(zip(vary, values, strict=True)) for values in itertools.product(*vary.values())]
    # Values out of range are refused before the first training.
    recipes = [
        composed(recipe, shared | {k: v for k, v in values.items() if k != SCHEME})[0] for values in combinations
    ]
    points = []
    first_error: Exception | None = None
    for number, (values, varied) in enumerate(zip(combinations, recipes, strict=True)):
        figures, runs, failed = [], [], []
        for seed in seeds:
            name = "_".join([*(f"{key}={value}" for key, value in values.items()), f"seed={seed}"]).replace("/", "-")
            progress("sweep", number * len(seeds) + seeds.index(seed), len(recipes) * len(seeds), name)
            assigned = scheme_sets[values[SCHEME]] if scheme_sets is not None and SCHEME in values else schemes
            try:
                run = _trained(
                    varied.with_values({"seed": seed}),
                    assigned,
                    name,
                    folder,
                    given=shared.keys() | vary.keys(),
                    download=download,
                    budget=budget,
                    progress=progress,
                )
                figures.append(_figures(run, download=download, progress=progress))
                runs.append(str(run.path))
            except _OtherRunError:
                raise
            except Interrupted:
                raise Interrupted(_how_to_go_on(folder)) from None
            except Exception as error:
                if was_interrupted():
                    raise KeyboardInterrupt from error
                first_error = first_error or error
                failed.append(Failure.of(name, error))
            if budget.stop_reason() is not None:
                raise Interrupted(_how_to_go_on(folder))
        pairs = {
            key: (mean(measured), stdev(measured) if len(measured) > 1 else 0.0)
            for key in (figures[0] if figures else ())
            if (measured := [one[key] for one in figures])
        }
        points.append(SweepPoint(dict(combinations[number]), pairs, tuple(runs), tuple(failed)))
    if first_error is not None and not any(point.runs for point in points):
        raise first_error
    return SweepResult(folder, tuple(vary), seeds, tuple(points))


def _trained(
    recipe: Recipe,
    schemes: Mapping[str, CodingScheme],
    name: str,
    folder: Path,
    *,
    given: Collection[str],
    download: bool,
    budget: Budget,
    progress: Progress,
) -> Run:
    """The finished run called ``name``: an earlier one, a continued one or a new one."""
    if not exists(folder / name):
        return train(
            recipe,
            schemes,
            run_name=name,
            folder=folder,
            given=given,
            download=download,
            budget=budget,
            progress=progress,
        ).run
    run = Run.load(name, folder=folder)
    started = run.recipe.with_values(run.adjusted)
    different = started.differences(as_begun(recipe, run.recipe), only_result=True)
    if different or run.schemes != permuted(schemes, recipe.permutation):
        what = ", ".join(f"{key} {mine!r} instead of {given!r}" for key, (mine, given) in different.items())
        raise _OtherRunError(f"{run.path} was trained with {what or 'other schemes'}; give the sweep another `name`")
    if len(run.metrics()) < recipe.epochs:
        return resume(run, download=download, budget=budget, progress=progress).run
    return run


def _figures(run: Run, *, download: bool, progress: Progress) -> dict[str, float]:
    """Measurements of the run's last epoch and of its binary classifiers, which are measured only once."""
    last = run.metrics()[-1]
    figures = {"accuracy": float(last["val_accuracy"])}
    prefix = "val_decoder_accuracy_"
    figures |= {f"decoder_{key.removeprefix(prefix)}": float(last[key]) for key in last if key.startswith(prefix)}
    if run.schemes:
        file = artifact_path(run, "sweep_bc.json")
        if not exists(file):
            with opened_run(run, checkpoint="last", download=download, progress=progress) as subject:
                result = evaluate_classifiers(subject, range(len(subject.classes)), progress=progress)
            write_json(file, next(row for row in result.means() if row["source"] == CODED))
        figures["bc_f1"] = float(read_json(file)["val_f1"])
    return figures


def _how_to_go_on(folder: Path) -> str:
    return f"the runs so far are in {folder}; the same command continues the sweep"


def save_sweep(result: SweepResult, draw: Callable[[SweepResult], Figure]) -> tuple[Path, ...]:
    """Write sweep.json, .csv, .png and .svg to the sweep's folder, replacing earlier ones; returns the paths.

    The figure is drawn last: what was measured stays if drawing fails.
    """
    document, table, picture = (result.folder / f"{result.name}.{ending}" for ending in ("json", "csv", "png"))
    write_json(document, result.to_json())
    write_csv(table, result.point_rows())
    write_figure(picture, draw(result))
    return document, table, picture
