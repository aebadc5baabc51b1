"""The loop itself: gradients accumulated over micro-batches, and synchronised BatchNorm, against their plain twins."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from torch import nn

from codedtool.budget import Budget, silent
from codedtool.coding.scheme import CodingScheme
from codedtool.data import load_dataset
from codedtool.training.devices import opened_runtime
from codedtool.training.loop import Trainer
from codedtool.training.recipe import recipe_for
from codedtool.training.run import Run


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
