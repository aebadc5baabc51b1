"""The scripts in benchmarks/ whose pages the README quotes: their figures are those of the runs' files."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import finetune
from benchmarks.cifar10.results import collect, write_page
from codedtool.analysis.artifacts import artifact_path
from codedtool.coding.scheme import CodingScheme
from codedtool.data import Normalization
from codedtool.training.recipe import Recipe
from codedtool.training.run import Run
from tests.paths import SCHEMES


def make_run(folder: Path, kind: str, seed: int) -> Run:
    """A run with the files that the commands leave, whose figures tell its seed."""
    schemes = {f"s{n}": CodingScheme.load(SCHEMES / f"c10_{act}of10.npy") for n, act in ((2, 5), (3, 3))}
    preset = "coded_resnext23_10x3d" if kind == "coded" else "resnext23_10x3d"
    recipe = Recipe(preset=preset, epochs=2, batch_size=64, images_per_class=100, seed=seed)
    classes = tuple("abcdefghij")
    normalization = Normalization((0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    run = Run.create(
        recipe, schemes if kind == "coded" else {}, classes, normalization, name=f"{kind}-{seed}", folder=folder
    )
    final = (0.6 if kind == "coded" else 0.7) + seed / 100
    row = {"train_loss": 1.0, "train_accuracy": 0.5, "val_loss": 1.0}
    run.write_metrics([row | {"epoch": epoch, "val_accuracy": value} for epoch, value in enumerate((0.1, final))])
    methods = [
        {"fit_share": share, "method": method, "ece_mean": 0.01 + seed / 500, "ece_std": 0.0, "mce_mean": 0.2}
        for share in (0.25, 0.5)
        for method in ("uncalibrated", "h_T", "h_aug")
    ]
    documents: dict[str, Any] = {"calibration": {"methods": methods}}
    if kind == "coded":
        row = {"classes": 10, "val_recall": 0.5, "val_f1": 0.6, "val_average_precision": 0.7, "ood_precision": 0.3}
        documents["bc"] = {
            "means": [{"source": "coded BC", "val_precision": 0.8 + seed / 10, **row}],
            "classifiers": [
                {"class": name, "source": "coded BC", "val_f1": 0.4 if name == "d" else 0.5 + seed / 10}
                for name in classes
            ],
        }
        accuracy = [0.25, None if seed else 0.5, 1.0, 1.0, 1.0, 1.0, 1.0]
        documents["decode"] = {
            "decoder_accuracy": {"s2.1": 0.2, "s3.3": 0.5 + seed / 10},
            "agreement": [
                {"agreeing": k, "num_images": 10 * k + 2 * seed, "accuracy": value} for k, value in enumerate(accuracy)
            ],
        }
        documents["specialize"] = {
            "blocks": [
                {"block": "s2.1", "active": [0.0], "inactive": [0.0]},
                {"block": "s2.3", "active": [final, 0.1], "inactive": [final, 0.65]},
            ]
        }
    for name, document in documents.items():
        path = artifact_path(run, f"{name}.json")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document))
    for name in ("bc", "specialize", "decode", "calibration"):
        artifact_path(run, f"{name}.png").write_bytes(b"picture")
    return run


def test_the_cifar10_page_says_what_the_files_say(tmp_path: Path) -> None:
    pairs = [(make_run(tmp_path, "coded", seed), make_run(tmp_path, "plain", seed)) for seed in (0, 1)]
    write_page(collect("cpu", pairs), tmp_path)
    page = (tmp_path / "results-cpu.md").read_text()
    for line in (
        "| accuracy | 60.5 ± 0.7 | 70.5 ± 0.7 | 94.41 | 93.66 |",
        "| coded BC | 85.0 ± 7.1 | 50.0 ± 0.0 | 60.0 ± 0.0 | 70.0 ± 0.0 | 30.0 ± 0.0 | 93, 77, 84 |",
        'The coded classifier of lowest F1 is that of `d`: 40.0 ± 0.0 (the paper: "cat", with OOD negatives).',
        "| 20.0 ± 0.0 | 55.0 ± 7.1 | 60.5 ± 0.7 |",
        "| 0 | 1 | 25.0 ± 0.0 | 52.0 |",
        # Of the seeds that have such images.
        "| 1 | 11 | 50.0 | 67.7 |",
        "Accuracy without k subNNs of block s2.3; without none 60.5 ± 0.7.",
        "| active | 10.0 ± 0.0 |",
        "| inactive | 65.0 ± 0.0 |",
        "| coded | 25% | h_T | 1.10 ± 0.14 | 20.00 ± 0.00 | 0.70, 24.35 |",
        "| plain | 50% | h_aug | 1.10 ± 0.14 | 20.00 ± 0.00 |  |",
    ):
        assert line in page.splitlines(), line
    assert (tmp_path / "cpu-decode.png").read_bytes() == b"picture"
    assert json.loads((tmp_path / "results-cpu.json").read_text())["accuracy"]["coded"] == [0.6, 0.61]


@pytest.mark.slow
def test_imagenets_shape_trains_and_gives_classifiers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from benchmarks.imagenet_shape import main

    monkeypatch.setattr(sys, "argv", ["imagenet_shape", "--steps", "3", "--batch", "4", "--rounds", "1"])
    main()
    said = capsys.readouterr().out
    steps = [line.split()[4].rstrip(",") for line in said.splitlines() if line.startswith("  step")]
    assert len(steps) == 6
    for losses in (steps[:3], steps[3:]):
        assert float(losses[2]) < float(losses[0]) / 4, "four images are learnt by heart"
    differences = [float(line.split()[-1]) for line in said.splitlines() if "largest relative difference" in line]
    assert len(differences) == 2
    assert max(differences) < 1e-5
    parameters = [line.split("|")[2].strip() for line in said.splitlines() if line.startswith("| ")][1:]
    assert parameters == ["25.03", "25.03", "25.03", "10.42", "10.42"]


def test_a_row_of_the_fine_tuning_table_is_read_from_the_files_of_its_run(tmp_path: Path) -> None:
    coded, plain = (make_run(tmp_path, kind, 0) for kind in ("coded", "plain"))
    rows = {training.key: training for training in finetune.TRAININGS}
    assert finetune._figures(rows["init"], coded) == "60.00 | 20.0 50.0 | 80.0 50.0 60.0"
    assert finetune._figures(rows["plain"], plain) == "70.00 | | "
