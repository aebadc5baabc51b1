"""``bc``, ``decode``, ``cost`` and ``predict`` as a user meets them, on runs of the real digits."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from codedtool.cli import app
from codedtool.data import load_dataset
from codedtool.training.evidence import Evidence
from codedtool.training.run import Run
from tests.paths import SCHEMES
from tests.runs import copy_of

# One thread: other tests share the cores.
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}

# Seconds go into starting processes: most commands run in this one.
RUNNER = CliRunner()


def fresh(cwd: Path, *arguments: str) -> str:
    """What a command prints on stdout, in a process of its own."""
    command = [sys.executable, "-m", "codedtool", *arguments]
    finished = subprocess.run(
        command, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, timeout=600, check=False
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def run(cwd: Path, *arguments: str) -> Result:
    with contextlib.chdir(cwd):
        return RUNNER.invoke(app, arguments)


def done(cwd: Path, *arguments: str) -> str:
    finished = run(cwd, *arguments)
    assert finished.exit_code == 0, finished.stderr
    return finished.stdout


def refused(cwd: Path, *arguments: str) -> str:
    """The one message of a command that ends with exit code 2, its spaces made one."""
    finished = run(cwd, *arguments)
    assert finished.exit_code == 2, finished.output
    # CliRunner would keep what is no message of the program as an exception.
    assert isinstance(finished.exception, SystemExit)
    assert finished.stderr.count("error:") == 1
    return " ".join(finished.stderr.split())


def files_of(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


class House(NamedTuple):
    """A folder with a coded and a plain run, and what the commands printed there."""

    path: Path
    everything: dict[str, Any]
    three: dict[str, Any]
    decoded: dict[str, Any]
    cost: str
    predicted: list[dict[str, Any]]
    binary: list[dict[str, Any]]

    @property
    def coded(self) -> Path:
        return self.path / "runs" / "coded"

    def artifact(self, name: str) -> Path:
        return self.coded / "analysis" / name

    def rows(self, name: str) -> list[dict[str, str]]:
        with self.artifact(name).open() as stream:
            return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def house(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> House:
    """The commands, once each, where a user would type them."""
    # In this process PyTorch's idle threads may spin, which costs far more than they bring.
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("house")
    (folder / "schemes").mkdir()
    for name in ("c10_5of10.npy", "c10_3of10.npy"):
        shutil.copy(SCHEMES / name, folder / "schemes" / name)
    copy_of(trained, folder)
    # The first validation image of each digit.
    val = load_dataset("digits", data_dir=folder).val
    for digit in range(10):
        Image.fromarray(val.images[list(val.targets).index(digit)]).save(folder / f"digit{digit}.png")
    coded = ("--run", "coded", "--quiet")
    images = [f"digit{digit}.png" for digit in range(10)]
    everything = done(folder, "bc", "--class", "all", "--compare", "plain", *coded, "--json")
    three = fresh(folder, "bc", "--class", "3", *coded, "--json")
    decoded = done(folder, "decode", "--exit", "agree:2", "--exit", "margin:0.25", *coded, "--json")
    costs = done(folder, "cost", *coded)
    predicted = done(folder, "predict", *images, *coded, "--json")
    binary = fresh(folder, "predict", *images, "--bc", "runs/coded/bc/3.safetensors", "--json")
    loaded = (json.loads(text) for text in (everything, three, decoded))
    return House(folder, *loaded, costs, json.loads(predicted), json.loads(binary))


def test_bc_of_all_classes_gives_a_table_against_every_baseline(house: House) -> None:
    document = house.everything
    sources = ["coded BC", "coded network's logit", "plain BC", "plain network's logit"]
    assert [row["source"] for row in document["means"]] == sources
    assert [row["class"] for row in document["classifiers"]] == list("0123456789") * 4
    assert (document["ood"], document["negatives_per_positive"]) == (None, None)
    assert document["skipped"] == ["out-of-distribution negatives: no data set `ood` was given"]
    assert document["cost"]["networks"][2]["name"] == "binary classifier of 0"
    for row in document["means"]:
        mine = [one["val_f1"] for one in document["classifiers"] if one["source"] == row["source"]]
        assert row["val_f1"] == pytest.approx(sum(mine) / 10)
    assert len(house.rows("bc.csv")) == 40
    assert json.loads(house.artifact("bc.json").read_text()) == document
    whole = next(row for row in document["means"] if row["source"] == sources[1])
    assert whole["val_f1"] > 0.5, "three epochs teach something"


def test_bc_of_one_class_writes_its_file_and_agrees_with_the_table(house: House) -> None:
    document = house.three
    assert document["file"] == "runs/coded/bc/3.safetensors"
    (mine, logit) = document["classifiers"]
    assert (mine["source"], logit["source"]) == ("coded BC", "coded network's logit")
    for row in (mine, logit):
        (same,) = [
            one for one in house.everything["classifiers"] if (one["class"], one["source"]) == ("3", row["source"])
        ]
        assert row.keys() == same.keys()
        for key, value in row.items():
            assert same[key] == (value if isinstance(value, str) else pytest.approx(value, abs=1e-5)), key
    description = json.loads((house.coded / "bc" / "3.json").read_text())
    assert (description["class"], description["threshold"]) == ("3", mine["threshold"])
    assert description["codewords"]["s2"] == np.load(SCHEMES / "c10_5of10.npy")[3].tolist()


def test_a_classifier_is_not_overwritten_unless_forced(house: House, tmp_path: Path) -> None:
    before = files_of(house.path)
    assert "exists already" in refused(house.path, "bc", "--class", "3", "--run", "coded")
    # The description beside it counts too, and so does the suffix: said before the work, so that nothing is written.
    taken = tmp_path / "taken.safetensors"
    taken.with_suffix(".json").write_text("{}")
    assert "taken.json exists already" in refused(
        house.path, "bc", "--class", "3", "--run", "coded", "--out", str(taken)
    )
    assert ".safetensors file" in refused(house.path, "bc", "--class", "3", "--run", "coded", "--out", "three.pt")
    assert "name its --class" in refused(house.path, "bc", "--run", "coded", "--out", str(taken))
    assert files_of(house.path) == before
    done(house.path, "bc", "--class", "3", "--run", "coded", "--out", str(taken), "--force", "--quiet")
    assert taken.read_bytes() == (house.coded / "bc" / "3.safetensors").read_bytes()


def test_decode_gives_the_asked_rules_beside_the_curve(house: House) -> None:
    document = house.decoded
    assert list(document["decoder_accuracy"]) == ["s2.1", "s2.2", "s3.1", "s3.2"]
    assert document["num_images"] == sum(row["num_images"] for row in document["agreement"])
    rules = [point["rule"] for point in document["exits"]]
    assert {"agree:1", "agree:2", "agree:3", "agree:4", "margin:0.1", "margin:0.25"} <= set(rules)
    assert rules.count("agree:2") == 1
    metrics = Run.load(house.coded).metrics()
    best = max(metrics, key=lambda row: row["val_accuracy"])
    assert document["accuracy"] == pytest.approx(best["val_accuracy"])
    for block, value in document["decoder_accuracy"].items():
        assert value == pytest.approx(best[f"val_decoder_accuracy_{block}"])
    assert [row["block"] for row in house.rows("decode.csv")] == list(document["decoder_accuracy"])
    assert [int(row["num_images"]) for row in house.rows("decode_agreement.csv")] == [
        row["num_images"] for row in document["agreement"]
    ]
    assert [row["rule"] for row in house.rows("decode_exits.csv")] == rules
    assert "is neither agree:M" in refused(house.path, "decode", "--run", "coded", "--exit", "agree:0")


def test_every_figure_comes_with_its_data_and_in_two_formats(house: House) -> None:
    analysis = house.coded / "analysis"
    names = {path.stem for path in analysis.glob("*.png")}
    assert names == {"bc", "bc_scores", "bc_3_scores", "decode", "cost"}
    for name in names:
        with Image.open(analysis / f"{name}.png") as image:
            assert min(image.size) > 100
            assert len(np.unique(np.asarray(image.convert("L")))) > 10, "something is drawn"
        assert "<svg" in (analysis / f"{name}.svg").read_text()
    for name in names:
        data = analysis / f"{name}.csv"
        assert len(data.read_text().splitlines()) > 1, f"{name} has no data"


def test_cost_says_what_every_network_costs(house: House) -> None:
    for name in ("coded", "plain", "binary classifier of 0"):
        assert name in house.cost
    document = json.loads(house.artifact("cost.json").read_text())
    assert [one["name"] for one in document["networks"]] == ["coded", "plain", "binary classifier of 0"]
    network = Run.load(house.coded).build_network()
    assert document["networks"][0]["parameters"] == sum(parameter.numel() for parameter in network.parameters())
    assert len(house.rows("cost.csv")) == 3


def test_predictions_agree_with_the_tables(house: House) -> None:
    assert [entry["image"] for entry in house.predicted] == [f"digit{digit}.png" for digit in range(10)]
    right = sum(entry["class_name"] == str(digit) for digit, entry in enumerate(house.predicted))
    assert right >= 5
    rows = [
        (row["num_images"], round(row["num_images"] * (row["accuracy"] or 0))) for row in house.decoded["agreement"]
    ]
    # The table's rows are the counts; the confidence is their estimate, which does not trust rows of few images.
    confidences = Evidence(8, 10, tuple(rows), {}).confidence()
    table = {"s2": np.load(SCHEMES / "c10_5of10.npy"), "s3": np.load(SCHEMES / "c10_3of10.npy")}
    for entry in house.predicted:
        expected = confidences[entry["agreeing"]]
        assert (entry["confidence"], entry["confidence_images"]) == (expected.value, expected.num_images)
        assert isinstance(entry["unlike"], list)
        assert entry["agreeing"] == sum(part["decoder"] == entry["class_name"] for part in entry["path"])
        for part in entry["path"]:
            codeword = table[part["block"][:2]][int(entry["class_name"])]
            assert part["codeword"] == "".join(map(str, codeword))
            assert part["fired"] == "".join(str(int(value >= 0.5)) for value in part["energies"])


def test_a_sample_of_the_run_s_data_is_predicted_without_a_file(house: House) -> None:
    on_coded = ("--run", "coded", "--quiet")
    printed = done(house.path, "predict", "--sample", "3", *on_coded)
    assert printed.count("digits, validation image ") == 3
    assert printed == done(house.path, "predict", "--sample", "3", *on_coded)
    assert printed != done(house.path, "predict", "--sample", "3", "--seed", "1", *on_coded)
    confidence = r"confidence \d+\.\d% \(\d of 4 early decoders agree; \d+ validation images?\)"
    assert len(re.findall(confidence, printed)) == 3
    assert "confidence 100.0%" not in printed
    assert len(re.findall(r"\(\d of 5 own subNNs fired, \d of 5 others\)", printed)) == 6
    for arguments in ((), ("--sample", "2", "digit3.png")):
        assert "give either" in refused(house.path, "predict", *arguments, *on_coded)
    assert "leave --run, --sample" in refused(house.path, "predict", "--sample", "2", "--bc", "3.safetensors")


def test_a_run_away_from_its_data_or_on_a_mount_that_is_read_only_predicts(house: House, tmp_path: Path) -> None:
    """The evidence of the training is stored with the checkpoint; without it, the prediction says what it lacks."""
    shutil.copytree(house.coded, tmp_path / "runs" / "moved")
    config = tmp_path / "runs" / "moved" / "config.json"
    document = json.loads(config.read_text())
    document["recipe"]["data"] = f"folder:{tmp_path / 'gone'}"
    config.write_text(json.dumps(document))
    image = str(house.path / "digit3.png")
    analysis = tmp_path / "runs" / "moved" / "analysis"
    with_decode = done(tmp_path, "predict", image, "--run", "moved", "--quiet")
    assert "validation images)" in with_decode
    shutil.rmtree(analysis)
    assert done(tmp_path, "predict", image, "--run", "moved", "--quiet") == with_decode
    assert not analysis.exists(), "nothing was measured or written"
    # A run of an earlier version has no evidence.
    for path in config.parent.glob("checkpoints/e*"):
        manifest = json.loads((path / "manifest.json").read_text())
        del manifest["files"]["evidence.json"]
        (path / "manifest.json").write_text(json.dumps(manifest))
        (path / "evidence.json").unlink()
    finished = run(tmp_path, "predict", image, "--run", "moved")
    assert finished.exit_code == 0
    assert "of 4 early decoders agree); softmax" in finished.stdout
    assert "no confidence: the data set of runs/moved is not there" in finished.stderr
    assert "gone" in refused(tmp_path, "predict", image, "--run", "moved", "--data", f"folder:{tmp_path / 'gone'}")
    # Measured once where the data set is there; a folder that cannot be written does not matter.
    analysis.write_text("in the way")
    again = done(tmp_path, "predict", image, "--run", "moved", "--data", "digits", "--quiet")
    assert again == with_decode
    analysis.unlink()
    assert done(tmp_path, "predict", image, "--run", "moved", "--data", "digits", "--quiet") == with_decode
    assert [path.name for path in analysis.iterdir()] == ["evidence.json"]
    assert done(tmp_path, "predict", image, "--run", "moved", "--quiet") == with_decode


def test_a_binary_classifier_s_file_predicts_without_the_run(house: House, tmp_path: Path) -> None:
    threshold = house.three["classifiers"][0]["threshold"]
    for entry in house.binary:
        assert (entry["class_name"], entry["threshold"]) == ("3", threshold)
        assert entry["accepted"] == (entry["logit"] >= threshold)
    for suffix in (".safetensors", ".json"):
        shutil.copy(house.coded / "bc" / f"3{suffix}", tmp_path / f"three{suffix}")
    images = [str(house.path / f"digit{digit}.png") for digit in range(10)]
    alone = json.loads(done(tmp_path, "predict", *images, "--bc", "three.safetensors", "--json", "--quiet"))
    assert [entry["logit"] for entry in alone] == [entry["logit"] for entry in house.binary]
    assert "leave --run" in refused(house.path, "predict", "digit3.png", "--bc", "3.safetensors", "--run", "coded")
    for flags in (["--checkpoint", "best"], ["--no-download"]):
        said = refused(house.path, "predict", "digit3.png", "--bc", "3.safetensors", *flags)
        assert f"{flags[0]} has no effect beside --bc" in said
    assert "--seed needs --sample" in refused(house.path, "predict", "digit3.png", "--run", "coded", "--seed", "3")
    (tmp_path / "three.safetensors").write_bytes(b"junk")
    assert "is damaged" in refused(tmp_path, "predict", images[0], "--bc", "three.safetensors")
    (tmp_path / "three.safetensors").unlink()
    assert "does not exist" in refused(tmp_path, "predict", images[0], "--bc", "three.safetensors")


def test_a_plain_run_predicts_and_costs_but_has_nothing_to_decode(house: House) -> None:
    plain = ("--run", "plain", "--quiet")
    (entry,) = json.loads(done(house.path, "predict", "digit3.png", *plain, "--json"))
    assert (entry["confidence"], entry["agreeing"], entry["path"]) == (None, None, [])
    assert "left out: coded network" in done(house.path, "cost", *plain)
    for verb in ("decode", "bc"):
        finished = run(house.path, verb, *plain, "--json")
        assert finished.exit_code == 2
        assert "was trained without schemes" in json.loads(finished.stdout)["error"]


def test_bad_input_gets_one_message(house: House) -> None:
    before = files_of(house.path)
    on_coded = ("--run", "coded")
    message = refused(house.path, "bc", "--class", "seven", *on_coded)
    assert "'seven' is neither a class nor a number from 0 to 9" in message
    assert "known: 0, 1, 2" in message
    assert "did you mean" in refused(house.path, "cost", "--class", "33", *on_coded)
    assert "c10_5of10.npy" in refused(house.path, "predict", "schemes/c10_5of10.npy", *on_coded)
    assert "nothing.png" in refused(house.path, "predict", "nothing.png", *on_coded)
    for verb in ("bc", "eval", "report"):
        assert "name a run of the plain control" in refused(house.path, verb, "--compare", "coded", *on_coded)
    assert "name a run of the plain control" in refused(
        house.path, "ood", "--ood", "synthetic:4", "--compare", "coded", *on_coded
    )
    assert "is the data set of the run itself" in refused(house.path, "bc", "--ood", "digits", *on_coded)
    assert "there is no run codde" in refused(house.path, "bc", "--run", "codde")
    assert files_of(house.path) == before


def test_the_plain_control_is_measured_at_the_same_checkpoint(house: House, tmp_path: Path) -> None:
    copy_of(house.path, tmp_path)
    plain = Run.load("plain", folder=tmp_path / "runs")
    names = plain.checkpoints.index()
    if names["best"] == names["last"]:
        index = plain.checkpoints.folder / "index.json"
        index.write_text(json.dumps(json.loads(index.read_text()) | {"best": names["previous"]}))
    accuracies = {
        name: json.loads(done(tmp_path, "eval", "--run", "plain", "--checkpoint", name, "--json"))["accuracy"]
        for name in ("best", "last")
    }
    assert accuracies["best"] != accuracies["last"]
    for name, accuracy in accuracies.items():
        compared = json.loads(
            done(tmp_path, "eval", "--run", "coded", "--compare", "plain", "--checkpoint", name, "--json")
        )
        assert compared["plain"]["accuracy"] == accuracy


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ("config.json", "it has no config.json"),
        ("classes.json", "it has no classes.json"),
        ("schemes/s2.npy", "s2.npy"),
        ("checkpoints", "there is no best checkpoint"),
        ("checkpoints/index.json", "index.json is missing, and checkpoints are there"),
        ("checkpoints/e*", "is damaged"),
    ],
)
def test_a_half_written_run_is_named(gone: str, message: str, house: House, tmp_path: Path) -> None:
    half = tmp_path / "half"
    shutil.copytree(house.coded, half)
    for path in list(half.glob(gone)):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert message in refused(house.path, "decode", "--run", str(half))


def test_a_run_with_another_scheme_than_it_was_trained_with_is_refused(house: House, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(house.coded, other)
    table = np.load(other / "schemes" / "s2.npy")
    np.save(other / "schemes" / "s2.npy", np.roll(table, 1, axis=0))
    message = refused(house.path, "bc", "--class", "3", "--run", str(other), "--force")
    assert "is not the scheme that the run was trained with" in message
