"""The loop itself: gradients accumulated over micro-batches, and synchronised BatchNorm, against their plain twins."""

from __future__ import annotations

from pathlib import Path

import pytest
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


@pytest.mark.parametrize("micro_batch", [20, 32])
def test_accumulated_gradients_are_those_of_the_whole_batch(
    micro_batch: int, scheme: CodingScheme, tmp_path: Path
) -> None:
    torch.set_num_threads(1)
    weights = {}
    for micro in (0, micro_batch):
        recipe = recipe_for("digits").with_values(
            {"preset": "coded_resnext_tiny", "epochs": 1, "batch_size": 360, "micro_batch": micro, "device": "cpu"}
        )
        data = load_dataset("digits")
        run = Run.create(
            recipe, {"s3": scheme}, data.classes, data.normalization, name=f"micro{micro}", folder=tmp_path
        )
        with opened_runtime(recipe) as runtime:
            network = run.build_network()
            for module in network.modules():
                if type(module) is nn.BatchNorm2d:
                    module.__class__ = FixedBatchNorm2d
                    nn.init.ones_(module.weight)
            trainer = Trainer(run, network, runtime.prepare(network), data, runtime, budget=Budget(), progress=silent)
            trainer.fit()
        weights[micro] = network.state_dict()
        assert trainer.history[-1]["train_loss"] > 0
    for key, tensor in weights[0].items():
        torch.testing.assert_close(weights[micro_batch][key], tensor, rtol=1e-3, atol=1e-4)
    assert not torch.equal(weights[0]["fc.weight"], run.build_network().state_dict()["fc.weight"])
