"""A run that left its training machine, as a user meets it: its data set was moved, or is not there at all."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from codedtool.cli import app
from codedtool.coding.scheme import CodingScheme

SCHEMES = {
    "k3_5of10": ("0000011111", "0111100001", "1110011000"),
    "k3_3of10": ("0000000111", "0000111000", "1110000000"),
}


def codedtool(*arguments: str | Path, code: int = 0) -> Result:
    done = CliRunner().invoke(app, [*map(str, arguments)])
    assert done.exit_code == code, done.output
    return done


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the run "run", and with its images in "moved" instead of where the run was trained on them."""
    folder = tmp_path_factory.mktemp("left")
    for name, words in SCHEMES.items():
        table = np.array([[int(digit) for digit in word] for word in words], dtype=np.uint8)
        CodingScheme(table).save(folder / f"{name}.npy")
    for label, name in enumerate(("cat", "dog", "bird")):
        for part, number in (("train", 6), ("val", 2)):
            (folder / "there" / part / name).mkdir(parents=True)
            for image in range(number):
                pixels = np.random.default_rng((label, image)).integers(0, 90, (8, 8, 3), dtype=np.uint8)
                pixels[..., label] += 160
                Image.fromarray(pixels).save(folder / "there" / part / name / f"{image}.png")
    short = "--preset coded_resnext_tiny --epochs 1 --batch-size 6 --train-size 8 --eval-size 8 --num-workers 0 -q"
    schemes = [text for name in SCHEMES for text in ("--scheme", folder / f"{name}.npy")]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        codedtool("train", *schemes, *short.split(), "--data", "folder:there", "--device", "cpu", "--run-name", "one")
    shutil.move(folder / "there", folder / "moved")
    shutil.move(folder / "runs" / "one", folder / "run")
    return folder


@pytest.fixture
def run(left: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the run, which the test may write to; the working folder is another one."""
    shutil.copytree(left / "run", tmp_path / "run")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "run"


def test_a_data_set_that_was_moved_is_named_for_every_verb_that_reads_images(run: Path, left: Path) -> None:
    image, data = left / "moved" / "val" / "cat" / "0.png", f"folder:{left / 'moved'}"
    said = codedtool("eval", "--run", run, "-q", code=2).stderr
    assert "if it was moved, name it by --data folder:PATH" in " ".join(said.split())
    codedtool("eval", "--run", run, "--data", data, "-q")
    codedtool("decode", "--run", run, "--data", data, "-q")
    (answer,) = json.loads(codedtool("predict", image, "--run", run, "--data", data, "--json", "-q").stdout)
    assert answer["class_name"] in ("cat", "dog", "bird")
    assign = ("scheme", "assign", "--scheme", left / "k3_5of10.npy", "--similarity", run, "--out", "ordered.npy", "-q")
    codedtool(*assign, code=2)
    codedtool(*assign, "--data", data)
    record = json.loads(Path("ordered.json").read_text())
    assert record["upper_bound"] == record["certificate"]["at_min_distance"]["best"] >= 3
    codedtool("verify", "ordered.npy")
    np.save("matrix.npy", np.ones((3, 3)))
    beside = codedtool(*assign[:4], "--similarity", "matrix.npy", "--data", data, code=2).stderr
    assert "--data has no effect beside a --similarity that is a matrix" in " ".join(beside.split())
    assert json.loads((run / "config.json").read_text())["versions"].keys() >= {"codedtool", "torch"}
    resumed = codedtool("train", "--resume", "--run-name", run, "--data", data, "-q")
    assert "3 classes, 18 training images and 6 validation images" in resumed.stdout
    shutil.copytree(left / "moved", run.parent / "more")
    shutil.copy(image, run.parent / "more" / "val" / "cat" / "more.png")
    more = f"folder:{run.parent / 'more'}"
    said = codedtool("train", "--resume", "--run-name", run, "--data", more, "-q", code=2).stderr
    assert "has 18 training and 7 validation images" in " ".join(said.split())
    assert "name the same data set by --data" in " ".join(said.split())
    said = codedtool("eval", "--run", run, "--data", more, "-q").stderr
    assert "warning: " in said
    assert "it is not the data set of the training" in " ".join(said.split())


def write_classifier(run: Path, left: Path) -> None:
    data = f"folder:{left / 'moved'}"
    codedtool("bc", "--run", run, "--class", "dog", "--data", data, "--out", "dog.safetensors", "-q")


def test_cost_and_answers_need_no_data_set(run: Path, left: Path) -> None:
    image = left / "moved" / "val" / "dog" / "0.png"
    write_classifier(run, left)
    codedtool("predict", image, "--bc", "dog.safetensors", "-q")
    (answer,) = json.loads(codedtool("predict", image, "--run", run, "--json", "-q").stdout)
    assert 0 < answer["confidence"] < 1, "it comes from the statistics that the training stored with the run"
    codedtool("cost", "--run", run, "-q")


@pytest.mark.slow
def test_exports_need_no_data_set(run: Path, left: Path) -> None:
    write_classifier(run, left)
    codedtool("export", "--run", run, "--format", "torch", "--out", "model.pt2", "-q")
    codedtool("export", "--bc", "dog.safetensors", "--format", "torch", "--out", "dog.pt2", "-q")
