"""All K binary classifiers of a network at once against K separate passes.

    python -m benchmarks.bc [--arch coded_resnext29_20x6d] [--device cpu] [--classes 100]

Separate passes run every class's extracted network over the batch; together, what they have in common runs once
(`BinaryClassifiers`). Masked passes, as the authors' code does, run the whole network once per class. The two or three
take turns in one process. Run it from the repository's root.
"""

from __future__ import annotations

import argparse
from statistics import median

import torch

from benchmarks.block import ARCHITECTURES, SCHEMES
from benchmarks.machine import describe_machine
from codedtool.analysis.classifiers import BinaryClassifiers
from codedtool.analysis.cost import compare_steadily
from codedtool.coding.scheme import CodingScheme
from codedtool.models import build_network
from codedtool.models.pruning import extract_binary_classifier, keep_masks_of_class


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--arch", choices=ARCHITECTURES, default="coded_resnext29_20x6d")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--classes", type=int, help="the first so many; default: all")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    names, size, *_ = ARCHITECTURES[options.arch]
    torch.manual_seed(0)
    device = torch.device(options.device)
    network = build_network(options.arch, [CodingScheme.load(SCHEMES / f"{name}.npy") for name in names])
    network = network.eval().to(device, memory_format=torch.channels_last)
    images = torch.randn(options.batch, 3, size, size).to(device, memory_format=torch.channels_last)
    classes = range(options.classes or network.num_classes)
    extracted = [extract_binary_classifier(network, k) for k in classes]
    together = BinaryClassifiers(network, classes)

    def separately() -> torch.Tensor:
        return torch.cat([one(images).logits for one in extracted], dim=1)

    def masked() -> torch.Tensor:
        return torch.stack(
            [network(images, keep_masks=keep_masks_of_class(network, k)).logits[:, k] for k in classes], dim=1
        )

    difference = (separately() - together.scores(images)).abs().max().item()
    works = [separately, masked, lambda: together.scores(images)]
    rounds = [
        [timing.seconds for timing in compare_steadily(works, device=device, rounds=1, most_rounds=1)]
        for _ in range(options.rounds)
    ]
    machine = describe_machine("torch", device=options.device)
    print(f"{machine}, {options.device}; batch {options.batch}, {len(classes)} classes\n")
    print("| architecture | way | s | against separate passes |")
    print("|---|---|---|---|")
    for column, way in enumerate(
        ("K extracted networks, separately", "K masked passes of the whole network", "together")
    ):
        seconds = median(one[column] for one in rounds)
        ratio = median(one[0] / one[column] for one in rounds)
        print(f"| {options.arch} | {way} | {seconds:.2f} | {ratio:.2f} |")
    print(f"\nlargest difference of a logit between separate and together: {difference:.1e}")


if __name__ == "__main__":
    main()
