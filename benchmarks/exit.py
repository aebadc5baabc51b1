"""Early exit: its share of the multiply-adds, and its share of the time, over many images of a data set.

    python -m benchmarks.exit [--run benchmarks/cifar10/run] [--data folder:PATH] [--before FOLDER]

The whole network and every rule take turns over the same batches, which have images of all classes; medians of rounds.
``--before`` is the folder of an earlier version of this project, whose network and early exit then take turns too.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from benchmarks.machine import describe_machine
from benchmarks.versions import import_before
from codedtool.analysis.early_exit import ExitRule, exit_macs, exits_of, predict_with_exit
from codedtool.budget import silent
from codedtool.training.run import Run
from codedtool.training.subject import Subject, collect_outputs, opened_run

RULES = ("margin:0.05", "margin:0.1", "margin:0.15", "margin:0.3", "agree:2")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--run", type=Path, default=Path("benchmarks/cifar10/run"))
    parser.add_argument("--data", default="cifar10", help="cifar10 or folder:PATH")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--batch", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--before", type=Path, metavar="FOLDER", help="another version of this project")
    options = parser.parse_args()
    changes = {"data": options.data, "batch_size": options.batch, "device": "cpu"}
    with opened_run(Run.load(options.run), checkpoint="last", changes=changes) as subject:
        measure(subject, options)


@torch.no_grad()
def measure(subject: Subject, options: argparse.Namespace) -> None:
    """Print the table of all rules."""
    network, val = subject.network, subject.data.val
    order = np.random.default_rng(0).permutation(len(val))[: options.images]
    split = val.taking(order)
    batches = [images for images, _ in subject.batches(split, silent, "")]
    rules = [ExitRule.parse(text) for text in RULES]
    versions = {"": (network, predict_with_exit)}
    if options.before:
        build = import_before(options.before, "codedtool.models.presets").build_network
        earlier = build(subject.recipe.preset, network.schemes)
        earlier.load_state_dict(network.state_dict())
        earlier = earlier.to(memory_format=torch.channels_last).eval()
        versions["before"] = earlier, import_before(options.before, "codedtool.analysis.early_exit").predict_with_exit
    works: dict[str, Callable[[torch.Tensor], Any]] = {}
    for version, (whole, with_exit) in versions.items():
        works[f"{version} whole"] = whole
        for rule in rules:
            works[f"{version} {rule}"] = lambda images, n=whole, f=with_exit, rule=rule: f(n, images, rule)  # type: ignore[misc]
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(options.rounds + 1):
        spent = dict.fromkeys(works, 0.0)
        for images in batches:
            # Batch by batch, so that what is compared is measured within a second.
            for name, work in works.items():
                start = clock()
                work(images)
                spent[name] += clock() - start
        for name, value in spent.items():
            seconds[name].append(value)
    outputs = collect_outputs(subject, split)
    tables = [torch.from_numpy(block.scheme.table.copy()) for block in network.coded_blocks]
    macs = np.array(exit_macs(network, batches[0][:1]), dtype=np.float64)
    print(f"{describe_machine('torch')}, {torch.get_num_threads()} threads; {subject.recipe.preset}, ", end="")
    print(f"{len(split):,} images in batches of {options.batch}, {options.rounds} rounds in turn; %\n")
    header = ["rule", "accuracy", "multiply-adds", "time"]
    if options.before:
        header += ["time, before", "time, of before's"]
    print(f"| {' | '.join(header)} |\n|{'---|' * len(header)}")
    for rule in [None, *rules]:
        cells = [1.0]
        if rule is None:
            answers_n = outputs.predictions
        else:
            answers_n, exits_n = exits_of(outputs, tables, rule)
            shares = np.bincount(exits_n.numpy(), minlength=len(macs)) / len(exits_n)
            cells = [float(shares @ macs / macs[-1])]
        name = rule or "whole"
        cells += [_ratio(seconds, f"{version} {name}", f"{version} whole") for version in versions]
        if options.before:
            cells.append(_ratio(seconds, f" {name}", f"before {name}"))
        accuracy = float((answers_n == outputs.targets).double().mean())
        print(f"| {name} | {' | '.join(f'{100 * cell:.1f}' for cell in (accuracy, *cells))} |")


def _ratio(seconds: dict[str, list[float]], own: str, other: str) -> float:
    """Median ratio of two works' times; the first round warms up."""
    return median(a / b for a, b in zip(seconds[own][1:], seconds[other][1:], strict=True))


if __name__ == "__main__":
    main()
