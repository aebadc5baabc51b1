"""The loop itself: gradients accumulated over micro-batches, and synchronised BatchNorm, against their plain twins."""

from __future__ import annotations

import dataclasses
import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed as dist
from torch import nn
from torch.optim.swa_utils import AveragedModel

from codedtool.budget import Budget, silent
from codedtool.coding.scheme import CodingScheme
from codedtool.data import load_dataset
from codedtool.errors import InputError
from codedtool.files import locked
from codedtool.models.network import CodedNetwork
from codedtool.training.devices import opened_runtime
from codedtool.training.inductor import Compiled
from codedtool.training.loop import Trainer
from codedtool.training.recipe import Recipe
from codedtool.training.recipes import RECIPES, recipe_for
from codedtool.training.run import Run
from codedtool.training.runtime import Interrupted
from codedtool.training.torch_runtime import TorchRuntime
from codedtool.training.train import TrainResult, resume, train


class FixedBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm by its running statistics in training too: what an image becomes does not depend on its batch."""

    def train(self, mode: bool = True) -> FixedBatchNorm2d:
        super().train(False)
        return self


def train_once(scheme: CodingScheme, micro_batch: int, folder: Path) -> tuple[dict[str, torch.Tensor], Trainer]:
    """Weights after one epoch of 2 steps, and the trainer."""
    recipe = recipe_for("digits").with_values(
        {"preset": "coded_resnext_tiny", "epochs": 1, "batch_size": 360, "micro_batch": micro_batch, "device": "cpu"}
    )
    recipe = recipe.with_values({"precision": "fp32"})
    data = load_dataset("digits")
    data = dataclasses.replace(data, train=data.train.first_of_each_class(72), val=data.val.first_of_each_class(5))
    run = Run.create(
        recipe, {"s3": scheme}, data.classes, data.normalization, name=f"micro{micro_batch}", folder=folder
    )
    with opened_runtime(recipe) as runtime:
        network = run.build_network()
        for module in network.modules():
            if type(module) is nn.BatchNorm2d:
                module.__class__ = FixedBatchNorm2d
                nn.init.ones_(module.weight)
        trainer = Trainer(run, network, runtime.prepare(network), data, runtime, budget=Budget(), progress=silent)
        trainer.fit()
    return network.state_dict(), trainer


def test_accumulated_gradients_are_those_of_the_whole_batch(scheme: CodingScheme, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    whole, trainer = train_once(scheme, 0, tmp_path)
    assert trainer.steps_per_epoch == 2
    assert trainer.history[-1]["train_loss"] > 0
    assert not torch.equal(whole["fc.weight"], trainer.run.build_network().state_dict()["fc.weight"])
    for micro_batch in (20, 32):
        accumulated, _ = train_once(scheme, micro_batch, tmp_path)
        for key, tensor in whole.items():
            torch.testing.assert_close(accumulated[key], tensor, rtol=1e-3, atol=1e-4)


def test_a_batch_is_passed_in_equal_parts(
    scheme: CodingScheme, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """BatchNorm cannot normalise a last part of one image whose features have one pixel."""
    sizes = []
    forward = CodedNetwork.forward

    def seen(network: CodedNetwork, images: torch.Tensor, *rest: Any, **named: Any) -> Any:
        if torch.is_grad_enabled():
            sizes.append(len(images))
        return forward(network, images, *rest, **named)

    monkeypatch.setattr(CodedNetwork, "forward", seen)
    train_once(scheme, 359, tmp_path)
    assert sizes == [180] * 4


def test_statistics_of_the_moving_average_are_averaged_over_ranks_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    averaged = []
    monkeypatch.setattr("codedtool.training.loop.average_statistics", lambda network, _: averaged.append(type(network)))
    run_of(tmp_path, epochs=1, ema_decay=0.9)
    assert averaged == [CodedNetwork, AveragedModel] * 2


def test_two_processes_do_not_train_one_run(tmp_path: Path) -> None:
    run = run_of(tmp_path, epochs=1)[0].run
    with locked(run.path, "taken"), pytest.raises(InputError, match="is being trained by another process: wait"):
        resume(run)
    assert resume(run).epochs == 1


def run_of(folder: Path, **values: Any) -> tuple[TrainResult, list[str]]:
    """A training of the plain tiny network on synthetic images, and the lines that it told."""
    lines: list[str] = []
    recipe = recipe_for("synthetic:4").with_values(
        {"preset": "resnext_tiny", "device": "cpu", "images_per_class": 16, "batch_size": 16, **values}
    )
    return train(recipe, {}, folder=folder, tell_epoch=lines.append), lines


@pytest.mark.parametrize("sizes", [{"batch_size": 1}, {"batch_size": 4, "micro_batch": 1}])
def test_one_image_whose_last_features_have_one_pixel_is_too_few_for_a_pass(
    sizes: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="raise `batch_size` or `micro_batch`"):
        run_of(tmp_path, preset="resnext17_10x1d", train_size=4, epochs=1, **sizes)


def test_one_line_per_epoch_names_what_it_says(tmp_path: Path) -> None:
    result, lines = run_of(tmp_path, epochs=2, lr=0.05)
    row = result.last
    assert len(lines) == 2
    assert lines[1] == (
        f"epoch 2/2: lr {row['lr']:.4g}, training loss {row['train_loss']:.4f}, training accuracy "
        f"{row['train_accuracy']:.2%}, validation accuracy {row['val_accuracy']:.2%}, "
        f"{row['images_per_second']:.0f} images/s, 0:00:00 left"
    )


@pytest.mark.parametrize("on_updates", [False, True])
def test_the_learning_rate_changes_at_every_step_or_every_epoch(
    on_updates: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[float] = []
    train_step = Trainer._train_step

    def seen(trainer: Trainer, *batch: Any) -> None:
        train_step(trainer, *batch)
        used.append(trainer.optimizer.param_groups[0]["lr"])

    monkeypatch.setattr(Trainer, "_train_step", seen)
    result, _ = run_of(tmp_path, epochs=2, lr=0.05, batch_size=16, sched_on_updates=on_updates)
    recipe = result.run.recipe
    per_epoch = len(used) // 2
    assert per_epoch == 4
    expected = [number / per_epoch if on_updates else number // per_epoch for number in range(len(used))]
    assert used == [recipe.learning_rate(epoch) for epoch in expected]
    assert len(set(used)) == (8 if on_updates else 2)


def test_a_request_to_stop_during_an_evaluation_saves_first_and_resumes_to_the_same_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("codedtool.training.evaluation._REPORT_SECONDS", -1.0)
    undisturbed, _ = run_of(tmp_path, epochs=2, lr=0.05)
    budget = Budget()
    phases: list[str] = []

    def progress(phase: str, *_: object) -> None:
        phases.append(phase)
        if phase == "evaluating" and phases.count(phase) > 1:
            assert budget.is_watched
            budget.interrupt()

    with pytest.raises(Interrupted, match="e0000s000004 is saved; continue with `resume`"):
        train(undisturbed.run.recipe, {}, folder=tmp_path, run_name="stopped", budget=budget, progress=progress)
    assert not budget.is_watched
    assert phases.count("evaluating") == 2
    resumed = resume(Run.load("stopped", folder=tmp_path))
    weights = [one.checkpoints.load("last").weights for one in (undisturbed.run, resumed.run)]
    assert all(torch.equal(tensor, weights[1][key]) for key, tensor in weights[0].items())
    assert resumed.last | {"images_per_second": 0} == undisturbed.last | {"images_per_second": 0}


def test_an_epoch_that_goes_on_with_its_evaluation_has_the_speed_of_the_epoch_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("codedtool.training.evaluation._REPORT_SECONDS", -1.0)
    budget = Budget()
    phases: list[str] = []

    def progress(phase: str, *_: object) -> None:
        if phases[-1:] != [phase]:
            phases.append(phase)
        if phases.count("evaluating") == 2:
            budget.interrupt()

    recipe = run_of(tmp_path, epochs=2, lr=0.05)[0].run.recipe
    with pytest.raises(Interrupted):
        train(recipe, {}, folder=tmp_path, run_name="stopped", budget=budget, progress=progress)
    lines: list[str] = []
    resumed = resume(Run.load("stopped", folder=tmp_path), tell_epoch=lines.append)
    first, second = resumed.run.metrics()
    assert second["images_per_second"] == first["images_per_second"] > 0
    assert f"{first['images_per_second']:.0f} images/s" in lines[-1]


def test_gradients_of_micro_batches_stay_on_their_rank_in_a_compiled_network_too() -> None:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        parallel = nn.parallel.DistributedDataParallel(nn.Linear(2, 2))
        runtime = TorchRuntime(Recipe(device="cpu", precision="fp32"), "cpu")
        for prepared in (parallel, Compiled(parallel, is_main=True)):
            assert parallel.require_backward_grad_sync
            with runtime.accumulate(prepared):
                assert not parallel.require_backward_grad_sync
    finally:
        dist.destroy_process_group()


def test_a_run_from_before_a_setting_existed_keeps_what_its_default_stands_for(tmp_path: Path) -> None:
    recipe = RECIPES["small"].with_values({"data": "digits", "preset": "resnext_tiny"})
    data = load_dataset("digits")
    run = Run.create(recipe, {}, data.classes, data.normalization, name="old", folder=tmp_path)
    assert Run.load(run.path).recipe == recipe
    document = json.loads((run.path / "config.json").read_text())
    assert document["recipe"].pop("sched_on_updates") is True
    (run.path / "config.json").write_text(json.dumps(document))
    assert Run.load(run.path).recipe == recipe.with_values({"sched_on_updates": False})


def test_training_stops_when_the_validation_accuracy_no_longer_rises(tmp_path: Path) -> None:
    result, lines = run_of(tmp_path, epochs=30, lr=0.0, early_stop_epochs=2)
    accuracies = [row["val_accuracy"] for row in result.run.metrics()]
    assert len(accuracies) == result.epochs < 30
    for epoch in range(2, result.epochs + 1):
        risen = max(accuracies[epoch - 2 : epoch]) > max([-1.0, *accuracies[: epoch - 2]])
        assert risen == (epoch < result.epochs)
    assert lines[-1].startswith(f"stopped after epoch {result.epochs}: the validation accuracy has not risen above ")
    assert resume(result.run).epochs == result.epochs


@pytest.mark.parametrize(
    ("values", "cause"),
    [
        ({"lr": 1e-7, "epochs": 13}, r"`lr` 1e-07 is likely too low for batches of 16: the recipe digits has 0\.025"),
        ({"lr": 0.0, "epochs": 5, "batch_size": 64}, "5 steps are few: lower `batch_size` 64"),
    ],
)
def test_a_training_that_does_not_learn_ends_with_the_cause_and_the_fix(
    values: dict[str, Any], cause: str, tmp_path: Path
) -> None:
    with pytest.warns(UserWarning, match=r"has not learned anything after epoch .*\(chance: 1\.386\).*" + cause):
        run_of(tmp_path, **values)


def test_a_training_that_learns_ends_without_a_warning(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run_of(tmp_path, epochs=13, lr=0.02)
