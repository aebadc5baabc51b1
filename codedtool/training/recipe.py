"""Every value of a training run in one frozen `Recipe`, and the paper's recipes (section 4.1, appendix B)."""

from __future__ import annotations

import dataclasses
import difflib
import math
import tomllib
import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

from codedtool.errors import InputError

DEVICES = ("auto", "cpu", "cuda", "xla")
PRECISIONS = ("fp32", "bf16", "fp16")


class SettingIgnored(UserWarning):
    """A setting that was given has no effect; the message says why."""


def ignored(message: str) -> None:
    """Warn that a setting has no effect."""
    warnings.warn(message, SettingIgnored, stacklevel=3)


def _value(default: Any, help_text: str, *, result: bool = True) -> Any:
    """A field with its one line of help; ``result=False`` marks what may change when a run is resumed."""
    return dataclasses.field(default=default, metadata={"help": help_text, "result": result})


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Every value of a training run; the defaults are the paper's CIFAR-10 recipe (appendix B).

    Each field is a flag of ``codedtool train`` and a key of its ``--config`` file; its help is in the field's
    metadata. Fields whose metadata says ``result`` decide the result and cannot change when a run is resumed.

    Raises:
        InputError: a value out of its range; names the key, the rule and the value.
    """

    data: str = _value("cifar10", "cifar10, cifar100, folder:PATH, digits or synthetic:K.")
    preset: str = _value("", "The architecture; empty: the one that fits the data and the schemes.")
    epochs: int = _value(300, "Epochs in all, warm-up and cool-down included.")
    batch_size: int = _value(512, "Images per optimizer step, over all devices.")
    micro_batch: int = _value(0, "Images per forward on one device; gradients accumulate. 0: no splitting.")
    lr: float = _value(0.1, "Highest learning rate.")
    min_lr: float = _value(1e-5, "Learning rate at the end of the cosine.")
    warmup_epochs: int = _value(0, "Epochs of linear warm-up, counted within the cosine.")
    warmup_lr: float = _value(1e-4, "Learning rate of the first warm-up epoch.")
    cooldown_epochs: int = _value(0, "Last epochs, at min_lr.")
    momentum: float = _value(0.9, "Momentum of SGD.")
    nesterov: bool = _value(True, "Nesterov's momentum.")
    weight_decay: float = _value(5e-4, "Weight decay.")
    norm_decay: bool = _value(True, "Decay the BatchNorm parameters too.")
    label_smoothing: float = _value(0.0, "Label smoothing of the classification loss.")
    mu: float = _value(6.0, "Weight of the coding losses (eq. 6).")
    p_drop: float = _value(0.1, "Probability with which dropSubNNs drops a subNN.")
    exponent: float = _value(4.0, "Exponent of the coding loss (eq. 5).")
    threshold: float = _value(0.0, "Error of an energy that the coding loss does not count (eq. 5 has 0).")
    energy_norm: bool = _value(True, "Energy Normalization (eq. 2-3).")
    concatenate: bool = _value(False, "Concatenate the subNNs' outputs instead of adding them (section 4.3.1).")
    gradient_masking: bool = _value(False, "No gradient through a class's inactive subNNs (appendix E; with --mu 0).")
    shortcuts: bool = _value(True, "The connections around the blocks (appendix E goes without).")
    permutation: int = _value(
        0, "Seed of a random order of the schemes' columns, and of their rows; 0: as they are (section 3.2.1)."
    )
    crop_padding: int = _value(4, "Pixels of padding before a random crop of the image's own size.")
    random_resized_crop: bool = _value(False, "Crop a random part and resize it to train_size.")
    flip: float = _value(0.5, "Probability of a horizontal flip.")
    randaugment: str = _value("rand-m4-n3", "timm's RandAugment policy; empty: none.")
    erasing: float = _value(0.0, "Probability of random erasing.")
    erasing_count: int = _value(1, "Most rectangles that random erasing erases.")
    images_per_class: int = _value(0, "Train on the first so many images of each class only; 0: on all.")
    train_size: int = _value(32, "Side of a training image, in pixels.")
    eval_size: int = _value(32, "Side of an image in evaluation, in pixels.")
    ema_decay: float = _value(0.0, "Decay of the exponential moving average of the weights; 0: none.")
    sync_bn: bool = _value(False, "BatchNorm statistics over all devices instead of each one's own.")
    skip_bad_images: bool = _value(False, "Leave out images that cannot be read instead of stopping.")
    seed: int = _value(0, "Seed of the initial weights, the order, the augmentation and dropSubNNs.")
    precision: str = _value("fp32", "fp32, bf16 or fp16: of convolutions and products; energies stay fp32.")
    channels_last: bool = _value(True, "Keep images channels last in memory (cpu and cuda).", result=False)
    compile: bool = _value(False, "Compile the network with torch.compile.", result=False)
    data_dir: str = _value("data", "Where downloaded data sets lie.", result=False)
    device: str = _value("auto", "auto, cpu, cuda or xla.", result=False)
    num_workers: int = _value(
        -1, "Processes that prepare images, per device, where that is slow work; -1: by the cores.", result=False
    )
    checkpoint_minutes: float = _value(
        10.0, "Minutes between checkpoints within an epoch; 0: after every step.", result=False
    )
    tensorboard: bool = _value(False, "Write the metrics for TensorBoard too.", result=False)

    def __post_init__(self) -> None:
        for key, kind in value_types().items():
            object.__setattr__(self, key, _typed(key, kind, getattr(self, key)))
        for key, low, high in _RANGES:
            value = getattr(self, key)
            if not low <= value <= high:
                limit = f"{low:g} to {high:g}" if high < math.inf else f"at least {low:g}"
                raise InputError(f"{flag(key)} must be {limit}, got {value!r}")
        for key, choices in (("device", DEVICES), ("precision", PRECISIONS)):
            if getattr(self, key) not in choices:
                raise InputError(f"{flag(key)} must be one of {', '.join(choices)}, got {getattr(self, key)!r}")
        if self.warmup_epochs + self.cooldown_epochs >= self.epochs and self.warmup_epochs + self.cooldown_epochs > 0:
            raise InputError(
                f"--warmup-epochs {self.warmup_epochs} and --cooldown-epochs {self.cooldown_epochs} "
                f"leave nothing of --epochs {self.epochs}; make --epochs larger"
            )

    def learning_rate(self, epoch: int) -> float:
        """The learning rate of 0-based ``epoch``: warm-up, cosine per epoch, cool-down (section 4.1, appendix B).

        As timm's cosine schedule: the warm-up replaces the first epochs of the cosine instead of delaying it, and
        the cosine reaches min_lr where the cool-down begins.
        """
        if epoch < self.warmup_epochs:
            return self.warmup_lr + (self.lr - self.warmup_lr) * epoch / self.warmup_epochs
        length = self.epochs - self.cooldown_epochs
        if epoch >= length:
            return self.min_lr
        return self.min_lr + (self.lr - self.min_lr) * (1 + math.cos(math.pi * epoch / length)) / 2

    def with_values(self, values: Mapping[str, Any]) -> Recipe:
        """This recipe with some values replaced.

        Raises:
            InputError: an unknown key (the nearest one is named), a value of the wrong type or out of range.
        """
        for key in values:
            check_key(key, value_types())
        return dataclasses.replace(self, **values)

    def differences(self, other: Recipe, *, only_result: bool) -> dict[str, tuple[Any, Any]]:
        """Key -> (this value, other value) where the two differ; ``only_result``: only keys that decide the result."""
        found = {}
        for field in dataclasses.fields(self):
            mine, theirs = getattr(self, field.name), getattr(other, field.name)
            if mine != theirs and (field.metadata["result"] or not only_result):
                found[field.name] = (mine, theirs)
        return found

    def to_json(self) -> dict[str, Any]:
        """Every value under its key, plain JSON types."""
        return dataclasses.asdict(self)


# Key, lowest, highest allowed.
_RANGES: tuple[tuple[str, float, float], ...] = (
    ("epochs", 1, math.inf),
    ("batch_size", 1, math.inf),
    ("micro_batch", 0, math.inf),
    ("lr", 0, math.inf),
    ("min_lr", 0, math.inf),
    ("warmup_epochs", 0, math.inf),
    ("warmup_lr", 0, math.inf),
    ("cooldown_epochs", 0, math.inf),
    ("momentum", 0, 1),
    ("weight_decay", 0, math.inf),
    ("label_smoothing", 0, 1),
    ("mu", 0, math.inf),
    ("p_drop", 0, 0.99),
    ("exponent", 1, 16),
    ("threshold", 0, 1),
    ("permutation", 0, 2**31 - 1),
    ("crop_padding", 0, 512),
    ("flip", 0, 1),
    ("erasing", 0, 1),
    ("erasing_count", 1, 100),
    ("images_per_class", 0, math.inf),
    ("train_size", 4, 4096),
    ("eval_size", 4, 4096),
    ("ema_decay", 0, 1),
    ("seed", 0, 2**31 - 1),
    ("num_workers", -1, 256),
    ("checkpoint_minutes", 0, math.inf),
)


@cache
def value_types() -> dict[str, type]:
    """Key -> type (int, float, bool or str) of every value of a `Recipe`."""
    kinds = get_type_hints(Recipe)
    return {field.name: kinds[field.name] for field in dataclasses.fields(Recipe)}


def help_texts() -> dict[str, str]:
    """Key -> one line of help."""
    return {field.name: field.metadata["help"] for field in dataclasses.fields(Recipe)}


def default_data(num_classes: int, data_dir: str) -> str:
    """The data set that K = ``num_classes`` stands for: cifar10, cifar100, or ImageNet in ``data_dir``/imagenet.

    Raises:
        InputError: for any other K; says what to pass.
    """
    known = {10: "cifar10", 100: "cifar100", 1000: f"folder:{data_dir}/imagenet"}
    if num_classes not in known:
        raise InputError(
            f"no data set follows from K = {num_classes} (10: cifar10, 100: cifar100, 1000: ImageNet); "
            "pass --data folder:PATH (a folder with train/ and val/) or --data synthetic:K"
        )
    return known[num_classes]


def recipe_for(data: str) -> Recipe:
    """The recipe that a data set is trained with unless told otherwise, with ``data`` in it.

    Raises:
        InputError: ``data`` names no known kind of data set.
    """
    kind = data.partition(":")[0]
    check_key(kind, RECIPES, what="--data")
    return dataclasses.replace(RECIPES[kind], data=data)


def warn_of_ignored(recipe: Recipe, given: Collection[str], *, coded: bool) -> None:
    """Warn about every key in ``given`` that has no effect beside the recipe's other values.

    Args:
        given: the keys that the user set.
        coded: whether any stage is coded.
    """
    reasons = {
        "warmup_lr": "--warmup-epochs is 0" if not recipe.warmup_epochs else None,
        "nesterov": "--momentum is 0" if recipe.nesterov and not recipe.momentum else None,
        "erasing_count": "--erasing is 0" if not recipe.erasing else None,
        "crop_padding": "--random-resized-crop is on" if recipe.random_resized_crop and recipe.crop_padding else None,
        "norm_decay": "--weight-decay is 0" if recipe.norm_decay and not recipe.weight_decay else None,
        **dict.fromkeys(_CODED_KEYS, None if coded else "no stage is coded"),
        "channels_last": "XLA keeps its own layout" if recipe.device == "xla" else None,
    }
    for key, reason in reasons.items():
        if key in given and reason is not None:
            ignored(f"{flag(key)} has no effect: {reason}")


# What only coded blocks look at.
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


def read_config(path: Path, keys: Mapping[str, Any]) -> dict[str, Any]:
    """The table of a TOML file whose keys are all in ``keys`` (``-`` and ``_`` are the same).

    Raises:
        InputError: no such file, not TOML, an unknown key (the nearest one is named) or a table instead of a value.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"--config {path}: cannot be read ({error.strerror or error})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"--config {path}: not a TOML file ({error})") from None
    found = {}
    for key, value in values.items():
        name = key.replace("-", "_")
        check_key(name, keys, what=f"--config {path}: key")
        if isinstance(value, dict):
            raise InputError(f"--config {path}: key {key!r} must be a value, not a table; keys stand at the top level")
        found[name] = value
    return found


def check_key(key: str, known: Mapping[str, Any], *, what: str = "setting") -> None:
    """Raise InputError that names the nearest known key unless ``key`` is one."""
    if key not in known:
        near = difflib.get_close_matches(key, list(known), n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
        raise InputError(f"{what} {key!r} is unknown; {hint}")


def flag(key: str) -> str:
    """The command-line flag of a key: batch_size -> --batch-size."""
    return "--" + key.replace("_", "-")


def _typed(key: str, kind: type, value: Any) -> Any:
    """``value`` as ``kind``; an int is taken where a float belongs, nothing else is converted."""
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        raise InputError(f"{key} must be {_KINDS[kind]}, got {value!r}")
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{key} must be finite, got {value!r}")
    return value


_KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


_CIFAR10 = Recipe()

# The ImageNet recipe is timm's for a ResNeXt-50 at 160 px, with the paper's mu and 250 epochs (appendix B).
_IMAGENET = Recipe(
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

# Not the paper's: small enough that two CPU cores finish it while one waits.
_DIGITS = Recipe(
    data="digits",
    epochs=30,
    batch_size=64,
    crop_padding=1,
    flip=0.0,
    randaugment="",
    mu=2.0,
    train_size=8,
    eval_size=8,
)

RECIPES: Mapping[str, Recipe] = {
    "cifar10": _CIFAR10,
    "cifar100": dataclasses.replace(_CIFAR10, data="cifar100", randaugment="rand-m2-n1"),
    "folder": _IMAGENET,
    "digits": _DIGITS,
    "synthetic": dataclasses.replace(_DIGITS, data="synthetic:10", crop_padding=0, train_size=16, eval_size=16),
}
