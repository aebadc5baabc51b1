"""The images of a run: its recipe by their number and size, its validation part, and the order of its classes."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from codedtool.data import load_dataset
from codedtool.errors import InputError
from codedtool.training.recipe import Recipe, recipe_for
from codedtool.training.run import Run
from codedtool.training.run_data import find_recipe
from codedtool.training.subject import opened_run
from codedtool.training.train import resume, train

CLASSES = ("dog", "cat", "ant")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Class folders without train and val: 12, 12 and 2 images of 8x8 pixels."""
    folder = tmp_path / "photos"
    for label, (name, number) in enumerate((("ant", 12), ("cat", 12), ("dog", 2))):
        (folder / name).mkdir(parents=True)
        for image in range(number):
            pixels = np.random.default_rng((label, image)).integers(0, 80, size=(8, 8, 3), dtype=np.uint8)
            pixels[..., label] += 170
            Image.fromarray(pixels).save(folder / name / f"{image}.png")
    return folder


def recipe_of(photos: Path, **values: object) -> Recipe:
    base = recipe_for(f"folder:{photos}", "small", side=8)
    own = {"preset": "resnext_tiny", "epochs": 1, "warmup_epochs": 0, "batch_size": 8, "split": 0.25, "device": "cpu"}
    return base.with_values({**own, **values})


@pytest.mark.filterwarnings("ignore:class 'cat' has")
def test_a_run_keeps_its_split_and_its_order_of_classes(photos: Path, tmp_path: Path) -> None:
    train(recipe_of(photos), {}, run_name="one", folder=tmp_path / "runs", classes=CLASSES)
    run = Run.load("one", folder=tmp_path / "runs")
    assert run.classes == CLASSES
    data = load_dataset(f"folder:{photos}", split=0.25)
    assert run.split_sha256 == data.split_sha256
    with opened_run(run) as subject:
        assert subject.classes == CLASSES
        assert np.array_equal(subject.data.val.images, data.val.images)
        assert [CLASSES[k] for k in subject.data.val.targets] == [data.classes[k] for k in data.val.targets]
    (photos / "cat" / "0.png").rename(photos / "cat" / "new.png")
    with opened_run(run) as subject, pytest.raises(InputError, match="its validation part is another one"):
        subject.data  # noqa: B018  # loads
    with pytest.raises(InputError, match="its validation part is another one"):
        resume(run)


def test_classes_of_very_different_size_are_warned_of_unless_balanced(photos: Path, tmp_path: Path) -> None:
    message = "class 'ant' has 9 training images and class 'dog' has 1: set `balanced`"
    with pytest.warns(UserWarning, match=message):
        train(recipe_of(photos), {}, folder=tmp_path / "runs")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(recipe_of(photos, balanced=True), {}, folder=tmp_path / "runs")


def test_a_split_beside_a_val_folder_has_no_effect_and_says_so(photos: Path, tmp_path: Path) -> None:
    for part in ("train", "val"):
        (tmp_path / "whole" / part).mkdir(parents=True)
        for name in ("ant", "cat"):
            (tmp_path / "whole" / part / name).symlink_to(photos / name)
    with pytest.warns(UserWarning, match="`split` has no effect: .* has a validation part of its own"):
        train(recipe_of(tmp_path / "whole"), {}, folder=tmp_path / "runs")


def test_the_recipe_of_a_folder_is_named_with_its_reason(photos: Path) -> None:
    recipe, line = find_recipe(f"folder:{photos}")
    assert (recipe.recipe, recipe.train_size, recipe.crop_padding) == ("small", 8, 1)
    assert line == "recipe small, trained at 8 px: fewer than 20,000 images of at most 64 px"
    assert find_recipe(f"folder:{photos}", "finetune")[0].recipe == "finetune"
    assert find_recipe("digits")[1] == "recipe digits: that of digits"
    assert find_recipe("folder:nowhere")[0] == recipe_for("folder:nowhere")
