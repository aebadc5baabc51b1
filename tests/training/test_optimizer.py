"""Weight decay and the moving average of the weights."""

from __future__ import annotations

import pytest
from torch import nn

from codedtool.training.optimizer import build_average, build_optimizer
from codedtool.training.recipe import Recipe


def test_weight_decay_reaches_batch_norm_only_where_the_recipe_says_so() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4))
    decays = {
        norm_decay: {
            parameter.dim(): group["weight_decay"]
            for group in build_optimizer(network, Recipe(norm_decay=norm_decay, weight_decay=0.5)).param_groups
            for parameter in group["params"]
        }
        for norm_decay in (True, False)
    }
    assert decays == {True: {4: 0.5, 1: 0.5}, False: {4: 0.5, 1: 0.0}}


def test_the_moving_average_is_off_by_default_and_decays_as_told() -> None:
    network = nn.Linear(1, 1, bias=False)
    nn.init.constant_(network.weight, 1.0)
    assert build_average(network, Recipe()) is None
    average = build_average(network, Recipe(ema_decay=0.75))
    assert average is not None
    average.update_parameters(network)
    nn.init.constant_(network.weight, 5.0)
    average.update_parameters(network)
    assert average.module.weight.item() == pytest.approx(0.75 * 1.0 + 0.25 * 5.0)
