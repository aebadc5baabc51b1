"""The images that a run is trained and evaluated on."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from codedtool.budget import Progress, silent
from codedtool.data import ImageData, load_dataset
from codedtool.errors import InputError
from codedtool.files import expanded
from codedtool.training.recipe import Recipe, recipe_for, recipe_of_folder
from codedtool.training.run import Run
from codedtool.training.runtime import Runtime


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


def check_same_classes(run: Run, data: ImageData) -> None:
    """Raise InputError unless the data set has the run's classes, in the same order, and the run's validation part."""
    theirs = tuple(data.classes)
    if theirs != run.classes:
        where = next((k for k, (a, b) in enumerate(zip(run.classes, theirs, strict=False)) if a != b), None)
        detail = (
            f"{len(theirs)} classes instead of {len(run.classes)}"
            if where is None
            else f"class {where} is {theirs[where]!r} instead of {run.classes[where]!r}"
        )
        raise InputError(f"{data.name} has other classes than the run {run.path}: {detail}")
    if run.split_sha256 and data.name == run.recipe.data and data.split_sha256 != run.split_sha256:
        raise InputError(
            f"the images of {data.name} are not those that {run.path} was begun with, so its validation part is "
            "another one (files were added, removed or renamed): restore them, or train again"
        )
