"""`train`, `resume` and `evaluate_run`: what ``codedtool train`` and ``codedtool eval`` do, as typed functions."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing import current_process
from pathlib import Path
from typing import Any

from codedtool.budget import Budget, Progress, silent
from codedtool.coding.scheme import CodingScheme
from codedtool.data import ImageData, check_num_classes, load_dataset
from codedtool.errors import InputError
from codedtool.training.checkpoint import Checkpoint, Which
from codedtool.training.evaluation import evaluate
from codedtool.training.loop import Trainer
from codedtool.training.recipe import Recipe
from codedtool.training.run import DEFAULT_FOLDER, Run
from codedtool.training.runtime import Runtime, opened_runtime
from codedtool.training.stages import permuted
from codedtool.training.sync_bn import synchronize_batch_norm


@dataclass(frozen=True)
class TrainResult:
    """What a finished training gives.

    Attributes:
        run: the run's directory.
        epochs: trained in all.
        best_accuracy: highest validation accuracy after any epoch, 0..1.
        last: the last row of the metrics.
        seconds: of this call.
    """

    run: Run
    epochs: int
    best_accuracy: float
    last: dict[str, Any]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "run": str(self.run.path),
            "epochs": self.epochs,
            "best_accuracy": self.best_accuracy,
            "last": self.last,
            "seconds": round(self.seconds, 3),
        }


@dataclass(frozen=True)
class EvalResult:
    """Table 2's numbers for one run on one data set.

    Attributes:
        run: the run's directory.
        data: the data set.
        checkpoint: name of the checkpoint evaluated.
        num_images: of the validation set.
        accuracy: top-1, 0..1.
        loss: mean cross-entropy, without label smoothing.
        coding_loss: coded block -> mean coding loss (eq. 5).
        decoder_accuracy: coded block -> accuracy of its early decoder (figure 4).
        seconds: of the evaluation.
    """

    run: Run
    data: str
    checkpoint: str
    num_images: int
    accuracy: float
    loss: float
    coding_loss: dict[str, float]
    decoder_accuracy: dict[str, float]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        values = {key: value for key, value in vars(self).items() if key != "run"}
        return {"run": str(self.run.path), **values, "seconds": round(self.seconds, 3)}


def train(
    recipe: Recipe,
    schemes: Mapping[str, CodingScheme],
    *,
    run_name: str | None = None,
    folder: Path = DEFAULT_FOLDER,
    download: bool = True,
    provenance: Mapping[str, Any] | None = None,
    budget: Budget | None = None,
    progress: Progress = silent,
) -> TrainResult:
    """Begin a run and train it to its last epoch (section 4.1).

    Args:
        recipe: every value; ``recipe.preset`` must be named.
        schemes: stage -> the scheme that codes it, before the recipe's permutation; other stages are plain.
        run_name: of the new run in ``folder``; None: the data set's name and a number.
        download: fetch a data set that is not there.
        provenance: stored in the run's config.json.
        budget: asking it to stop saves a checkpoint and raises `Interrupted`.
        progress: where to report.

    Raises:
        InputError: bad data, a scheme that does not fit, a taken run name, a full disk.
        DivergedError: the loss is not finite.
        Interrupted: ``budget`` asked to stop; `resume` goes on.
    """
    if _must_launch(recipe):
        start = time.monotonic()
        _launch(_train_child, recipe, schemes, run_name, folder, download, provenance)
        return _result_of(Run.load(run_name, folder=folder), start)
    with opened_runtime(recipe) as runtime:
        data = load_run_data(recipe, runtime, download=download, progress=progress)
        for scheme in schemes.values():
            check_num_classes(data, scheme.num_classes)
        schemes = permuted(schemes, recipe.permutation)
        run = None
        if runtime.is_main:
            run = Run.create(
                recipe, schemes, data.classes, data.normalization, name=run_name, folder=folder, provenance=provenance
            )
        run = Run.load(runtime.share(None if run is None else run.name), folder=folder)
        return _fit(run, data, runtime, None, budget=budget or Budget(), progress=progress)


def resume(
    run: Run,
    *,
    checkpoint: Which = "last",
    changes: Mapping[str, Any] | None = None,
    download: bool = True,
    budget: Budget | None = None,
    progress: Progress = silent,
) -> TrainResult:
    """Go on with a run from a checkpoint, as if it had never stopped; from the start where it has none.

    Args:
        run: the run.
        checkpoint: last, previous or best; what came after it is dropped.
        changes: recipe values to change, of those that do not decide the result (device, workers, ...).
        download, budget, progress: as for `train`.

    Raises:
        InputError: a change that would alter the result, a damaged checkpoint (the whole ones are named), other
            classes in the data set; and as `train`.
    """
    recipe = run.recipe.with_values(changes or {})
    for key, (new, old) in recipe.differences(run.recipe, only_result=True).items():
        raise InputError(
            f"`{key}` {new!r} cannot change when {run.path} is resumed: the run was begun with {old!r}; "
            f"leave `{key}` out or begin a new run"
        )
    run = dataclasses.replace(run, recipe=recipe)
    if _must_launch(recipe):
        start = time.monotonic()
        _launch(_resume_child, run, checkpoint, changes, download)
        return _result_of(run, start)
    with opened_runtime(recipe) as runtime:
        data = load_run_data(recipe, runtime, download=download, progress=progress)
        check_same_classes(run, data)
        found = run.checkpoints.load(checkpoint) if run.checkpoints.index() else None
        runtime.barrier()
        if found is not None:
            run.check_metadata(found.metadata, f"checkpoint {run.checkpoints.folder / found.name}")
            if runtime.is_main:
                run.checkpoints.rewind(checkpoint)
        if runtime.is_main:
            run.make_latest()
        return _fit(run, data, runtime, found, budget=budget or Budget(), progress=progress)


def evaluate_run(
    run: Run,
    *,
    data: str | None = None,
    checkpoint: Which = "best",
    changes: Mapping[str, Any] | None = None,
    download: bool = True,
    progress: Progress = silent,
) -> EvalResult:
    """Accuracy, coding losses and early-decoder accuracy of a run's network on a validation set (table 2, figure 4).

    Args:
        run: the trained run.
        data: a data set with the same classes; None: the run's own.
        checkpoint: best, last or previous.
        changes: recipe values to change for the evaluation (device, eval_size, ...).

    Raises:
        InputError: other classes, no or a damaged checkpoint, missing data.
    """
    recipe = run.recipe.with_values({**(changes or {}), **({} if data is None else {"data": data})})
    with opened_runtime(recipe) as runtime:
        images = load_run_data(recipe, runtime, download=download, progress=progress)
        check_same_classes(run, images)
        start = time.monotonic()
        network = run.load_network(checkpoint)
        runtime.prepare(network)
        means = evaluate(network, images.val, run.normalization, recipe, runtime, progress=progress)
        return EvalResult(
            run=run,
            data=recipe.data,
            checkpoint=run.checkpoints.index()[checkpoint],
            seconds=time.monotonic() - start,
            **means,
        )


def _must_launch(recipe: Recipe) -> bool:
    """Whether the work goes to processes of its own, one per XLA device."""
    if recipe.device != "xla" or current_process().name != "MainProcess":
        return False
    from codedtool.training.xla import launches

    return launches()


def _launch(function: Callable[..., Any], *arguments: Any) -> None:
    from codedtool.training.xla import launch

    launch(function, *arguments)


def _train_child(
    recipe: Recipe,
    schemes: Mapping[str, CodingScheme],
    run_name: str | None,
    folder: Path,
    download: bool,
    provenance: Mapping[str, Any] | None,
) -> None:
    train(recipe, schemes, run_name=run_name, folder=folder, download=download, provenance=provenance)


def _resume_child(run: Run, checkpoint: Which, changes: Mapping[str, Any] | None, download: bool) -> None:
    resume(run, checkpoint=checkpoint, changes=changes, download=download)


def _result_of(run: Run, start: float) -> TrainResult:
    """The result of a training that other processes did, from the files it left."""
    history = run.metrics()
    return TrainResult(
        run=run,
        epochs=len(history),
        best_accuracy=max(row["val_accuracy"] for row in history),
        last=history[-1],
        seconds=time.monotonic() - start,
    )


def _fit(
    run: Run,
    data: ImageData,
    runtime: Runtime,
    found: Checkpoint | None,
    *,
    budget: Budget,
    progress: Progress,
) -> TrainResult:
    """Build what trains, restore it from a checkpoint where there is one, and train."""
    start = time.monotonic()
    network = run.build_network()
    if run.recipe.sync_bn and runtime.world_size > 1:
        synchronize_batch_norm(network)
    prepared = runtime.prepare(network)
    trainer = Trainer(run, network, prepared, data, runtime, budget=budget, progress=progress)
    if found is not None:
        trainer.restore(found.weights, found.state)
    if runtime.is_main:
        run.write_metrics(trainer.history)
    trainer.fit()
    return TrainResult(
        run=run,
        epochs=trainer.epoch,
        best_accuracy=trainer.best_accuracy,
        last=trainer.history[-1],
        seconds=time.monotonic() - start,
    )


def load_run_data(recipe: Recipe, runtime: Runtime, *, download: bool, progress: Progress) -> ImageData:
    """The recipe's data set; rank 0 looks first, so that one process downloads and the others find it there."""
    data = None
    if runtime.is_main:
        data = _load(recipe, download=download, progress=progress)
    runtime.barrier()
    return data if data is not None else _load(recipe, download=False, progress=silent)


def _load(recipe: Recipe, *, download: bool, progress: Progress) -> ImageData:
    data = load_dataset(
        recipe.data,
        data_dir=Path(recipe.data_dir),
        download=download,
        skip_bad_images=recipe.skip_bad_images,
        progress=progress,
    )
    if recipe.images_per_class:
        data = dataclasses.replace(data, train=data.train.first_of_each_class(recipe.images_per_class))
    return data


def check_same_classes(run: Run, data: ImageData) -> None:
    """Raise InputError unless the data set's class list is the run's, in the same order."""
    theirs = tuple(data.classes)
    if theirs != run.classes:
        where = next((k for k, (a, b) in enumerate(zip(run.classes, theirs, strict=False)) if a != b), None)
        detail = (
            f"{len(theirs)} classes instead of {len(run.classes)}"
            if where is None
            else f"class {where} is {theirs[where]!r} instead of {run.classes[where]!r}"
        )
        raise InputError(f"{data.name} has other classes than {run.path} was trained with: {detail}")
