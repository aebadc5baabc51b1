"""Train a run, or continue one: the functions behind ``codedtool train``."""

from __future__ import annotations

import dataclasses
import time
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from codedtool.budget import Budget, Progress, silent
from codedtool.coding.scheme import CodingScheme
from codedtool.data import ImageData, check_num_classes, choose_crop_part
from codedtool.errors import InputError
from codedtool.files import locked
from codedtool.training.checkpoint import Checkpoint, Which
from codedtool.training.devices import device_kind, for_this_machine, launch, needs_launch, opened_runtime
from codedtool.training.init import InitialWeights, initial_weights
from codedtool.training.loop import Trainer
from codedtool.training.memory import fit_micro_batch
from codedtool.training.precision import as_begun, with_precision
from codedtool.training.recipe import Recipe
from codedtool.training.run import DEFAULT_FOLDER, Run, latest_name
from codedtool.training.run_data import check_same_data, describe_data, load_data_of, load_run_data
from codedtool.training.runtime import Runtime
from codedtool.training.settings import ignored
from codedtool.training.stages import permuted
from codedtool.training.sync_bn import synchronize_batch_norm
from codedtool.training.totals import all_finite
from codedtool.versions import versions_of

# Classes that differ more than this many times in size are warned of.
_UNEVEN = 5


@dataclass(frozen=True)
class TrainResult:
    """Result of a finished training.

    Attributes:
        run: the trained run.
        epochs: number of epochs trained in all.
        best_accuracy: highest validation accuracy after any epoch, 0..1.
        last: the last row of the metrics.
        seconds: duration of this call.
    """

    run: Run
    epochs: int
    best_accuracy: float
    last: dict[str, Any]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return the result as plain JSON types."""
        return {
            "run": str(self.run.path),
            "epochs": self.epochs,
            "best_accuracy": self.best_accuracy,
            "last": self.last,
            "seconds": round(self.seconds, 3),
        }


def train(
    recipe: Recipe,
    schemes: Mapping[str, CodingScheme],
    *,
    run_name: str | None = None,
    folder: Path = DEFAULT_FOLDER,
    init: str | None = None,
    download: bool = True,
    provenance: Mapping[str, Any] | None = None,
    given: Collection[str] = (),
    classes: Sequence[str] = (),
    budget: Budget | None = None,
    progress: Progress = silent,
    tell: Callable[[str], None] | None = None,
    tell_epoch: Callable[[str], None] | None = None,
) -> TrainResult:
    """Begin a run and train it to its last epoch (section 4.1).

    A run that fails before its first checkpoint is removed, and the latest run stays the one that it was. A batch
    larger than the training set is reduced to it. One step is tried first: if memory does not suffice, the images per
    forward pass (``recipe.micro_batch``) are reduced. Both are said in a warning and stored with the run.

    Args:
        recipe: every value of the training; ``recipe.preset`` must name an architecture.
        schemes: stage -> its coding scheme, before the recipe's permutation; stages without a scheme are plain.
        run_name: name of the new run; None: the data set's name and a number.
        folder: folder of all runs.
        init: the weights to begin with: a run, a file with a state dict, or the word torchvision (see
            `codedtool.training.pretrained.read_source`); None: random weights.
        download: fetch a data set, or torchvision's weights, that are missing.
        provenance: plain JSON types to be stored in the run's config.json.
        given: keys of the recipe that the user set; a learning rate among them is not scaled with a reduced batch.
        classes: every class of the data set, in the order of the schemes' rows; empty: the data set's own order.
        budget: when it asks to stop, a checkpoint is saved and `Interrupted` raised.
        progress: called with the state of the work.
        tell: called on rank 0 with every line about what was decided before the training, such as the weights taken.
        tell_epoch: called on rank 0 with one line for people after every epoch.

    Raises:
        InputError: bad data, a scheme or initial weights that do not fit, a run name that is taken, or a full disk.
        OutOfMemoryError: memory does not suffice for the smallest step.
        DivergedError: the loss is not finite.
        Interrupted: ``budget`` asked to stop; `resume` continues the run.
    """
    recipe, about_precision = with_precision(recipe, device_kind(recipe))
    if needs_launch(recipe):
        start = time.monotonic()
        launch(_train_child, recipe, schemes, run_name, folder, init, download, provenance, given, classes)
        return _result_of(Run.load(run_name, folder=folder), start)
    with opened_runtime(recipe, is_training=True) as runtime:
        _check_same_precision(recipe, runtime)
        if about_precision is not None and tell is not None and runtime.is_main:
            tell(about_precision)
        data = load_run_data(recipe, runtime, download=download, progress=progress)
        if classes:
            data = data.in_order(classes)
        if runtime.is_main:
            _tell_data(data, tell)
            _warn_of_data(recipe, data)
        for scheme in schemes.values():
            check_num_classes(data, scheme.num_classes)
        schemes = permuted(schemes, recipe.permutation)
        initial = None
        if init is not None:
            initial = initial_weights(init, recipe, schemes, data, runtime, folder=folder, download=download)
            provenance = {**(provenance or {}), "init": initial.to_json()}
            if tell is not None and runtime.is_main:
                for line in initial.lines():
                    tell(line)
        asked = recipe
        recipe = _fitted_to_data(recipe, data, given, runtime)
        draft = Run(folder, recipe, schemes, data.classes, data.normalization)
        recipe = fit_micro_batch(recipe, draft.build_network, runtime)
        latest = latest_name(folder)
        run = None
        if runtime.is_main:
            run = Run.create(
                recipe,
                schemes,
                data.classes,
                data.normalization,
                name=run_name,
                folder=folder,
                provenance={
                    **(provenance or {}),
                    "versions": versions_of("torch", "torchvision", "timm", "numpy"),
                    "data_set": describe_data(recipe, data),
                },
                adjusted={key: old for key, (old, _) in asked.differences(recipe, only_result=True).items()},
                split_sha256=data.split_sha256,
                crop_part=choose_crop_part(data.val, recipe.eval_size),
            )
        run = Run.load(runtime.share(None if run is None else run.name), folder=folder)
        try:
            with _alone(run, runtime):
                return _fit(
                    run,
                    data,
                    runtime,
                    None,
                    initial,
                    budget=budget or Budget(),
                    progress=progress,
                    tell_epoch=tell_epoch,
                )
        except BaseException:
            # A checkpoint whose index cannot be read is kept, and this error stays the one that is told.
            with suppress(InputError):
                if runtime.is_main and not run.checkpoints.index():
                    run.discard(latest)
            raise


def resume(
    run: Run,
    *,
    checkpoint: Which = "last",
    changes: Mapping[str, Any] | None = None,
    download: bool = True,
    budget: Budget | None = None,
    progress: Progress = silent,
    tell: Callable[[str], None] | None = None,
    tell_epoch: Callable[[str], None] | None = None,
) -> TrainResult:
    """Continue an interrupted run; the result is bit-identical to an uninterrupted one, on CUDA up to rounding.

    A run without any checkpoint starts from its beginning.

    Args:
        run: the run to continue.
        checkpoint: last, previous or best; checkpoints after it are dropped.
        changes: recipe values to change. Only values that cannot change the result are allowed (device, workers, ...),
            and ``data`` for a data set that was moved.
            ``precision`` auto keeps the precision that the run was begun with.
        download, budget, progress, tell, tell_epoch: as for `train`.

    Raises:
        InputError: a change of a value that decides the result, a damaged checkpoint (the message names an intact
            one), or a data set with other classes or another number of images; and as `train`.
        DivergedError, Interrupted: as `train`.
    """
    recipe = for_this_machine(as_begun(run.recipe.with_values(changes or {}), run.recipe), changes or {})
    for key, (new, old) in recipe.differences(run.recipe, only_result=True).items():
        if key == "data":  # compared with the run's when it is loaded
            continue
        raise InputError(
            f"`{key}` {new!r} cannot change when {run.path} is resumed: the run was begun with {old!r}; "
            f"leave `{key}` out or begin a new run" + _way_on(run, key)
        )
    begun, run = run, dataclasses.replace(run, recipe=recipe)
    if needs_launch(recipe):
        start = time.monotonic()
        launch(_resume_child, begun, checkpoint, changes, download)
        return _result_of(run, start)
    with opened_runtime(recipe, is_training=True) as runtime, _alone(run, runtime):
        data = load_data_of(begun, recipe, runtime, download=download, progress=progress)
        check_same_data(begun, recipe, data, resumed=True)
        if runtime.is_main:
            _tell_data(data, tell)
        found = run.checkpoints.load(checkpoint) if run.checkpoints.index() else None
        initial = None if found is not None else _initial_again(run, data, runtime, download=download)
        runtime.barrier()
        if found is not None:
            run.check_metadata(found.metadata, f"checkpoint {run.checkpoints.folder / found.name}")

        def begin() -> None:
            if found is not None:
                run.checkpoints.rewind(checkpoint)
            run.make_latest()

        return _fit(
            run,
            data,
            runtime,
            found,
            initial,
            begin=begin,
            budget=budget or Budget(),
            progress=progress,
            tell_epoch=tell_epoch,
        )


def _alone(run: Run, runtime: Runtime) -> AbstractContextManager[None]:
    """The context of a training, in which no other process trains the run: both would remove checkpoints."""
    if not runtime.is_main:
        return nullcontext()
    return locked(run.path, f"{run.path} is being trained by another process: wait for its end, or begin a new run")


def _check_same_precision(recipe: Recipe, runtime: Runtime) -> None:
    """Raise InputError on a rank whose machine chose another precision than rank 0's."""
    first = runtime.share(recipe.precision)
    if first != recipe.precision:
        raise InputError(
            f"`precision` auto is {first} on rank 0 and {recipe.precision} on rank {runtime.rank}; name one"
        )


def _way_on(run: Run, key: str) -> str:
    """Say how to train a run for more epochs: the cosine schedule of the first training has ended."""
    return f" with its weights: `init` {run.name}" if key == "epochs" else ""


def _tell_data(data: ImageData, tell: Callable[[str], None] | None) -> None:
    """Say what is trained on, before it starts: files that were left out by mistake are seen here."""
    if tell is not None:
        for line in data.lines():
            tell(line)


def _warn_of_data(recipe: Recipe, data: ImageData) -> None:
    """Warn if a split was asked for and not needed, and if classes differ much in size and are not balanced."""
    if recipe.split and not data.split_sha256:
        ignored(f"`split` has no effect: {data.name} has a validation part of its own")
    counts = np.bincount(data.train.targets, minlength=len(data.classes))
    fewest, most = int(counts.argmin()), int(counts.argmax())
    if not recipe.balanced and counts[most] > _UNEVEN * counts[fewest]:
        warnings.warn(
            f"class {data.classes[most]!r} has {counts[most]} training images and class {data.classes[fewest]!r} has "
            f"{counts[fewest]}: set `balanced` to draw every class equally often",
            stacklevel=3,
        )


def _fitted_to_data(recipe: Recipe, data: ImageData, given: Collection[str], runtime: Runtime) -> Recipe:
    """Reduce a batch that is larger than the training set, and the learning rate with it unless it was given."""
    num_images = len(data.train)
    if recipe.batch_size <= num_images:
        return recipe
    changes: dict[str, Any] = {"batch_size": num_images}
    if "lr" not in given:
        changes["lr"] = recipe.lr * num_images / recipe.batch_size
    if runtime.is_main:
        rate = f" and a learning rate of {changes['lr']:.4g}" if "lr" in changes else ""
        warnings.warn(
            f"`batch_size` {recipe.batch_size} is more than the {num_images} training images: batches of {num_images}"
            f"{rate} are used",
            stacklevel=3,
        )
    return recipe.with_values(changes)


def _train_child(
    recipe: Recipe,
    schemes: Mapping[str, CodingScheme],
    run_name: str | None,
    folder: Path,
    init: str | None,
    download: bool,
    provenance: Mapping[str, Any] | None,
    given: Collection[str],
    classes: Sequence[str],
) -> None:
    train(
        recipe,
        schemes,
        run_name=run_name,
        folder=folder,
        init=init,
        download=download,
        provenance=provenance,
        given=given,
        classes=classes,
    )


def _resume_child(run: Run, checkpoint: Which, changes: Mapping[str, Any] | None, download: bool) -> None:
    resume(run, checkpoint=checkpoint, changes=changes, download=download)


def _result_of(run: Run, start: float) -> TrainResult:
    """Read the result of a training that other processes have done from the files of its run."""
    history = run.metrics()
    return TrainResult(
        run=run,
        epochs=len(history),
        best_accuracy=max(row["val_accuracy"] for row in history),
        last=history[-1],
        seconds=time.monotonic() - start,
    )


def _initial_again(run: Run, data: ImageData, runtime: Runtime, *, download: bool) -> InitialWeights | None:
    """Read the initial weights of a run that has no checkpoint yet; None: it begins with random weights.

    Raises:
        InputError: the source of the weights is gone, or is not the one that the run was begun with.
    """
    begun = run.origin().get("init")
    if begun is None:
        return None
    initial = initial_weights(
        begun["from"], run.recipe, run.schemes, data, runtime, folder=run.path.parent, download=download
    )
    if initial.sha256 != begun["sha256"]:
        raise InputError(
            f"{run.path} has no checkpoint, and {initial.source} has other weights than when the run was begun; begin "
            "a new run"
        )
    return initial


def _fit(
    run: Run,
    data: ImageData,
    runtime: Runtime,
    found: Checkpoint | None,
    initial: InitialWeights | None,
    *,
    begin: Callable[[], object] = lambda: None,
    budget: Budget,
    progress: Progress,
    tell_epoch: Callable[[str], None] | None,
) -> TrainResult:
    """Build network and trainer, give them initial weights or a checkpoint's state if there are any, and train.

    ``begin`` is called on rank 0 once a checkpoint's state has been taken; the run's index and the file
    latest are as they were before.
    """
    start = time.monotonic()
    network = run.build_network()
    if initial is not None:
        initial.apply(network, data, run.normalization, run.recipe, runtime, progress=progress)
    if run.recipe.sync_bn and runtime.world_size > 1:
        synchronize_batch_norm(network)
    prepared = runtime.prepare(network)
    trainer = Trainer(run, network, prepared, data, runtime, budget=budget, progress=progress, tell_epoch=tell_epoch)
    if found is not None:
        try:
            trainer.restore(found.weights, found.state)
        except (AttributeError, KeyError, IndexError, RuntimeError, TypeError, ValueError) as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise InputError(
                f"checkpoint {run.checkpoints.folder / found.name} does not continue this run ({reason[:300]}); name "
                "another `checkpoint`"
            ) from None
        # None is ever saved: the file was changed.
        if not all_finite([tensor for state in (network, trainer.evaluated) for tensor in state.state_dict().values()]):
            raise InputError(
                f"checkpoint {run.checkpoints.folder / found.name} is damaged: its weights are not finite; name "
                "another `checkpoint`"
            )
    with trainer.budget.watched():
        if runtime.is_main:
            run.write_metrics(trainer.history)
            begin()
        trainer.fit()
    return TrainResult(
        run=run,
        epochs=trainer.epoch,
        best_accuracy=trainer.best_accuracy,
        last=trainer.history[-1],
        seconds=time.monotonic() - start,
    )
