"""From a number of classes or a folder of images to a network, its schemes and the commands."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from codedtool.cli import app
from codedtool.coding.bounds import highest_possible_distance
from codedtool.coding.orders.pairing import joint_distance_histogram
from codedtool.coding.result import SchemeResult, SearchInterrupted
from codedtool.coding.scheme import CodingScheme
from codedtool.data import load_dataset
from codedtool.errors import InputError
from codedtool.models import CodedNetwork
from codedtool.models.counts import count_kept_bytes, count_macs, count_parameters
from codedtool.models.presets import build_network
from codedtool.training.plan import Plan, make_schemes, plan
from codedtool.training.recipes import RECIPES


@pytest.fixture(scope="module")
def small() -> Plan:
    return plan(7, image_size=16, device="cpu")


def test_every_candidate_is_within_its_bounds_and_has_a_network(small: Plan) -> None:
    assert 2 <= len(small.candidates) <= 5
    for one in small.candidates:
        for scheme in one.schemes:
            assert scheme.bound == highest_possible_distance(7, one.length, scheme.act)
            assert 2 <= scheme.min_distance <= scheme.bound
        assert 0 < one.classifier_share < 1
        assert one.images_per_second > 0
        assert small.hours(one) is None  # nobody knows the number of images


def test_figures_of_the_chosen_network_are_those_of_the_network_itself(small: Plan) -> None:
    results = list(make_schemes(small))
    schemes = [result.scheme for result in results]
    network = build_network(small.best.preset, schemes)
    images = torch.zeros(2, 3, 16, 16)
    kept = count_kept_bytes(network, images)
    figures = (count_parameters(network), count_macs(network.eval(), images[:1]), kept)
    assert (small.best.parameters, small.best.macs, small.best.kept_bytes) == figures
    for one, scheme in zip(small.best.schemes, schemes, strict=True):
        assert (scheme.num_classes, scheme.length, scheme.act) == (7, small.best.length, one.act)
        assert scheme.min_distance >= one.min_distance
    assert results[1].joint is not None
    assert results[1].joint.joint_min_distance == min(joint_distance_histogram(schemes))


def test_the_first_rows_of_a_larger_shipped_scheme_count_without_any_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("codedtool.training.plan._ALL_SECONDS", 0.0)
    found = plan(60, image_size=16, device="cpu")
    schemes = next(one.schemes for one in found.candidates if one.length == 20)
    for one, name in zip(schemes, ("c100_8of20", "c100_4of20"), strict=True):
        assert one.min_distance >= CodingScheme.shipped(name).min_distance
        assert one.shipped is None  # its rows are not those of 60 classes


def test_the_papers_numbers_of_classes_take_the_shipped_schemes() -> None:
    found = plan(10, device="cpu")
    assert found.scheme_paths() == ["c10_5of10", "c10_3of10"]
    assert found.best.preset == "coded_resnext29_10x11d"
    assert [command[1] for command in found.commands()] == ["train", "bc"]
    for one in found.candidates:
        assert found.hours(one) == pytest.approx(50_000 * 300 / one.images_per_second / 3600)


def test_images_that_are_trained_smaller_are_timed_and_kept_at_that_size(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = RECIPES["cifar10"].with_values({"train_size": 16, "eval_size": 32})
    monkeypatch.setattr("codedtool.training.plan.find_recipe", lambda *_: (recipe, "a recipe"))
    timed: list[int] = []
    forward = CodedNetwork.forward

    def seen(network: CodedNetwork, images: torch.Tensor, *rest: Any, **named: Any) -> Any:
        if torch.is_grad_enabled():
            timed.append(images.shape[-1])
        return forward(network, images, *rest, **named)

    monkeypatch.setattr(CodedNetwork, "forward", seen)
    found = plan(data="cifar10", device="cpu")
    assert (found.image_size, found.train_size) == (32, 16)
    assert set(timed) == {16}
    network = build_network(found.best.preset, [CodingScheme.shipped(name) for name in found.scheme_paths()])
    assert found.best.kept_bytes == count_kept_bytes(network, torch.zeros(2, 3, 16, 16))
    assert found.best.macs == count_macs(network.eval(), torch.zeros(1, 3, 32, 32))


def test_a_folder_without_validation_images_is_planned_with_a_part_of_them_and_counted_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("codedtool.data.folder.COUNT_LIMIT", 8)
    for name in ("ant", "bee", "cat"):
        folder = tmp_path / "pets" / name
        folder.mkdir(parents=True)
        for number in range(10):
            Image.new("RGB", (16, 16)).save(folder / f"{number}.png")
    data = f"folder:{tmp_path / 'pets'}"
    found = plan(data=data, device="cpu")
    assert (found.recipe.split, found.num_images) == (0.2, 24)
    assert len(load_dataset(data, split=0.2).train) == 24
    train = next(command for command in found.commands() if command[1] == "train")
    assert train[-2:] == ["--split", "0.2"]
    assert tomllib.loads(found.config())["split"] == 0.2


def test_a_number_of_classes_of_the_papers_is_planned_as_its_recipe_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = RECIPES["cifar10"].with_values({"train_size": 16, "eval_size": 32})
    monkeypatch.setattr("codedtool.training.plan.find_recipe", lambda *_: (recipe, "a recipe"))
    found = plan(10, device="cpu")
    assert (found.image_size, found.train_size, found.recipe) == (32, 16, recipe)


def test_a_size_that_was_asked_for_is_trained_at(tmp_path: Path) -> None:
    for name in ("ant", "bee", "cat"):
        (tmp_path / name).mkdir()
        for number in range(5):
            Image.new("RGB", (32, 32)).save(tmp_path / name / f"{number}.png")
    folder = f"folder:{tmp_path}"
    found = plan(data=folder, image_size=16, device="cpu")
    assert (found.recipe.train_size, found.recipe.eval_size) == (16, 16)
    train_command = next(command for command in found.commands() if command[1] == "train")
    assert train_command[-4:] == ["--train-size", "16", "--eval-size", "16"]
    config = tomllib.loads(found.config())
    assert (config["train_size"], config["eval_size"]) == (16, 16)
    usual = plan(data=folder, device="cpu")
    assert usual.image_size != 16
    assert not {"train_size", "eval_size"} & tomllib.loads(usual.config()).keys()


def test_arguments_are_checked(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="give `num_classes`, or `data`"):
        plan()
    with pytest.raises(InputError, match="`num_classes` must be at least 2"):
        plan(1)
    with pytest.raises(InputError, match="cifar10 has 10 classes"):
        plan(11, data="cifar10")
    for data in ("digits", "synthetic:7", "cifar1", "folder:", ""):
        with pytest.raises(InputError, match="plans are made for cifar10, cifar100 and folder:PATH"):
            plan(7, data=data)
    with pytest.raises(InputError, match="there is no folder"):
        plan(data=f"folder:{tmp_path}/gone")
    with pytest.raises(InputError, match="holds 0 folders"):
        plan(data=f"folder:{tmp_path}")


@pytest.mark.slow
def test_a_folder_is_written_up_to_its_training(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for part in ("train", "val"):
        for name in ("ant", "bee", "cat", "dog", "eel", "fox"):
            folder = tmp_path / "pets" / part / name
            folder.mkdir(parents=True)
            for number in range(2):
                pixels = random.integers(0, 256, (int(random.integers(14, 20)), 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")

    def program(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "codedtool", *arguments],
            cwd=tmp_path,
            env=os.environ.copy(),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    written = program(*"plan --data folder:pets --device cpu --write --json --quiet".split())
    assert written.returncode == 0, written.stderr
    document = json.loads(written.stdout)
    config = tomllib.loads((tmp_path / "plan.toml").read_text())
    assert (document["K"], document["num_images"]) == (6, 12)
    assert document["written"] == [*config["scheme"], "plan.toml"]
    records = [json.loads((tmp_path / path).with_suffix(".json").read_text()) for path in config["scheme"]]
    assert [shlex.split(record["command"]) for record in records] == document["commands"][:2]
    first, second = (CodingScheme.load(tmp_path / path) for path in config["scheme"])
    assert min(joint_distance_histogram([first, second])) == records[1]["joint"]["joint_min_distance"]
    assert "exists already" in program(*"plan --data folder:pets --write --quiet".split()).stderr
    trained = program(*"train --config plan.toml --epochs 1 --batch-size 6 --device cpu --quiet".split())
    assert trained.returncode == 0, trained.stderr
    assert document["commands"][-1] == ["codedtool", "bc", "--class", "ant"]


def test_what_an_interrupted_plan_has_found_is_kept(
    small: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = make_schemes(small)

    def interrupted(planned: Plan, **_: object) -> Iterator[SchemeResult]:
        yield first
        raise SearchInterrupted(second)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("codedtool.training.plan.plan", lambda *_, **__: small)
    monkeypatch.setattr("codedtool.training.plan.make_schemes", interrupted)
    done = CliRunner().invoke(app, ["plan", "--K", "7", "--write", "--quiet"])
    assert done.exit_code == 130, done.output
    paths = [tmp_path / path for path in small.scheme_paths()]
    partial = paths[1].with_name(f"{paths[1].stem}.partial.npy")
    assert CodingScheme.load(paths[0]) == first.scheme
    assert CodingScheme.load(partial) == second.scheme
    record = json.loads(partial.with_suffix(".json").read_text())
    assert shlex.split(record["command"]) == small.scheme_commands()[1]
    assert not paths[1].exists()
    assert not (tmp_path / "plan.toml").exists()
