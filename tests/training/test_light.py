"""A light copy of a run says what the run says, and names nothing of its machine."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from codedtool.cli import app
from codedtool.errors import InputError
from codedtool.training.light import light_copy
from codedtool.training.run import Run
from tests.runs import copy_of


@pytest.fixture
def run(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The coded run, as if it had been trained on a folder of images."""
    copy_of(trained, tmp_path)
    config = tmp_path / "runs" / "coded" / "config.json"
    document = json.loads(config.read_text())
    document["recipe"] |= {"data": "folder:/home/me/photos", "data_dir": "/home/me"}
    document |= {"command": "codedtool train --data folder:/home/me/photos", "init": {"from": "/home/me/runs/plain"}}
    document["data_set"] = {"path": "/home/me/photos", "fingerprint": {"num_train": 1433, "num_val": 364}}
    config.write_text(json.dumps(document))
    (tmp_path / "runs" / "coded" / "analysis").mkdir()
    (tmp_path / "runs" / "coded" / "analysis" / "eval.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    return Run.load("coded")


def codedtool(*arguments: str, code: int = 0) -> str:
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == code, done.output
    return done.stdout if code == 0 else " ".join(done.stderr.split())


def test_it_holds_what_the_commands_need_and_no_path_of_the_machine(run: Run, tmp_path: Path) -> None:
    copy = light_copy(run)
    assert copy.path == run.path / "export" / "run"
    files = sorted(file for file in copy.path.rglob("*") if file.is_file())
    assert copy.bytes == sum(file.stat().st_size for file in files)
    assert {file.name for file in files} == {
        *("config.json", "classes.json", "metrics.csv", "metrics.jsonl", "index.json"),
        *("s2.npy", "s2.json", "s3.npy", "s3.json", "weights.safetensors", "evidence.json", "manifest.json"),
    }
    assert not any(b"/home" in file.read_bytes() for file in files)
    light = Run.load(copy.path)
    assert light.recipe == run.recipe.with_values({"data": "folder:photos", "data_dir": "data"})
    assert light.origin()["data_set"] == {"fingerprint": run.origin()["data_set"]["fingerprint"]}
    assert light.metrics() == run.metrics()
    assert light.checkpoints.index() == {"last": copy.checkpoint, "best": copy.checkpoint}
    assert copy.checkpoint == run.checkpoints.index()["best"]
    assert str(light.load_network("last").state_dict()) == str(run.load_network("best").state_dict())


def test_the_commands_say_of_the_copy_what_they_say_of_the_run(run: Run) -> None:
    Image.fromarray(np.full((8, 8), 90, np.uint8)).save("image.png")
    said = json.loads(codedtool("export", "--run", "coded", "--format", "run", "--out", "light", "--json", "-q"))
    assert said == {
        "path": "light",
        "kind": "run",
        "bytes": said["bytes"],
        "checkpoint": run.checkpoints.index()["best"],
    }
    ask = ("predict", "image.png", "--json", "-q", "--run")
    assert codedtool(*ask, "light") == codedtool(*ask, "coded")
    assert "confidence" in codedtool(*ask, "light")
    message = codedtool("train", "--resume", "--run-name", "light", "--data", "digits", "-q", code=2)
    assert "its run is a light copy; begin a new run with its weights by --init" in message
    begun = "--epochs 1 --images-per-class 13 --init light --run-name new --device cpu -q"
    codedtool("train", "--scheme", "c10_5of10", "--data", "digits", "--preset", "coded_resnext_tiny", *begun.split())
    assert Run.load("new").origin()["init"]["drawn_anew"] == []


def test_only_a_light_copy_is_replaced(run: Run, tmp_path: Path) -> None:
    copy = light_copy(run, tmp_path / "light")
    with pytest.raises(InputError, match="exists already"):
        light_copy(run, copy.path)
    assert light_copy(run, copy.path, force=True) == copy
    before = sorted(run.path.rglob("*"))
    for taken in (run.path, run.path / "config.json", tmp_path):
        with pytest.raises(InputError, match="`force` replaces only an earlier light copy"):
            light_copy(run, taken, force=True)
    assert sorted(run.path.rglob("*")) == before
    assert "give one of the two" in codedtool("export", "--bc", "x.safetensors", "--format", "run", code=2)


def test_a_damaged_checkpoint_leaves_nothing(run: Run, tmp_path: Path) -> None:
    for weights in run.path.glob("checkpoints/*/weights.safetensors"):
        weights.write_bytes(weights.read_bytes()[:-1])
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match="is damaged"):
        light_copy(run, tmp_path / "new" / "light")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_plain_network_s_run_is_copied_too(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy_of(trained, tmp_path)
    monkeypatch.chdir(tmp_path)
    plain = Run.load("plain")
    light = Run.load(light_copy(plain).path)
    assert light.metrics() == plain.metrics()
    assert not light.load_network("last").schemes
