"""ImageNet's shape without ImageNet: 1000 classes at 160 pixels, both pairs of schemes; no claim about accuracy.

    python -m benchmarks.imagenet_shape [--steps 4] [--batch 8] [--device cpu]

For the paper's pair of schemes and for the pair of the highest distances: training steps of the paper's loss on random
images, which must be learnt by heart; then what the network, its plain control and one class's binary classifier
cost, timed in turn; and that the classifier says what the masked network says. Run it from the repository's root.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

import torch
from torch.nn import functional

from benchmarks.block import SCHEMES
from benchmarks.machine import describe_machine
from codedtool.analysis.cost import compare_steadily, count_kept_bytes, count_macs, count_parameters
from codedtool.coding.orders.pairing import joint_distance_histogram
from codedtool.coding.scheme import CodingScheme
from codedtool.models import CodedNetwork, build_network
from codedtool.models.pruning import extract_binary_classifier, keep_masks_of_class

PAIRS = {"the paper's": ("in1k_16of32", "in1k_8of32"), "highest distances": ("in1k_16of32_h12", "in1k_8of32_h8")}
MU = 2.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    device = torch.device(options.device)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(options.batch, 3, options.size, options.size, generator=generator)
    images = images.to(device, memory_format=torch.channels_last)
    targets = torch.randint(0, 1000, (options.batch,), generator=generator).to(device)
    machine = describe_machine("torch", device=options.device)
    print(f"{machine}, {options.device}; {options.size} px, batch {options.batch}\n")
    networks: dict[str, CodedNetwork] = {}
    for name, files in PAIRS.items():
        schemes = [CodingScheme.load(SCHEMES / f"{file}.npy") for file in files]
        joint, pairs = next(iter(joint_distance_histogram(schemes).items()))
        distances = ", ".join(f"{one.act}/{one.length} at H_min {one.min_distance}" for one in schemes)
        print(f"{name}: {distances}; joint minimum distance {joint}, {pairs} pairs at it")
        torch.manual_seed(0)
        network = build_network("coded_resnext50_32x4d", schemes).to(device, memory_format=torch.channels_last)
        for step, losses in enumerate(train(network, images, targets, options.steps), start=1):
            print(f"  step {step}: class loss {losses[0]:.4f}, coding loss {losses[1]:.5f}")
        networks[f"coded, {name}"] = network.eval()
    torch.manual_seed(0)
    networks["plain"] = build_network("resnext50_32x4d").to(device, memory_format=torch.channels_last).eval()
    for name in PAIRS:
        k = int(targets[0])
        whole = networks[f"coded, {name}"]
        light = networks[f"binary classifier of class {k}, {name}"] = extract_binary_classifier(whole, k).eval()
        with torch.no_grad():
            masked = whole(images, keep_masks=keep_masks_of_class(whole, k)).logits[:, k]
            difference = (light(images).logits[:, 0] - masked).abs().max() / masked.abs().max()
        print(f"binary classifier, {name}: largest relative difference from the masked network {difference:.1e}")
    print_costs(networks, images, options.rounds)


def train(network: CodedNetwork, images: torch.Tensor, targets: torch.Tensor, steps: int) -> list[tuple[float, float]]:
    """Class loss and mean coding loss of every step of SGD."""
    optimizer = torch.optim.SGD(network.train().parameters(), lr=0.02, momentum=0.9, nesterov=True)
    found = []
    for _ in range(steps):
        optimizer.zero_grad()
        output = network(images, targets)
        loss = functional.cross_entropy(output.logits, targets)
        coding_losses = torch.stack(output.coding_losses)
        (loss + MU * coding_losses.sum()).backward()
        optimizer.step()
        found.append((float(loss.detach()), float(coding_losses.mean().detach())))
    return found


def print_costs(networks: dict[str, CodedNetwork], images: torch.Tensor, rounds: int) -> None:
    """One row per network; the speeds are medians over rounds in which all take turns."""

    def step(network: CodedNetwork) -> None:
        network(images).logits.square().mean().backward()
        network.zero_grad()

    def turns(work: Callable[[CodedNetwork], object]) -> list[float]:
        works = [partial(work, one) for one in networks.values()]
        timings = compare_steadily(works, device=images.device, rounds=rounds, most_rounds=rounds)
        return [timing.seconds for timing in timings]

    with torch.no_grad():
        forward = turns(lambda network: network(images))
    whole = turns(step)
    print("\n| network | parameters, M | without projections | GMACs | kept MB/image | images/s | trained images/s |")
    print("|---|---|---|---|---|---|---|")
    for (name, network), forward_s, step_s in zip(networks.items(), forward, whole, strict=True):
        figures = [
            f"{count_parameters(network) / 1e6:.2f}",
            f"{count_parameters(network, projections=False) / 1e6:.2f}",
            f"{count_macs(network, images[:2]) / 1e9:.3f}",
            f"{count_kept_bytes(network, images[:2]) / 1e6:.1f}",
            f"{len(images) / forward_s:.1f}",
            f"{len(images) / step_s:.1f}",
        ]
        print(f"| {name} | {' | '.join(figures)} |")


if __name__ == "__main__":
    main()
