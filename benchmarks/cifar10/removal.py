"""Why removing subNNs hurts or helps: which ones, before or after Energy Normalization, and the energy they have.

    python -m benchmarks.cifar10.removal [--run benchmarks/cifar10/run] [--data folder:PATH] [--images 2000]

In one coded block at a time, and for every image, the subNNs that are active for its class are removed, those that are
active for another class drawn at random, or those that are inactive for its class. Removed before the normalization, as
`codedtool specialize` does it, the others are amplified; removed after it, they stay as they are. Run it from the
repository's root.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from benchmarks.machine import describe_machine
from codedtool.budget import silent
from codedtool.models.blocks import Block, BlockOutput
from codedtool.models.network import CodedNetwork
from codedtool.training.run import Run
from codedtool.training.subject import opened_run

# Block, name of the removal, and the mask that does it: before (keep_mask) or after (drop_mask) the normalization.
Removal = tuple[str, str, str]

REMOVALS = ("active", "active for another class", "inactive")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--run", type=Path, default=Path("benchmarks/cifar10/run"))
    parser.add_argument("--data", default="cifar10", help="cifar10 or folder:PATH")
    parser.add_argument("--images", type=int, default=2000)
    options = parser.parse_args()
    changes = {"data": options.data, "batch_size": 250, "device": "cpu"}
    with opened_run(Run.load(options.run), checkpoint="last", changes=changes) as subject, torch.no_grad():
        network = subject.network
        order = np.random.default_rng(0).permutation(len(subject.data.val))[: options.images]
        generator = torch.Generator().manual_seed(0)
        right: Counter[Removal] = Counter()
        energy: Counter[str] = Counter()
        whole = 0
        for images, targets in subject.batches(subject.data.val.taking(order), silent, ""):
            others = torch.randint(1, network.num_classes, targets.shape, generator=generator)
            others = (targets + others) % network.num_classes
            inputs, outputs = _run(network, images)
            whole += int((network.head(outputs[-1].features).argmax(1) == targets).sum())
            for block, output in zip(network.blocks, outputs, strict=True):
                if output.energies is not None:
                    of_active = output.energies * _codewords(block, targets)
                    energy[block.name] += float((of_active.sum(1) / output.energies.sum(1)).sum())
            right += _right_without(network, inputs, targets, others)
    per_cent = 100 / len(order)
    print(
        f"{describe_machine('torch')}; {len(order):,} images, accuracy of the whole network {whole * per_cent:.1f}%\n"
    )
    names = network.block_names
    print(f"| % | {' | '.join(names)} |\n|---|{'---|' * len(names)}")
    print(f"| energy of the active subNNs | {' | '.join(f'{energy[name] * per_cent:.1f}' for name in names)} |")
    for place, when in (("keep_mask", "before"), ("drop_mask", "after")):
        for removal in REMOVALS:
            cells = [f"{right[name, removal, place] * per_cent:.1f}" for name in names]
            print(f"| accuracy without the {removal}, {when} normalization | {' | '.join(cells)} |")


def _run(network: CodedNetwork, images: torch.Tensor) -> tuple[list[torch.Tensor], list[BlockOutput]]:
    """Inputs and outputs of every block."""
    features, inputs, outputs = network.stem(images), [], []
    for block in network.blocks:
        inputs.append(features)
        outputs.append(block(features))
        features = outputs[-1].features
    return inputs, outputs


def _right_without(
    network: CodedNetwork, inputs: list[torch.Tensor], targets: torch.Tensor, others: torch.Tensor
) -> Counter[Removal]:
    """Right answers without the subNNs of every removal, in one coded block at a time."""
    right: Counter[Removal] = Counter()
    for index, block in enumerate(network.blocks):
        if not block.is_coded:
            continue
        for removal, mask in _masks(block, targets, others).items():
            for place in ("keep_mask", "drop_mask"):
                features = block(inputs[index], **{place: mask}).features
                for later in network.blocks[index + 1 :]:
                    features = later(features).features
                right[block.name, removal, place] += int((network.head(features).argmax(1) == targets).sum())
    return right


def _codewords(block: Block, classes_B: torch.Tensor) -> torch.Tensor:
    """The codewords of classes, (B, N) float32."""
    return torch.from_numpy(block.scheme.table.copy())[classes_B].float()


def _masks(block: Block, targets_B: torch.Tensor, others_B: torch.Tensor) -> Mapping[str, torch.Tensor]:
    """Removal -> (B, N) masks, 0 for the removed subNNs."""
    own_BN = _codewords(block, targets_B)
    return dict(zip(REMOVALS, (1 - own_BN, 1 - _codewords(block, others_B), own_BN), strict=True))


if __name__ == "__main__":
    main()
