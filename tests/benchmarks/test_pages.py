"""The scripts in benchmarks/ whose pages the README quotes: their figures are those of the runs' files."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import finetune
from benchmarks.cifar10.claims import Claim, claims
from benchmarks.cifar10.figures import seed_figures
from benchmarks.cifar10.results import read_seeds, write_results
from codedtool.analysis.artifacts import artifact_path
from codedtool.coding.scheme import CodingScheme
from codedtool.data import Normalization
from codedtool.errors import InputError
from codedtool.training.recipe import Recipe
from codedtool.training.run import Run
from tests.paths import SCHEMES


def make_run(folder: Path, kind: str, seed: int) -> Run:
    """A run with the files that the commands leave, whose figures tell its seed."""
    schemes = {f"s{n}": CodingScheme.load(SCHEMES / f"c10_{act}of10.npy") for n, act in ((2, 5), (3, 3))}
    preset = "coded_resnext23_10x3d" if kind == "coded" else "resnext23_10x3d"
    recipe = Recipe(preset=preset, epochs=3, batch_size=64, images_per_class=100, seed=seed)
    classes = ("cat", *"abcefghij")
    normalization = Normalization((0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    run = Run.create(
        recipe, schemes if kind == "coded" else {}, classes, normalization, name=f"{kind}-{seed}", folder=folder
    )
    final = (0.6 if kind == "coded" else 0.7) + seed / 100
    row = {"train_loss": 1.0, "train_accuracy": 0.5, "val_loss": 1.0}
    run.write_metrics(
        [
            row | {"epoch": epoch, "val_accuracy": value, "images_per_second": speed}
            for epoch, (value, speed) in enumerate(((0.1, 300.0), (0.2, 20.0), (final, 310.0)))
        ]
    )
    methods = [
        {"fit_share": share, "method": method, "ece_mean": 0.01 + seed / 500, "ece_std": 0.0, "mce_mean": mce}
        for share in (0.25, 0.5)
        for method, mce in (("uncalibrated", 0.3), ("h_T", 0.2 + seed / 50), ("h_aug", 0.1 + seed / 100))
    ]
    documents: dict[str, Any] = {"calibration": {"methods": methods}}
    if kind == "coded":
        documents |= _coded_documents(classes, seed, final)
    for name, document in documents.items():
        path = artifact_path(run, f"{name}.json")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document))
    return run


def _coded_documents(classes: tuple[str, ...], seed: int, final: float) -> dict[str, Any]:
    """What the analyses of a coded run leave; the figures of the page and a few that it has no use for."""
    row = {"classes": 10, "val_recall": 0.5, "val_average_precision": 0.7}
    accuracy = [0.25, None if seed else 0.5, 1.0, 1.0, 1.0, 1.0, 1.0]
    return {
        "bc": {
            "means": [
                row | {"source": source, "val_precision": precision + seed / 10, "val_f1": f1, "ood_precision": ood}
                for source, precision, f1, ood in (
                    ("coded BC", 0.8, 0.6, 0.3),
                    ("plain BC", 0.2, 0.3, 0.3 + seed / 10),
                    ("plain network's logit", 0.8, 0.65, 0.6),
                )
            ],
            "classifiers": [
                {"class": name, "source": "coded BC", "val_f1": 0.4 if name == "cat" else 0.5 + seed / 10}
                for name in classes
            ],
        },
        "decode": {
            "decoder_accuracy": {"s2.1": 0.2, "s3.3": 0.5 + seed / 10},
            "agreement": [
                {"agreeing": k, "num_images": 0 if value is None else 10 * k + 2 * seed, "accuracy": value}
                for k, value in enumerate(accuracy)
            ],
            "exits": [
                {
                    "rule": "margin:0.15",
                    "accuracy": final,
                    "macs": 9e6,
                    "macs_ratio": 0.75,
                    "time_ratio": 0.8,
                    "exits": [],
                }
            ],
        },
        "specialize": {
            "blocks": [
                {"block": "s2.1", "N": 10, "act": 5, "active": [final, 0.5], "inactive": [final, 0.5 - seed / 100]},
                {"block": "s2.3", "N": 10, "act": 5, "active": [final, 0.1], "inactive": [final, 0.65 + seed / 50]},
            ]
        },
        "activations": {
            "subnns": [
                {"subnn": n, "edges": [], "active": {"mean": 0.2 + seed / 50}, "inactive": {"mean": 0.1}}
                for n in range(2)
            ]
        },
        "ood": {
            "scores": [
                {"network": network, "score": score, "auroc": auroc, "fpr95": 0.5, "threshold": 1.0}
                for network, score, auroc in (
                    ("coded", "softmax", 0.8),
                    ("coded", "energy score", 0.85 + seed / 50),
                    ("coded", "agreeing decoders", 0.7),
                    ("plain control", "energy score", 0.9),
                )
            ]
        },
    }


def test_the_cifar10_page_says_what_the_files_say(tmp_path: Path) -> None:
    seeds = [seed_figures(*(make_run(tmp_path, kind, seed) for kind in ("coded", "plain"))) for seed in (1, 0)]
    page = write_results("cpu", seeds, tmp_path)
    assert (tmp_path / "results-cpu.md").read_text() == page
    for line in (
        "| accuracy | 60.50 ± 0.71 | 70.50 ± 0.71 | 94.41 | 93.66 |",
        "| training, images/s of the median epoch | 300 ± 0 | 300 ± 0 | | |",
        "| coded BC | 85.0 ± 7.1 | 50.0 ± 0.0 | 60.0 ± 0.0 | 70.0 ± 0.0 | 30.0 ± 0.0 | 93, 77, 84 |",
        "| 20.0 ± 0.0 | 55.0 ± 7.1 | 60.5 ± 0.7 |",
        "| 0 | 1 | 25.0 ± 0.0 | 52.0 |",
        # Of the seeds that have such images.
        "| 1 | 5 | 50.0 | 67.7 |",
        "| margin:0.15 | 60.5 ± 0.7 | 75.0 ± 0.0 | 80.0 ± 0.0 |",
        "Accuracy without k subNNs of a block; without none 60.5 ± 0.7.",
        "| s2.3, active | 10.0 ± 0.0 |",
        "| s2.3, inactive | 66.0 ± 1.4 |",
        "| 1 | 0.210 ± 0.014 | 0.100 ± 0.000 |",
        "| coded | 25% | h_T | 1.10 ± 0.14 | 21.00 ± 1.41 | 0.70, 24.35 |",
        "| plain | 50% | h_aug | 1.10 ± 0.14 | 10.50 ± 0.71 |  |",
        "| coded, energy score | 86.0 ± 1.4 | 50.0 ± 0.0 |",
        # Verdicts.
        "| coded is more accurate than plain (94.41 against 93.66) | 60.5 ± 0.7 against 70.5 ± 0.7 | does not hold |",
        '| "cat" is the hardest class | F1 40.0 ± 0.0, the next lowest 55.0 ± 7.1 | holds |',
    ):
        assert line in page.splitlines(), line
    # A later call goes on with the seeds of an earlier one, in order.
    kept = read_seeds("cpu", tmp_path)
    assert [one["seed"] for one in kept] == [0, 1]
    assert kept[0]["accuracy"] == {"coded": 0.6, "plain": 0.7}
    assert write_results("cpu", kept, tmp_path) == page
    assert read_seeds("gpu", tmp_path) == []
    # Nothing says where the images lie.
    assert "data_dir" not in (tmp_path / "results-cpu.json").read_text()


def test_seeds_of_another_recipe_are_not_put_on_one_page(tmp_path: Path) -> None:
    first, second = (seed_figures(*(make_run(tmp_path, kind, n) for kind in ("coded", "plain"))) for n in (0, 1))
    second["recipes"]["plain"]["epochs"] = 4
    with pytest.raises(InputError, match=r"seed 1 was trained with other values of epochs than seed 0"):
        write_results("cpu", [first, second], tmp_path)


def test_a_claim_is_decided_by_means_and_deviations(tmp_path: Path) -> None:
    for margins, verdict in (
        ((1.0, 2.0, 3.0), "holds"),
        ((-1.0, -2.0, -3.0), "does not hold"),
        ((-1.0, 0.0, 3.0), "undecided"),
        ((5.0,), "undecided"),
        ((0.0, 0.0), "undecided"),
    ):
        assert Claim("", margins, "").verdict == verdict, margins
    seeds = [seed_figures(*(make_run(tmp_path, kind, seed) for kind in ("coded", "plain"))) for seed in (0, 1)]
    verdicts = {claim.text.split(" (")[0]: claim.verdict for claim in claims(seeds)}
    # F1 60 against 65, of which two points are allowed.
    assert verdicts["their F1 comes within two points of the plain network's logit"] == "does not hold"
    assert verdicts["an early exit"] == "holds"
    # MCE 10 and 11 against 20 and 22; without active subNNs 50 and 50 against 50 and 49.
    assert verdicts["h_aug calibrates better than h_T, fitted on 25% of the images"] == "holds"
    worse = "without all of its active subNNs the network is worse than without all inactive ones"
    assert verdicts[f"s2.1: {worse}"] == "undecided"
    assert verdicts[f"s2.3: {worse}"] == "holds"
    assert verdicts["the coded network tells them better than the plain one"] == "does not hold"


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
