"""The optimizer, and the moving average of the weights."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from codedtool.training.recipe import Recipe


def build_optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.SGD:
    """Build SGD with the recipe's momentum and weight decay (section 4.1); the loop sets the learning rate.

    Without ``norm_decay``, one-dimensional parameters (BatchNorm) have no weight decay, as in timm.
    """
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for parameter in network.parameters():
        (decayed if recipe.norm_decay or parameter.dim() > 1 else free).append(parameter)
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": free, "weight_decay": 0.0}]
    return torch.optim.SGD(
        [group for group in groups if group["params"]],
        lr=recipe.learning_rate(0),
        momentum=recipe.momentum,
        nesterov=recipe.nesterov and recipe.momentum > 0,
    )


def build_average(network: nn.Module, recipe: Recipe) -> AveragedModel | None:
    """Build the exponential moving average of weights and buffers; None if the recipe's ``ema_decay`` is 0."""
    if recipe.ema_decay == 0:
        return None
    return AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema_decay), use_buffers=True)
