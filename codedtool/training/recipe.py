"""Every value of a training run in one frozen `Recipe` of four sections."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from codedtool.errors import InputError
from codedtool.training.settings import Setting, check_key

_MAX_SEED = 2**31 - 1


@dataclass(frozen=True, kw_only=True)
class NetworkSettings:
    """Section "network": the architecture, the coding loss and the ablations."""

    preset: Annotated[str, Setting("Architecture by name; empty: the one that fits the data set and the schemes.")] = ""
    mu: Annotated[float, Setting("Weight of the coding losses in the total loss (eq. 6).", low=0)] = 6.0
    p_drop: Annotated[
        float, Setting("Probability that dropSubNNs drops a subNN in training (section 3.1.3).", low=0, high=0.99)
    ] = 0.1
    exponent: Annotated[float, Setting("Exponent of the coding loss (eq. 5; paper: 4).", low=1, high=16)] = 4.0
    threshold: Annotated[
        float, Setting("Energy errors below this cost nothing in the coding loss (paper: 0).", low=0, high=1)
    ] = 0.0
    energy_norm: Annotated[
        bool, Setting("Energy Normalization (eq. 2-3): scale each block's subNN outputs to a mean energy of 1.")
    ] = True
    concatenate: Annotated[bool, Setting("Concatenate the subNNs' outputs instead of adding them (section 4.3.1).")] = (
        False
    )
    gradient_masking: Annotated[
        bool,
        Setting(
            "Stop gradients through the outputs of subNNs that are inactive for an image's class (appendix E, where mu "
            "is 0)."
        ),
    ] = False
    shortcuts: Annotated[
        bool, Setting("Add a shortcut around every block; appendix E also trains without shortcuts.")
    ] = True
    permutation: Annotated[
        int,
        Setting(
            "Seed of a random order of the schemes' rows and columns (section 3.2.1); 0: keep their order.",
            low=0,
            high=_MAX_SEED,
        ),
    ] = 0


@dataclass(frozen=True, kw_only=True)
class OptimisationSettings:
    """Section "optimisation": epochs, learning rate, optimizer and regularization."""

    recipe: Annotated[
        str,
        Setting(
            "Recipe by name, which gives every value that is not set. Without it, the data set decides; for "
            "folder:PATH, the number and size of its images.",
            choices=("cifar10", "cifar10-cpu", "cifar100", "imagenet", "small", "finetune", "digits"),
        ),
    ] = "cifar10"
    epochs: Annotated[int, Setting("Number of epochs, including warm-up and cool-down.", low=1)] = 300
    early_stop_epochs: Annotated[
        int,
        Setting("Stop when the validation accuracy has not risen for this many epochs; 0: train all epochs.", low=0),
    ] = 0
    batch_size: Annotated[int, Setting("Images per optimizer step, all devices together.", low=1)] = 512
    micro_batch: Annotated[
        int,
        Setting(
            "Images per forward pass on one device; a larger batch is split and its gradients are added up. "
            "0: never split.",
            low=0,
        ),
    ] = 0
    lr: Annotated[float, Setting("Highest learning rate.", low=0)] = 0.1
    min_lr: Annotated[float, Setting("Learning rate at the end of the cosine schedule.", low=0)] = 1e-5
    warmup_epochs: Annotated[
        int, Setting("Epochs of linear warm-up; they replace the first epochs of the cosine schedule.", low=0)
    ] = 0
    warmup_lr: Annotated[float, Setting("Learning rate of the first warm-up epoch.", low=0)] = 1e-4
    cooldown_epochs: Annotated[
        int, Setting("Last epochs, trained at the learning rate that ends the cosine schedule.", low=0)
    ] = 0
    sched_on_updates: Annotated[
        bool,
        Setting(
            "Change the learning rate at every step instead of every epoch; the schedule is the same. A training of "
            "few epochs then also ends at a low learning rate."
        ),
    ] = False
    momentum: Annotated[float, Setting("Momentum of SGD.", low=0, high=1)] = 0.9
    nesterov: Annotated[bool, Setting("Use Nesterov's momentum.")] = True
    weight_decay: Annotated[float, Setting("Weight decay.", low=0)] = 5e-4
    norm_decay: Annotated[bool, Setting("Apply weight decay to the BatchNorm parameters too.")] = True
    label_smoothing: Annotated[float, Setting("Label smoothing of the classification loss.", low=0, high=1)] = 0.0
    ema_decay: Annotated[
        float,
        Setting(
            "Decay of a moving average of the weights; the average is evaluated and saved. 0: no average.",
            low=0,
            high=1,
        ),
    ] = 0.0
    seed: Annotated[
        int,
        Setting(
            "Seed of the initial weights, the order of the images, the augmentation and dropSubNNs.",
            low=0,
            high=_MAX_SEED,
        ),
    ] = 0


@dataclass(frozen=True, kw_only=True)
class ImageSettings:
    """Section "images": the data set and how its images are varied."""

    data: Annotated[str, Setting("Data set: cifar10, cifar100, folder:PATH, digits or synthetic:K.")] = "cifar10"
    data_dir: Annotated[str, Setting("Folder for downloaded data sets.", decides_result=False)] = "data"
    images_per_class: Annotated[
        int, Setting("Train on this many images of each class, the first ones; 0: on all images.", low=0)
    ] = 0
    split: Annotated[
        float,
        Setting(
            "Part of every class's images for validation, such as 0.2, where a folder has no val/; 0: none.",
            low=0,
            high=0.9,
        ),
    ] = 0.0
    split_seed: Annotated[int, Setting("Seed of the choice of that part.", low=0, high=_MAX_SEED)] = 0
    balanced: Annotated[bool, Setting("Draw every class equally often in an epoch, where classes differ in size.")] = (
        False
    )
    skip_bad_images: Annotated[bool, Setting("Skip images that cannot be read instead of stopping.")] = False
    crop_padding: Annotated[
        int,
        Setting("Black pixels added on each side before a random crop to the image's own size.", low=0, high=512),
    ] = 4
    random_resized_crop: Annotated[bool, Setting("Crop a random part and resize it to the training size.")] = False
    flip: Annotated[float, Setting("Probability of a horizontal flip.", low=0, high=1)] = 0.5
    randaugment: Annotated[str, Setting("RandAugment policy in timm's notation, such as rand-m4-n3; empty: none.")] = (
        "rand-m4-n3"
    )
    erasing: Annotated[float, Setting("Probability of random erasing.", low=0, high=1)] = 0.0
    erasing_count: Annotated[
        int, Setting("Largest number of rectangles that random erasing erases in an image.", low=1, high=100)
    ] = 1
    train_size: Annotated[int, Setting("Side of a training image, in pixels.", low=4, high=4096)] = 32
    eval_size: Annotated[int, Setting("Side of an image in evaluation, in pixels.", low=4, high=4096)] = 32


@dataclass(frozen=True, kw_only=True)
class MachineSettings:
    """Section "machine": the device, its precision, processes and checkpoints."""

    device: Annotated[
        str,
        Setting(
            "Device: cpu, cuda, xla, or auto (cuda if there is one, else cpu).",
            choices=("auto", "cpu", "cuda", "xla"),
            decides_result=False,
        ),
    ] = "auto"
    precision: Annotated[
        str,
        Setting(
            "Number format of convolutions and matrix products: fp32, bf16, fp16, or auto (bf16 where the device "
            "computes it fast, else fp32). Energies are always fp32. On CUDA, convolutions in fp32 use TF32.",
            choices=("fp32", "bf16", "fp16", "auto"),
        ),
    ] = "fp32"
    channels_last: Annotated[
        bool,
        Setting("Store images and weights with the channels last in memory (cpu and cuda).", decides_result=False),
    ] = True
    compile: Annotated[bool, Setting("Compile the network with torch.compile.", decides_result=False)] = False
    sync_bn: Annotated[
        bool, Setting("Compute BatchNorm statistics over the images of all devices instead of each device's own.")
    ] = False
    num_workers: Annotated[
        int,
        Setting(
            "Processes per device that prepare images, used when preparing is slow. -1: chosen from the number of "
            "cores.",
            low=-1,
            high=256,
            decides_result=False,
        ),
    ] = -1
    checkpoint_minutes: Annotated[
        float,
        Setting("Minutes between checkpoints within an epoch; 0: after every step.", low=0, decides_result=False),
    ] = 10.0
    tensorboard: Annotated[bool, Setting("Also write the metrics for TensorBoard.", decides_result=False)] = False


SECTIONS: Mapping[str, type] = {
    "network": NetworkSettings,
    "optimisation": OptimisationSettings,
    "images": ImageSettings,
    "machine": MachineSettings,
}


# A dataclass collects the fields of its last base first, so the fields of a recipe are in the order of `SECTIONS`.
@dataclass(frozen=True, kw_only=True)
class Recipe(MachineSettings, ImageSettings, OptimisationSettings, NetworkSettings):
    """Every value of a training run; the defaults are the paper's CIFAR-10 recipe (appendix B).

    The values stand in four sections (`SECTIONS`), each with its type, bounds and help; `settings` lists them.

    Raises:
        InputError: a value of the wrong type or out of bounds; the message names the key, the rule and the value.

    Example:
        >>> recipe = Recipe(epochs=10, lr=0.05)
        >>> recipe.learning_rate(0)
        0.05
        >>> recipe.with_values({"p_drop": 2})
        Traceback (most recent call last):
        codedtool.errors.InputError: `p_drop` must be 0 to 0.99, got 2.0
    """

    def __post_init__(self) -> None:
        for key, setting in settings().items():
            object.__setattr__(self, key, setting.checked(key, getattr(self, key)))
        if self.warmup_epochs + self.cooldown_epochs >= self.epochs and self.warmup_epochs + self.cooldown_epochs > 0:
            raise InputError(
                f"`warmup_epochs` {self.warmup_epochs} and `cooldown_epochs` {self.cooldown_epochs} leave nothing of "
                f"`epochs` {self.epochs}; raise `epochs`"
            )

    def learning_rate(self, epoch: float) -> float:
        """Learning rate of ``epoch`` (from 0): warm-up, cosine, cool-down (section 4.1, appendix B).

        The schedule is timm's: the warm-up replaces the first epochs of the cosine instead of delaying it, and the
        cosine reaches min_lr when the cool-down begins.

        Args:
            epoch: with ``sched_on_updates`` 2.5 is the middle of the third epoch; without it the fraction is ignored.
        """
        if not self.sched_on_updates:
            epoch = math.floor(epoch)
        if epoch < self.warmup_epochs:
            # A small batch's learning rate, which is scaled, may be below the rate of the warm-up, which is not.
            start = min(self.warmup_lr, self.lr)
            return start + (self.lr - start) * epoch / self.warmup_epochs
        length = self.epochs - self.cooldown_epochs
        if epoch >= length:
            return self.min_lr
        return self.min_lr + (self.lr - self.min_lr) * (1 + math.cos(math.pi * epoch / length)) / 2

    @property
    def images_at_once(self) -> int:
        """Images per forward pass of one device, in training and evaluation."""
        return self.micro_batch or self.batch_size

    def with_values(self, values: Mapping[str, Any]) -> Recipe:
        """Copy this recipe with some values replaced.

        Args:
            values: key -> new value.

        Raises:
            InputError: an unknown key (the message names the nearest one), a wrong type, or a value out of bounds.
        """
        for key in values:
            check_key(key, settings())
        return dataclasses.replace(self, **values)

    def differences(self, other: Recipe, *, only_result: bool) -> dict[str, tuple[Any, Any]]:
        """Compare two recipes.

        Args:
            only_result: compare only the values that decide the result of a training.

        Returns:
            Key -> (value of this recipe, value of the other), for the keys with different values.
        """
        pairs = {
            key: (getattr(self, key), getattr(other, key))
            for key, setting in settings().items()
            if setting.decides_result or not only_result
        }
        return {key: (mine, theirs) for key, (mine, theirs) in pairs.items() if mine != theirs}

    def to_json(self) -> dict[str, Any]:
        """Return every value under its key, as plain JSON types."""
        return dataclasses.asdict(self)


@cache
def settings() -> dict[str, Setting]:
    """List the settings of a recipe: key -> `Setting`, section by section."""
    found = {}
    for section, values in SECTIONS.items():
        for key, annotation in get_type_hints(values, include_extras=True).items():
            assert get_origin(annotation) is Annotated
            kind, setting = get_args(annotation)
            found[key] = dataclasses.replace(setting, kind=kind, section=section)
    return found
