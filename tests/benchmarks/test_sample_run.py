"""The trained run that comes with the clone: whole, small, and ready to predict."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
from PIL import Image
from typer.testing import CliRunner

from codedtool.cli import app
from codedtool.training.run import Run
from tests.paths import ROOT

RUN = ROOT / "benchmarks" / "cifar10" / "run"


def test_it_is_small_and_names_no_machine() -> None:
    files = sorted(file for file in RUN.rglob("*") if file.is_file())
    assert sum(file.stat().st_size for file in files) < 5e6
    assert not [file for file in files if file.suffix in (".pt", ".pth", ".pkl")]
    run = Run.load(RUN)
    assert run.recipe.data == "folder:cifar10"
    assert "command" not in run.origin()
    assert len(run.classes) == 10
    # The page says how accurate it is.
    accuracy = 100 * run.metrics()[-1]["val_accuracy"]
    assert f"{accuracy:.2f}%" in (RUN.parent / "README.md").read_text()


def test_it_predicts_at_once(tmp_path: Path) -> None:
    # A white disc above blue, in a photo's size.
    height, width = np.mgrid[:240, :320]
    pixels = np.zeros((240, 320, 3), np.uint8)
    pixels[..., 2] = 120 + height // 3
    pixels[(height - 90) ** 2 + (width - 160) ** 2 < 2500] = 255
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    done = CliRunner().invoke(app, ["predict", str(tmp_path / "photo.png"), "--run", str(RUN), "--json", "-q"])
    assert done.exit_code == 0, done.output
    (answer,) = json.loads(done.stdout)
    assert answer["class_name"] in Run.load(RUN).classes
    assert 0 < answer["confidence"] < 1


def test_noise_is_unlike_the_training_images_and_the_last_line_says_by_what(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    done = CliRunner().invoke(app, ["predict", str(tmp_path / "noise.png"), "--run", str(RUN), "-q"])
    assert done.exit_code == 0, done.output
    first, *_, last = done.stdout.splitlines()
    assert first.endswith("; unlike the training images")
    numbers = re.findall(r"energy score (\S+) \(usual: (\S+) to (\S+)\)", last)
    assert len(numbers) == 1
    distances = re.findall(r"codeword distance in s\d\.\d (\S+) \(usual: up to (\S+)\)", last)
    assert distances
    assert all(float(distance) > float(usual) for distance, usual in distances)
