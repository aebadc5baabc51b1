"""The paper's recipes by name (section 4.1, appendix B) and some for a CPU, and the choice of one for a data set."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping
from typing import Any

from codedtool.errors import InputError
from codedtool.training.recipe import Recipe
from codedtool.training.settings import check_key, ignored

# For a few thousand images on a CPU or one GPU; not from the paper. The learning rate per image is that of the paper's
# ImageNet recipe.
_SMALL = Recipe(
    recipe="small",
    data="folder:",
    epochs=40,
    batch_size=64,
    lr=0.025,
    warmup_epochs=3,
    label_smoothing=0.1,
    mu=2.0,
    randaugment="",
    precision="auto",
    sched_on_updates=True,
)

# For weights that have learned already: few epochs at a low learning rate; not from the paper.
_FINETUNE = dataclasses.replace(_SMALL, recipe="finetune", epochs=8, lr=0.01, warmup_epochs=1)

_CIFAR10 = Recipe()

# The ImageNet recipe is timm's for a ResNeXt-50 at 160 pixels, with the paper's mu and 250 epochs (appendix B).
_IMAGENET = Recipe(
    recipe="imagenet",
    data="folder:",
    epochs=250,
    batch_size=1536,
    lr=0.6,
    warmup_epochs=5,
    cooldown_epochs=10,
    weight_decay=1e-4,
    norm_decay=False,
    label_smoothing=0.1,
    mu=2.0,
    crop_padding=0,
    random_resized_crop=True,
    randaugment="rand-m7-mstd0.5-inc1",
    erasing=0.4,
    erasing_count=3,
    train_size=160,
    eval_size=224,
)

# Not from the paper: small enough for two CPU cores to finish in a minute.
_DIGITS = Recipe(
    recipe="digits",
    data="digits",
    epochs=30,
    batch_size=64,
    crop_padding=1,
    flip=0.0,
    randaugment="",
    mu=2.0,
    train_size=8,
    eval_size=8,
    precision="auto",
)

# Not from the paper: CIFAR-10 on two CPU cores in less than an hour. Small batches take more steps, which few epochs
# need, and are no slower on a CPU. In short trainings half of the paper's p_drop gives more accuracy, and binary
# classifiers that are as good (benchmarks/cifar10/README.md, figure 5).
_CIFAR10_CPU = dataclasses.replace(
    _CIFAR10,
    recipe="cifar10-cpu",
    epochs=36,
    batch_size=64,
    lr=0.05,
    warmup_epochs=2,
    warmup_lr=0.01,
    p_drop=0.05,
    randaugment="",
    precision="auto",
    sched_on_updates=True,
)

# Name -> recipe. The paper's three, and four that are not from the paper.
RECIPES: Mapping[str, Recipe] = {
    "cifar10": _CIFAR10,
    "cifar10-cpu": _CIFAR10_CPU,
    "cifar100": dataclasses.replace(_CIFAR10, recipe="cifar100", data="cifar100", randaugment="rand-m2-n1"),
    "imagenet": _IMAGENET,
    "small": _SMALL,
    "finetune": _FINETUNE,
    "digits": _DIGITS,
}

# Kind of a data set -> name of its default recipe.
_RECIPE_OF = {
    "cifar10": "cifar10",
    "cifar100": "cifar100",
    "folder": "imagenet",
    "digits": "digits",
    "synthetic": "digits",
}

# Side of a data set's images, in pixels.
_SIDES = {"cifar10": 32, "cifar100": 32, "digits": 8, "synthetic": 16}

# Sizes that images are trained at; the one nearest to their own size is taken.
_SIZES = (8, 16, 32, 64, 96, 128, 160)

# Bounds of `recipe_of_folder`: the largest side of a small image, and numbers of images that are many. RandAugment and
# hundreds of epochs, which the paper's recipes have, pay from about these numbers on.
_SMALL_SIDE = 64
_MANY_SMALL, _MANY_LARGE = 20_000, 100_000


def default_data(num_classes: int, data_dir: str) -> str:
    """Name the data set that K = ``num_classes`` stands for: cifar10, cifar100, or ImageNet in ``data_dir``/imagenet.

    Raises:
        InputError: no data set stands for this K.
    """
    known = {10: "cifar10", 100: "cifar100", 1000: f"folder:{data_dir}/imagenet"}
    if num_classes not in known:
        raise InputError(
            f"no data set is known for K = {num_classes} (10: cifar10, 100: cifar100, 1000: ImageNet); "
            "give `data` as folder:PATH (a folder with train/ and val/) or synthetic:K"
        )
    return known[num_classes]


def recipe_for(data: str, name: str | None = None, *, side: int | None = None) -> Recipe:
    """Return a recipe by name, or the default recipe of a data set, with ``data`` in it.

    The sizes of the images in training and evaluation follow the data set's images, except in the ImageNet recipe,
    which resizes them to its own.

    Args:
        data: cifar10, cifar100, folder:PATH, digits or synthetic:K.
        name: name of the recipe, a key of `RECIPES`; None: the data set's own, which is imagenet for a folder.
        side: shorter side of a folder's images in pixels; None: the recipe's sizes stay.

    Raises:
        InputError: ``data`` names no known kind of data set, or ``name`` no recipe.

    Example:
        >>> recipe = recipe_for("digits")
        >>> recipe.epochs, recipe.train_size
        (30, 8)
    """
    kind = data.partition(":")[0]
    check_key(kind, _RECIPE_OF, what="`data`")
    name = name or _RECIPE_OF[kind]
    check_key(name, RECIPES, what="`recipe`")
    recipe = dataclasses.replace(RECIPES[name], data=data)
    side = side or side_of(data)
    if side is None or recipe.random_resized_crop:
        return recipe
    size = min(_SIZES, key=lambda size: abs(math.log(side / size)))
    # An eighth of the side, as the paper pads CIFAR's 32 pixels with 4. Made-up images are not varied.
    varied = recipe.crop_padding and not (kind == "synthetic" and name == "digits")
    return dataclasses.replace(recipe, train_size=size, eval_size=size, crop_padding=size // 8 if varied else 0)


def side_of(data: str) -> int | None:
    """Side in pixels of the images of a data set whose images all have one size by its name; None for a folder."""
    return _SIDES.get(data.partition(":")[0])


def recipe_of_folder(num_images: int, side: int) -> tuple[str, str]:
    """Choose the recipe that a folder's images call for.

    Args:
        num_images: number of training images.
        side: median of their shorter sides, in pixels.

    Returns:
        Name of the recipe and the reason, for people.

    Example:
        >>> recipe_of_folder(1_281_167, 400)
        ('imagenet', 'at least 100,000 images of more than 64 px')
        >>> recipe_of_folder(3_000, 160)
        ('small', 'fewer than 100,000 images of more than 64 px')
    """
    size = f"more than {_SMALL_SIDE} px" if side > _SMALL_SIDE else f"at most {_SMALL_SIDE} px"
    few, many = (_MANY_LARGE, "imagenet") if side > _SMALL_SIDE else (_MANY_SMALL, "cifar10")
    if num_images >= few:
        return many, f"at least {few:,} images of {size}"
    return "small", f"fewer than {few:,} images of {size}"


def composed(base: Recipe, values: Mapping[str, Any]) -> tuple[Recipe, list[str]]:
    """Set values of a recipe, and let the values that belong to them follow unless they are set too.

    The learning rate belongs to the batch and is scaled linearly with it (Goyal et al., 2017). With fewer epochs than
    the recipe's, warm-up and cool-down shrink in proportion.

    Args:
        base: the recipe.
        values: key -> value that the user set.

    Returns:
        The recipe, and one line for people about every value that followed.

    Raises:
        InputError: as `Recipe.with_values`.

    Example:
        >>> recipe, lines = composed(recipe_for("folder:photos"), {"batch_size": 32, "epochs": 50})
        >>> recipe.lr, recipe.warmup_epochs, recipe.cooldown_epochs
        (0.0125, 1, 2)
        >>> lines[0]
        'learning rate 0.0125: 0.6 for batches of 1536, scaled to batches of 32 (`lr` sets another)'
    """
    # Without warm-up and cool-down, which may not fit yet, but with every value checked.
    given = base.with_values({"warmup_epochs": 0, "cooldown_epochs": 0, **values})
    followers: dict[str, Any] = {}
    lines = []
    if given.batch_size != base.batch_size and "lr" not in values:
        followers["lr"] = round(base.lr * given.batch_size / base.batch_size, 12)
        lines.append(
            f"learning rate {followers['lr']:.4g}: {base.lr:g} for batches of {base.batch_size}, scaled to batches of "
            f"{given.batch_size} (`lr` sets another)"
        )
    if given.epochs < base.epochs:
        for key in ("warmup_epochs", "cooldown_epochs"):
            old = getattr(base, key)
            new = int(old * given.epochs / base.epochs + 0.5)
            if key not in values and new != old:
                followers[key] = new
                name = key.partition("_")[0]
                lines.append(f"{name} of {new} epochs: the recipe has {old} of {base.epochs} (`{key}` sets another)")
    return base.with_values({**values, **followers}), lines


def own_lr(recipe: Recipe) -> float:
    """The learning rate that the recipe of this name has for this batch size."""
    named = RECIPES[recipe.recipe]
    return named.lr * recipe.batch_size / named.batch_size


# Settings that only coded blocks use.
_CODED_KEYS = (
    "mu",
    "p_drop",
    "exponent",
    "threshold",
    "energy_norm",
    "concatenate",
    "gradient_masking",
    "permutation",
)


def warn_of_ignored(recipe: Recipe, given: Collection[str], *, coded: bool) -> None:
    """Warn about every given key that has no effect beside the recipe's other values.

    Args:
        given: the keys that the user set.
        coded: whether any stage is coded.
    """
    reasons = {
        "warmup_lr": "`warmup_epochs` is 0" if not recipe.warmup_epochs else None,
        "nesterov": "`momentum` is 0" if recipe.nesterov and not recipe.momentum else None,
        "erasing_count": "`erasing` is 0" if not recipe.erasing else None,
        "crop_padding": "`random_resized_crop` is on" if recipe.random_resized_crop and recipe.crop_padding else None,
        "norm_decay": "`weight_decay` is 0" if recipe.norm_decay and not recipe.weight_decay else None,
        **dict.fromkeys(_CODED_KEYS, None if coded else "no stage is coded"),
        "split_seed": "`split` is 0" if not recipe.split else None,
        "channels_last": "XLA keeps its own layout" if recipe.device == "xla" else None,
    }
    for key, reason in reasons.items():
        if key in given and reason is not None:
            ignored(f"`{key}` has no effect: {reason}")
