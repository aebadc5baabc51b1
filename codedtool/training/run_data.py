"""The images that a run is trained and evaluated on."""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from codedtool.budget import Progress, silent
from codedtool.data import ImageData, load_dataset
from codedtool.data.split import Fingerprint
from codedtool.errors import InputError
from codedtool.files import absolute, expanded
from codedtool.training.recipe import Recipe
from codedtool.training.recipes import recipe_for, recipe_of_folder
from codedtool.training.run import Run
from codedtool.training.runtime import Runtime

# Data sets that lie in `Recipe.data_dir`.
_IN_DATA_DIR = ("cifar10", "cifar100")


def find_recipe(data: str, name: str | None = None) -> tuple[Recipe, str]:
    """Find the recipe of a data set; that of a folder follows the number and the size of its images.

    Args:
        data: cifar10, cifar100, folder:PATH, digits or synthetic:K.
        name: name of the recipe; None: the one that the data set calls for.

    Returns:
        The recipe with ``data`` in it, and one line for people that names it and the reason.

    Raises:
        InputError: as `recipe_for`.
    """
    kind, _, path = data.partition(":")
    survey = None
    if kind == "folder" and path:
        from codedtool.data.folder import survey_folder

        survey = survey_folder(expanded(path))
    if survey is None:
        recipe = recipe_for(data, name)
        return recipe, f"recipe {recipe.recipe}: " + ("as asked for" if name else f"that of {kind}")
    reason = f"as asked for, at the size of the images of {survey.side} px"
    if name is None:
        name, reason = recipe_of_folder(survey.num_images, survey.side)
    recipe = recipe_for(data, name, side=survey.side)
    return recipe, f"recipe {name}, trained at {recipe.train_size} px: {reason}"


def load_run_data(
    recipe: Recipe, runtime: Runtime, *, classes: Sequence[str] = (), download: bool, progress: Progress
) -> ImageData:
    """Load the data set of ``recipe``; rank 0 goes first, so that only one process downloads.

    Args:
        classes: class names of the run; a data set with the same classes is put into their order.
        download: fetch a data set that is missing.
        progress: called with the state of the work.

    Raises:
        InputError: as `codedtool.data.load_dataset`.
    """
    data = None
    if runtime.is_main:
        data = _load(recipe, download=download, progress=progress)
    runtime.barrier()
    if data is None:
        data = _load(recipe, download=False, progress=silent)
    return data.in_order(classes) if set(classes) == set(data.classes) else data


def _load(recipe: Recipe, *, download: bool, progress: Progress) -> ImageData:
    data = load_dataset(
        recipe.data,
        data_dir=Path(recipe.data_dir),
        download=download,
        skip_bad_images=recipe.skip_bad_images,
        split=recipe.split,
        split_seed=recipe.split_seed,
        progress=progress,
    )
    if recipe.images_per_class:
        data = dataclasses.replace(data, train=data.train.first_of_each_class(recipe.images_per_class))
    return data


def describe_data(recipe: Recipe, data: ImageData) -> dict[str, Any]:
    """Describe a data set for the config.json of its run: where it is, in absolute terms, and its fingerprint."""
    kind, _, path = recipe.data.partition(":")
    place = path if kind == "folder" else recipe.data_dir if kind in _IN_DATA_DIR else None
    return {
        "path": None if place is None else str(absolute(expanded(place))),
        "fingerprint": None if data.fingerprint is None else dataclasses.asdict(data.fingerprint),
    }


def load_data_of(run: Run, recipe: Recipe, runtime: Runtime, *, download: bool, progress: Progress) -> ImageData:
    """Load the data set of a run from any working folder, or the one that ``recipe`` names instead.

    The run's own data set is looked for where it was when the run was begun, then at its name in the working folder and
    beside the folder of the runs, so that a project folder may be moved whole.

    Args:
        recipe: the run's recipe, perhaps with another ``data`` or ``data_dir``.
        download, progress: as for `load_run_data`.

    Raises:
        InputError: the data set is not there; and as `load_run_data`.
    """
    recipe = _located(run, recipe)
    return load_run_data(recipe, runtime, classes=run.classes, download=download, progress=progress)


def _located(run: Run, recipe: Recipe) -> Recipe:
    """The recipe with the place where the data set is found now."""
    kind, _, rest = recipe.data.partition(":")
    if _is_named(run, recipe) or not (kind in _IN_DATA_DIR or (kind == "folder" and rest)):
        return recipe
    named = expanded(rest if kind == "folder" else recipe.data_dir)
    stored, _ = _stored(run)
    folder = absolute(run.path)
    # A run of a sweep lies one folder deeper than others.
    places = [*([Path(stored)] if stored else []), named, *(parent / named for parent in folder.parents[1:3])]
    # The run's folder, or one that it lies in, has the data set's name by chance: cifar10/run for the data set cifar10.
    around = {os.path.realpath(path) for path in (folder, *folder.parents)}
    found = next((place for place in places if os.path.isdir(place) and os.path.realpath(place) not in around), None)
    if found is None and kind == "folder":
        raise InputError(
            f"the data set of {run.path} is not there: no folder {stored or absolute(named)}; if it was moved, "
            "name it by `data` folder:PATH"
        )
    if found is None or os.path.realpath(found) == os.path.realpath(named):
        return recipe
    return recipe.with_values({"data": f"folder:{found}"} if kind == "folder" else {"data_dir": str(found)})


def data_dir_of(run: Run, recipe: Recipe) -> Path:
    """The folder of CIFAR for a run: the one that the run's own data set is found in, if it is a CIFAR."""
    own = recipe.data.partition(":")[0] in _IN_DATA_DIR
    return Path((_located(run, recipe) if own else recipe).data_dir)


def _is_named(run: Run, recipe: Recipe) -> bool:
    """Whether ``recipe`` names another data set, or another place, than the run's own recipe."""
    return (recipe.data, recipe.data_dir) != (run.recipe.data, run.recipe.data_dir)


def _stored(run: Run) -> tuple[str | None, Fingerprint | None]:
    """Place and fingerprint of the data set that the run was begun with; None each if an earlier version began it."""
    try:
        stored = run.origin()["data_set"]
        values = stored["fingerprint"]
        path = None if stored["path"] is None else str(stored["path"])
        return path, None if values is None else Fingerprint(**values)
    except (InputError, KeyError, TypeError):
        return None, None


def is_data_of_training(run: Run, data: ImageData) -> bool:
    """Whether a data set, by its fingerprint, is the one that a run was trained on; False if that is not known."""
    _, begun = _stored(run)
    return begun is not None and begun == data.fingerprint


def check_same_data(run: Run, recipe: Recipe, data: ImageData, *, resumed: bool = False) -> None:
    """Refuse a data set with other classes than the run's, and say so if it is not the one of the training.

    Args:
        run: the run, with the recipe that it was begun with.
        recipe: the recipe that named the data set.
        data: the data set, in the order of the run's classes.
        resumed: the run is trained further, so the number of images and the validation part must be the same too.

    Raises:
        InputError: other classes, another validation part, or other numbers of images where they must be the same.
    """
    theirs = tuple(data.classes)
    if theirs != run.classes:
        where = next((k for k, (a, b) in enumerate(zip(run.classes, theirs, strict=False)) if a != b), None)
        detail = (
            f"{len(theirs)} classes instead of {len(run.classes)}"
            if where is None
            else f"class {where} is {theirs[where]!r} instead of {run.classes[where]!r}"
        )
        raise InputError(f"{data.name} has other classes than the run {run.path}: {detail}")
    is_own = resumed or not _is_named(run, recipe)
    if run.split_sha256 and is_own and data.split_sha256 != run.split_sha256:
        raise InputError(
            f"the images of {data.name} are not those that {run.path} was begun with, so its validation part is "
            "another one (files were added, removed or renamed): restore them, or train again"
        )
    _, begun = _stored(run)
    now = data.fingerprint
    if begun is None or now is None or begun == now:
        return
    if (begun.num_train, begun.num_val) == (now.num_train, now.num_val):
        warnings.warn(
            f"{data.name} has as many images as the data set that {run.path} was trained on, but they are not the "
            "same: names or sizes of files, or pixels, differ",
            stacklevel=2,
        )
        return
    differences = (
        f"{data.name} has {now.num_train} training and {now.num_val} validation images, and {run.path} was begun with "
        f"{begun.num_train} and {begun.num_val}"
    )
    if resumed:
        raise InputError(f"{differences}: name the same data set by `data`, or begin a new run")
    warnings.warn(f"{differences}: it is not the data set of the training", stacklevel=2)
