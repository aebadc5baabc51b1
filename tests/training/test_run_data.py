"""The images of a run: its recipe by their number and size, its validation part, and the order of its classes."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from codedtool.data import load_dataset
from codedtool.errors import InputError
from codedtool.training.recipe import Recipe
from codedtool.training.recipes import recipe_for
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


@pytest.fixture
def project(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with the class folders in data/train and data/val, and a run that names them by data."""
    folder = tmp_path / "project"
    for part in ("train", "val"):
        shutil.copytree(photos, folder / "data" / part)
    monkeypatch.chdir(folder)
    train(recipe_of(Path("data"), split=0.0, balanced=True), {}, run_name="one")
    return folder


def number_of_images(run: Run, **changes: object) -> int:
    with opened_run(run, changes=changes) as subject:
        return len(subject.data.train)


def test_a_run_finds_its_data_from_any_working_folder_and_in_a_project_that_was_moved(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = Run.load("one").origin()["data_set"]
    assert stored["path"] == str(project / "data")
    assert (stored["fingerprint"]["num_train"], stored["fingerprint"]["num_val"]) == (26, 26)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert number_of_images(Run.load(project / "runs" / "one")) == 26
        project.rename(tmp_path / "moved")
        assert number_of_images(Run.load("../moved/runs/one")) == 26
        monkeypatch.chdir(tmp_path / "moved")
        assert number_of_images(Run.load("one")) == 26


def test_a_folder_that_the_run_lies_in_is_not_its_data_set(project: Path, tmp_path: Path) -> None:
    moved = tmp_path / "data" / "one"
    shutil.copytree(project / "runs" / "one", moved)
    shutil.rmtree(project)
    with pytest.raises(InputError, match="the data set of .* is not there"):
        number_of_images(Run.load(moved))


def test_a_data_set_that_was_moved_is_named_for_analyses_and_for_resuming(project: Path, tmp_path: Path) -> None:
    run, moved = Run.load("one"), {"data": f"folder:{tmp_path / 'moved'}"}
    (project / "data").rename(tmp_path / "moved")
    for work in (lambda: number_of_images(run), lambda: resume(run)):
        with pytest.raises(InputError, match="the data set of runs/one is not there: no folder .*/data; .* by `data`"):
            work()
    said: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert number_of_images(run, **moved) == 26
        assert resume(run, changes=moved, tell=said.append).epochs == 1
    assert said[0].startswith(f"data {moved['data']}: 3 classes, 26 training images and 26 validation images; smallest")
    assert Run.load("one").recipe.data == "folder:data"


def test_another_data_set_is_told_from_the_runs_own(project: Path, tmp_path: Path) -> None:
    run, data = Run.load("one"), project / "data"
    Image.new("RGB", (8, 8)).save(data / "train" / "ant" / "0.png")
    for work in (lambda: number_of_images(run), lambda: resume(run).epochs):
        with pytest.warns(
            UserWarning, match="has as many images as the data set that runs/one was trained on, but they"
        ):
            assert work() in (26, 1)
    shutil.copy(data / "train" / "ant" / "0.png", data / "train" / "ant" / "more.png")
    differences = "folder:data has 27 training and 26 validation images, and runs/one was begun with 26 and 26"
    with pytest.warns(UserWarning, match=f"{differences}: it is not the data set of the training"):
        assert number_of_images(run) == 27
    with pytest.raises(InputError, match=f"{differences}: name the same data set by `data`, or begin a new run"):
        resume(run)
    for part in ("train", "val"):
        (data / part / "cat").rename(data / part / "cow")
    for work in (lambda: number_of_images(run), lambda: resume(run)):
        with pytest.raises(InputError, match="other classes than the run runs/one: class 1 is 'cow' instead of 'cat'"):
            work()


def test_a_run_of_an_earlier_version_reads_its_data_as_before(project: Path) -> None:
    config = project / "runs" / "one" / "config.json"
    document = json.loads(config.read_text())
    for broken in ({"data_set": None}, {"data_set": {"path": 7}}, {}):
        config.write_text(json.dumps({key: document[key] for key in document if key != "data_set"} | broken))
        assert number_of_images(Run.load("one")) == 26


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
