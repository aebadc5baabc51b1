"""Early exit: its share of the multiply-adds, and its share of the time, over many images of a data set.

    python -m benchmarks.exit [--run benchmarks/cifar10/run] [--data folder:PATH] [--before FOLDER]

The whole network and every rule take turns over the same batches, which have images of all classes; medians of rounds.
``--before`` is the folder of an earlier version of this project, whose early exit then takes turns too.
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
    changes = {"data": options.data, "batch_size": options.batch}
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
    works: dict[str, Callable[[], Any]] = {"whole": lambda: [network(images) for images in batches]}
    functions = {"exit": predict_with_exit}
    if options.before:
        before = import_before(options.before, "codedtool.analysis.decoding")
        functions["before"] = before.predict_with_exit
    for name, function in functions.items():
        for rule in rules:
            works[f"{name} {rule}"] = lambda f=function, rule=rule: [f(network, images, rule) for images in batches]  # type: ignore[misc]
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(options.rounds + 1):
        for name, work in works.items():
            start = clock()
            work()
            seconds[name].append(clock() - start)
    outputs = collect_outputs(subject, split)
    tables = [torch.from_numpy(block.scheme.table.copy()) for block in network.coded_blocks]
    macs = np.array(exit_macs(network, batches[0][:1]), dtype=np.float64)
    print(f"{describe_machine('torch')}, {torch.get_num_threads()} threads; {subject.recipe.preset}, ", end="")
    print(f"{len(split):,} images in batches of {options.batch}, {options.rounds} rounds in turn; %\n")
    print("| rule | accuracy | multiply-adds | time |" + (" time, before |" if options.before else ""))
    print("|---|---|---|---|" + ("---|" if options.before else ""))
    for rule in rules:
        answers_n, exits_n = exits_of(outputs, tables, rule)
        shares = np.bincount(exits_n.numpy(), minlength=len(macs)) / len(exits_n)
        cells = [float((answers_n == outputs.targets).double().mean()), float(shares @ macs / macs[-1])]
        for name in functions:
            # The first round warms up.
            pairs = zip(seconds[f"{name} {rule}"][1:], seconds["whole"][1:], strict=True)
            cells.append(median(own / whole for own, whole in pairs))
        print(f"| {rule} | {' | '.join(f'{100 * cell:.1f}' for cell in cells)} |")


if __name__ == "__main__":
    main()
