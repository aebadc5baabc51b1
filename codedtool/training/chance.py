"""Whether a training is better than chance, and what to change if it is not."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from codedtool.training.recipe import Recipe
from codedtool.training.recipes import own_lr

# A loss above this part of the classes' entropy is near chance; fewer steps than these are too few to learn.
_NEAR_CHANCE = 0.97
_FEW_STEPS = 50


def no_better_than_chance(
    row: Mapping[str, Any],
    recipe: Recipe,
    targets: np.ndarray,
    num_classes: int,
    *,
    num_images: int,
    steps: int,
    at_end: bool,
) -> str | None:
    """Say for people that a network has learned nothing, and what to change; None if it has, or if it is too early.

    Chance is the accuracy of naming the most frequent class, with three standard deviations of it over an epoch's
    images, and a loss near the entropy of the classes (ln K if they are equally frequent).

    Args:
        row: the metrics of the last epoch.
        recipe: the training's values.
        targets: classes of the training images, (n,).
        num_classes: K.
        num_images: images of the last epoch.
        steps: optimizer steps so far.
        at_end: whether no epoch follows.
    """
    counts = np.bincount(targets, minlength=num_classes)
    shares = (counts > 0) / np.count_nonzero(counts) if recipe.balanced else counts / counts.sum()
    entropy = -float(np.sum(shares[shares > 0] * np.log(shares[shares > 0])))
    chance = float(shares.max())
    bound = chance + 3 * math.sqrt(chance * (1 - chance) / max(1, num_images))
    if row["train_loss"] < _NEAR_CHANCE * entropy or row["train_accuracy"] > bound:
        return None
    of_recipe = own_lr(recipe)
    found = f"`lr` {recipe.lr:g} is likely too {{}} for batches of {recipe.batch_size}"
    instead = f"the recipe {recipe.recipe} has {of_recipe:.4g} for them; train again with that, or without `lr`"
    if steps < _FEW_STEPS:
        if not at_end or recipe.epochs < 5:
            return None
        cause = f"{steps} steps are few: lower `batch_size` {recipe.batch_size}, or raise `epochs`"
    elif recipe.lr > 1.5 * of_recipe:
        cause = f"{found.format('high')}: {instead}"
    elif recipe.lr < 0.05 * of_recipe:
        cause = f"{found.format('low')}: {instead}"
    else:
        cause = f"{found.format('high')}: train again with {recipe.lr / 10:.4g}"
    return (
        f"the network has not learned anything after epoch {row['epoch']}: training loss {row['train_loss']:.3f} "
        f"(chance: {entropy:.3f}), training accuracy {row['train_accuracy']:.2%} (chance: {chance:.2%}); {cause}"
    )
