"""A grid of trainings: every point trained once, resumable, and its figures means over seeds."""

from __future__ import annotations

import csv
import json
import subprocess
from collections.abc import Collection
from pathlib import Path
from statistics import mean, stdev
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codedtool.analysis import sweep as sweep_module
from codedtool.analysis.result import NONE
from codedtool.analysis.sweep import parse_vary
from codedtool.analysis.sweep import sweep as sweep_of
from codedtool.budget import Budget
from codedtool.coding.scheme import CodingScheme
from codedtool.errors import InputError
from codedtool.report.figures_sweep import draw_sweep
from codedtool.training.recipe import Recipe
from codedtool.training.recipes import RECIPES, composed, recipe_for
from codedtool.training.run import Run
from codedtool.training.runtime import Interrupted
from tests.commands import run
from tests.paths import SCHEMES


def sweep(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    schemes = ["--scheme", str(SCHEMES / "c10_5of10.npy"), "--scheme", str(SCHEMES / "c10_3of10.npy")]
    return run("sweep", *schemes, "--data", "digits", "--epochs", "1", "--name", "grid", *arguments, cwd=cwd)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("sweep")
    done = sweep("--vary", "mu=0,2", "--seeds", "2", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)


def test_every_combination_is_trained_for_every_seed(folder: tuple[Path, dict[str, Any]]) -> None:
    path, document = folder
    assert [point["mu"] for point in document["points"]] == [0.0, 2.0]
    for point in document["points"]:
        configs = [json.loads((path / run / "config.json").read_text())["recipe"] for run in point["runs"]]
        assert [(config["mu"], config["seed"]) for config in configs] == [(point["mu"], 0), (point["mu"], 1)]


def test_figures_are_means_and_deviations_of_the_runs_last_epochs(folder: tuple[Path, dict[str, Any]]) -> None:
    path, document = folder
    for point in document["points"]:
        rows = [json.loads((path / run / "metrics.jsonl").read_text().splitlines()[-1]) for run in point["runs"]]
        for name, key in (("accuracy", "val_accuracy"), ("decoder_s3.2", "val_decoder_accuracy_s3.2")):
            values = [row[key] for row in rows]
            assert point[name] == pytest.approx(mean(values))
            assert point[f"{name}_std"] == pytest.approx(stdev(values))
        f1 = [json.loads((path / run / "analysis" / "sweep_bc.json").read_text())["val_f1"] for run in point["runs"]]
        assert point["bc_f1"] == pytest.approx(mean(f1))
    with (path / "runs" / "grid" / "sweep.csv").open() as stream:
        assert [float(row["accuracy"]) for row in csv.DictReader(stream)] == [
            point["accuracy"] for point in document["points"]
        ]
    assert (path / "runs" / "grid" / "sweep.png").stat().st_size > 1000
    assert "<svg" in (path / "runs" / "grid" / "sweep.svg").read_text()


def test_the_same_command_takes_what_is_there_and_adds_what_is_not(folder: tuple[Path, dict[str, Any]]) -> None:
    path, document = folder
    weights = {file: file.stat().st_mtime_ns for file in (path / "runs" / "grid").rglob("*.safetensors")}
    assert weights
    done = sweep("--vary", "mu=0,2,4", "--json", cwd=path)
    assert done.returncode == 0, done.stderr
    again = json.loads(done.stdout)
    assert [point["mu"] for point in again["points"]] == [0.0, 2.0, 4.0]
    assert again["points"][0]["runs"] == document["points"][0]["runs"][:1]
    assert {file: file.stat().st_mtime_ns for file in weights} == weights
    done = sweep("--vary", "mu=0,2", "--lr", "0.01", cwd=path)
    assert done.returncode == 2
    assert "instead of 0.01" in done.stderr
    assert "--name" in done.stderr


@pytest.mark.parametrize(
    ("vary", "said"),
    [
        (["nu=1,2"], "mu"),
        (["mu"], "mu=0,1,2"),
        (["mu=1,x"], "'x'"),
        (["mu=1,1"], "twice"),
        (["mu=1", "mu=2"], "twice"),
        (["seed=1,2"], "--seeds"),
        (["p_drop=0.1,1.5"], "p-drop"),
        (["scheme=a.npy"], "exclude each other"),
        (["scheme=a.npy+,b.npy"], "empty or repeated"),
    ],
)
def test_bad_grids_are_refused_before_anything_is_trained(vary: list[str], said: str, tmp_path: Path) -> None:
    done = sweep(*(part for text in vary for part in ("--vary", text)), cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr
    assert not (tmp_path / "runs").exists()


def test_values_follow_and_stay_as_in_a_single_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[tuple[Recipe, set[str]]] = []

    def train(recipe: Recipe, *_: Any, given: Collection[str], **__: Any) -> Any:
        trained.append((recipe, set(given)))
        return SimpleNamespace(path=tmp_path)

    monkeypatch.setattr("codedtool.analysis.sweep._trained", train)
    monkeypatch.setattr("codedtool.analysis.sweep._figures", lambda *_, **__: {})
    base = RECIPES["small"]
    grid = {"batch_size": (32, 128), "epochs": (base.epochs, 2)}
    sweep_of(base, {}, grid, given={"mu": 3.0, "seed": 7}, folder=tmp_path)
    assert [recipe for recipe, _ in trained] == [
        composed(base, {"mu": 3.0, "seed": 7, "batch_size": size, "epochs": epochs})[0]
        for size in (32, 128)
        for epochs in (base.epochs, 2)
    ]
    assert [recipe.lr / base.lr for recipe, _ in trained[::2]] == [32 / base.batch_size, 128 / base.batch_size]
    assert all(given == {"mu", "seed", "batch_size", "epochs"} for _, given in trained)
    trained.clear()
    # Warm-up follows the epochs that are given with a seed, too.
    sweep_of(base, {}, {"mu": (1.0,)}, given={"seed": 3, "epochs": 2}, num_seeds=2, folder=tmp_path)
    assert [(recipe.seed, recipe.epochs) for recipe, _ in trained] == [(3, 2), (4, 2)]
    trained.clear()
    sweep_of(base, {}, {"lr": (0.1, 0.2)}, given={"batch_size": 2000}, folder=tmp_path)
    assert [(recipe.lr, "lr" in given) for recipe, given in trained] == [(0.1, True), (0.2, True)]


def test_schemes_vary_and_so_do_the_ratios_of_the_stages(tmp_path: Path) -> None:
    five, three = (str(SCHEMES / f"c10_{act}of10.npy") for act in (5, 3))
    small = ["--data", "digits", "--preset", "coded_resnext_tiny", "--epochs", "1", "--images-per-class", "20"]
    vary = ["--vary", f"scheme={five}+{three},{three}+{five}", "--stages", "s2,s3", "--vary", "permutation=0,1"]
    done = run("sweep", *small, *vary, "--name", "grid", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    points = json.loads(done.stdout)["points"]
    sets = ["c10_5of10+c10_3of10", "c10_3of10+c10_5of10"]
    assert [(point["scheme"], point["permutation"]) for point in points] == [(s, p) for s in sets for p in (0, 1)]
    acts = [
        [CodingScheme.load(tmp_path / point["runs"][0] / "schemes" / f"{stage}.npy").act for stage in ("s2", "s3")]
        for point in points
    ]
    assert acts == [[5, 3], [5, 3], [3, 5], [3, 5]]
    again = run("sweep", *small, *vary, "--name", "grid", "--json", cwd=tmp_path)
    assert json.loads(again.stdout) == json.loads(done.stdout)


def test_orders_of_ratios_may_have_plain_stages_at_either_end(tmp_path: Path) -> None:
    """The paper's ablation of section 3.2.1: (1, 1/2, 3/10), (1/2, 1/2, 1/2), (3/10, 1/2, 1)."""
    five, three = SCHEMES / "c10_5of10.npy", SCHEMES / "c10_3of10.npy"
    small = ["--data", "digits", "--preset", "coded_resnext_tiny", "--epochs", "1", "--images-per-class", "4"]
    orders = f"scheme=plain+{five}+{three},{five}+{five}+{five},{three}+{five}+plain"
    done = run("sweep", *small, "--vary", orders, "--stages", "s1,s2,s3", "--name", "orders", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    points = json.loads(done.stdout)["points"]
    assert [point["scheme"].count("plain") for point in points] == [1, 0, 1]
    runs = [Run.load(tmp_path / point["runs"][0]) for point in points]
    acts = [{place: scheme.act for place, scheme in one.schemes.items()} for one in runs]
    assert acts == [{"s2": 5, "s3": 3}, {"s1": 5, "s2": 5, "s3": 5}, {"s1": 3, "s2": 5}]
    refused = run("sweep", *small, "--vary", f"scheme=plain+{five}", "--name", "no", cwd=tmp_path)
    assert refused.returncode == 2
    assert "a set with the word plain needs --stages with one stage for each of its words" in refused.stderr


def test_sets_of_schemes_that_code_different_blocks_are_drawn_and_said(tmp_path: Path) -> None:
    """The scheme of 4/10 has no sibling, so it codes the last stage alone."""
    four = CodingScheme(np.stack([np.roll([1] * 4 + [0] * 6, k) for k in range(10)]))
    four.save(tmp_path / "k10_4of10.npy", provenance={})
    small = ["--data", "digits", "--preset", "coded_resnext_tiny", "--epochs", "1", "--images-per-class", "20"]
    done = run(
        "sweep", *small, "--vary", f"scheme=k10_4of10.npy,{SCHEMES / 'c10_5of10.npy'}", "--name", "grid", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.startswith("scheme=")] == ["scheme=k10_4of10:", "scheme=c10_5of10:"]
    assert "  s2  r = 1" in lines
    assert "  s2  r = 5/10  c10_5of10" in lines
    folder = tmp_path / "runs" / "grid"
    document = json.loads((folder / "sweep.json").read_text())
    assert ["decoder_s2.1" in point for point in document["points"]] == [False, True]
    result = sweep_module.SweepResult(
        folder,
        ("scheme",),
        (0,),
        tuple(
            sweep_module.SweepPoint({"scheme": name}, figures, ("run",), ())
            for name, figures in {
                "four": {"accuracy": (0.5, 0.0), "decoder_s3.1": (0.2, 0.0)},
                "five": {"accuracy": (0.6, 0.0), "decoder_s2.1": (0.1, 0.0), "decoder_s3.1": (0.3, 0.0)},
                "none": {"accuracy": (0.7, 0.0)},
            }.items()
        ),
    )
    heights = [list(panel.lines[0].get_ydata()) for panel in draw_sweep(result).axes]
    assert heights == [pytest.approx([50, 60, 70]), pytest.approx([20, 30]), pytest.approx([20, 20])]


def test_an_interrupted_sweep_says_how_it_goes_on(tmp_path: Path) -> None:
    recipe = recipe_for("digits").with_values({"preset": "resnext_tiny", "epochs": 1, "device": "cpu"})
    budget = Budget()
    budget.interrupt()
    with pytest.raises(Interrupted, match=r"grid; the same command continues the sweep$"):
        sweep_of(recipe, {}, {"lr": (0.1, 0.2)}, folder=tmp_path / "grid", budget=budget)


def test_a_training_that_fails_is_reported_in_its_place(tmp_path: Path) -> None:
    small = ("--preset", "coded_resnext_tiny", "--images-per-class", "20", "--json")
    done = sweep(*small, "--vary", "lr=0.05,1e30", "--seeds", "2", cwd=tmp_path)
    document = json.loads(done.stdout)
    assert "points" in document, document
    good, bad = document["points"]
    assert done.returncode == 3
    assert len(good["runs"]) == 2
    assert good["accuracy"] > 0
    assert "failed" not in good
    assert (bad["lr"], bad["runs"]) == (1e30, [])
    assert [(one["part"], one["exit_code"]) for one in bad["failed"]] == [
        (f"lr=1e+30_seed={seed}", 3) for seed in (0, 1)
    ]
    assert all("is not finite" in one["reason"] for one in bad["failed"])
    assert "accuracy" not in bad
    folder = tmp_path / "runs" / "grid"
    with (folder / "sweep.csv").open() as stream:
        assert [row["accuracy"] for row in csv.DictReader(stream)] == [str(good["accuracy"]), ""]
    assert (folder / "sweep.png").stat().st_size > 1000
    told = sweep(*small[:-1], "--vary", "lr=1e30,0.05", "--seeds", "2", cwd=tmp_path)
    assert told.returncode == 3
    assert "left out: lr=1e+30_seed=1: " in told.stdout
    assert NONE in next(line for line in told.stdout.splitlines() if line.strip().startswith("1e+30"))


def test_a_sweep_of_which_every_training_fails_is_its_first_error(tmp_path: Path) -> None:
    done = sweep("--preset", "coded_resnext_tiny", "--vary", "lr=1e30,1e29", "--json", cwd=tmp_path)
    assert done.returncode == 3
    assert "is not finite" in json.loads(done.stdout)["error"]


@given(st.text(max_size=30))
def test_any_text_is_a_grid_or_an_input_error(text: str) -> None:
    try:
        key, values = parse_vary(text)
    except InputError:
        return
    assert key
    assert values
