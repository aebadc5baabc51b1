"""Subjects of the analyses without a training: networks as after one, in a run that has no checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from codedtool.budget import silent
from codedtool.coding.scheme import CodingScheme
from codedtool.data import ImageData, Normalization, Split
from codedtool.models import CodedNetwork, build_network
from codedtool.models.places import scheme_at
from codedtool.training.recipes import recipe_for
from codedtool.training.run import Run
from codedtool.training.subject import Outputs, Subject
from codedtool.training.torch_runtime import TorchRuntime
from tests.paths import SCHEMES

DIGITS = tuple("0123456789")
NORMALIZATION = Normalization((0.4, 0.5, 0.6), (0.25, 0.3, 0.35))


def shipped(name: str) -> CodingScheme:
    """A shipped scheme."""
    return CodingScheme.load(SCHEMES / f"{name}.npy")


def tiny_schemes() -> dict[str, CodingScheme]:
    """Stage -> scheme, for the tiny preset."""
    return {"s2": shipped("c10_5of10"), "s3": shipped("c10_3of10")}


def randomize(network: CodedNetwork, seed: int = 5) -> CodedNetwork:
    """Weights and statistics as after some training: the last BatchNorms no longer hide the blocks."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        if parameter.dim() > 1:
            fan_in = parameter[0].numel()
            parameter.data = torch.randn(parameter.shape, generator=generator) * (2 / fan_in) ** 0.5
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor, low in ((module.weight, 0.5), (module.running_var, 0.5), (module.running_mean, -0.5)):
                tensor.data = torch.rand(tensor.shape, generator=generator) + low
    return network.eval()


@torch.no_grad()
def settle(network: CodedNetwork, images: torch.Tensor) -> CodedNetwork:
    """Fit the statistics and the linear layer's offset to ``images``, so that all kinds of answers occur among them."""
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    pooled: list[torch.Tensor] = []
    handle = network.fc.register_forward_pre_hook(lambda _, inputs: pooled.append(inputs[0]))
    network.train()(images)
    network.eval()(images)
    handle.remove()
    mean = pooled[-1].mean(0)
    network.fc.weight -= torch.outer(network.fc.weight @ mean, mean) / (mean @ mean)
    return network


def noise(num_classes: int, per_class: int, *, size: int = 8, seed: int = 0) -> Split:
    """Images of noise, whose classes come in no order."""
    rng = np.random.default_rng(seed)
    targets = rng.permutation(np.repeat(np.arange(num_classes, dtype=np.int64), per_class))
    return Split(rng.integers(0, 256, (len(targets), size, size, 3), dtype=np.uint8), targets)


def noisy_data(classes: tuple[str, ...], *, train: int, val: int, name: str = "noise", seed: int = 0) -> ImageData:
    """A data set of noise with ``train`` and ``val`` images per class."""
    return ImageData(
        name=name,
        classes=classes,
        train=noise(len(classes), train, seed=2 * seed),
        val=noise(len(classes), val, seed=2 * seed + 1),
        normalization=NORMALIZATION,
    )


def make_subject(
    folder: Path,
    network: CodedNetwork,
    data: ImageData,
    *,
    schemes: Mapping[str, CodingScheme],
    preset: str = "coded_resnext_tiny",
    name: str = "run",
    batch_size: int = 16,
    precision: str = "fp32",
) -> Subject:
    """A subject around a network and a data set."""
    recipe = recipe_for("digits").with_values(
        {"preset": preset, "batch_size": batch_size, "device": "cpu", "precision": precision}
    )
    run = Run.create(recipe, schemes, data.classes, data.normalization, name=name, folder=folder)
    runtime = TorchRuntime(recipe, "cpu")
    return Subject(run, network, recipe, runtime, "e0001s000000", lambda: data)


def with_batches_of(subject: Subject, batch_size: int) -> Subject:
    """The subject, in batches of another size."""
    return replace(subject, recipe=subject.recipe.with_values({"batch_size": batch_size}))


def tiny_coded() -> CodedNetwork:
    """The tiny preset with its two schemes and random weights."""
    return randomize(build_network("coded_resnext_tiny", tiny_schemes()))


def tiny_plain(seed: int = 6) -> CodedNetwork:
    """The plain control of the tiny preset with random weights."""
    return randomize(build_network("resnext_tiny"), seed=seed)


def tiny_subjects(folder: Path, coded: CodedNetwork, plain: CodedNetwork) -> tuple[Subject, Subject]:
    """A coded and a plain run on the same noise: 6 training and 4 validation images of each of 10 classes."""
    data = noisy_data(DIGITS, train=6, val=4)
    return (
        make_subject(folder, coded, data, schemes=tiny_schemes(), name="coded"),
        make_subject(folder, plain, data, schemes={}, preset="resnext_tiny", name="plain"),
    )


def settled_subject(folder: Path) -> Subject:
    """A coded run whose answers and early decoders differ from image to image: 4 validation images of each class."""
    data = noisy_data(DIGITS, train=1, val=4)
    subject = make_subject(folder, tiny_coded(), data, schemes=tiny_schemes())
    (batch,) = with_batches_of(subject, 100).batches(data.val, silent, "")
    settle(subject.network, batch[0])
    return subject


def zeroed_logits(
    network: CodedNetwork, schemes: Mapping[str, CodingScheme], class_index: int, x: torch.Tensor
) -> torch.Tensor:
    """Logit of a class of a plain network, in which the channels of the class's inactive subNNs are set to zero."""
    handles = []
    for block in network.blocks:
        scheme = scheme_at(schemes, block.stage, block.number)
        if scheme is None:
            continue
        bits = scheme.table[class_index]
        width = block.grouped_bn.num_features // len(bits)
        keep = torch.tensor([float(bit) for bit in bits for _ in range(width)])[None, :, None, None]
        # On the way into the sum; the channels that stay see no other ones before it.
        handles.append(block.expand.register_forward_pre_hook(lambda _, inputs, keep=keep: (inputs[0] * keep,)))
    try:
        with torch.no_grad():
            return network(x).logits[:, class_index]
    finally:
        for handle in handles:
            handle.remove()


def made_outputs(
    n: int = 400, num_classes: int = 5, decoders: int = 3, *, seed: int = 0, scale: float = 3.0, agree: float = 0.7
) -> Outputs:
    """Logits that are right now and then, too sure by ``scale``; decoders that are right with probability ``agree``."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(n) % num_classes
    ease = torch.rand(n, generator=generator)
    logits = torch.randn(n, num_classes, generator=generator)
    logits[torch.arange(n), targets] += 2 * ease
    right = torch.rand(n, decoders, generator=generator) < agree * (0.5 + 0.5 * ease[:, None])
    guesses = torch.randint(num_classes, (n, decoders), generator=generator)
    decoded = torch.where(right, targets[:, None], guesses)
    return Outputs((scale * logits).float(), targets, (), decoded)
