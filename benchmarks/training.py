"""Images per second of `codedtool train` against those of the bare step: forward pass, backward pass, optimizer.

    python -m benchmarks.training [--data folder:PATH] [--preset resnext17_10x8d] [--rounds 3]

The bare step has a batch in memory, and nothing to read, vary, count or store. Trainings of two epochs and bare steps
take turns, each with all cores. A training's speed is that of its second epoch: in the first, the processes that
prepare images load their libraries. Run it from the repository's root.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import torch
from torch.nn import functional

from benchmarks.machine import describe_machine
from codedtool.models import build_network
from codedtool.training.devices import opened_runtime
from codedtool.training.optimizer import build_optimizer
from codedtool.training.recipes import recipe_for
from codedtool.training.run import Run

# Title -> flags of the training.
TRAININGS = {
    "crop and flip": [],
    "RandAugment": ["--randaugment", "rand-m4-n3"],
}
BATCH = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--data", default="cifar10", help="cifar10 or folder:PATH, of 32 pixels")
    parser.add_argument("--preset", default="resnext17_10x8d", help="a plain network")
    parser.add_argument("--images-per-class", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bare", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.bare is not None:
        print(bare_step(options.preset, options.bare))
        return
    ways = {f"train, {title}, 1 process": (flags, 1) for title, flags in TRAININGS.items()}
    ways |= {f"train, {title}, 2 processes": (flags, 2) for title, flags in TRAININGS.items()}
    speeds: dict[str, list[float]] = {"bare step": [], **{way: [] for way in ways}}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(options.rounds):
            speeds["bare step"].append(_bare(options.preset))
            for way, (flags, processes) in ways.items():
                speeds[way].append(_trained(options, flags, processes, cwd=tempfile.mkdtemp(dir=folder)))
    print(f"{describe_machine('torch')}; {options.preset}, batch {BATCH}, {options.rounds} rounds in turn\n")
    print("| work | images/s | of the bare step |\n|---|---|---|")
    for way, found in speeds.items():
        ratio = median(one / bare for one, bare in zip(found, speeds["bare step"], strict=True))
        print(f"| {way} | {median(found):.0f} | {ratio:.3f} |")


def bare_step(preset: str, seconds: float) -> float:
    """Images per second of steps on one batch of random images, over ``seconds`` after two steps."""
    recipe = recipe_for("cifar10", "cifar10-cpu").with_values({"preset": preset, "device": "cpu"})
    torch.manual_seed(0)
    network = build_network(preset, {})
    with opened_runtime(recipe) as runtime:
        prepared = runtime.prepare(network)
        optimizer = build_optimizer(network, recipe)
        images, targets = runtime.put(torch.randn(BATCH, 3, 32, 32)), torch.randint(0, 10, (BATCH,))
        steps, start = -2, 0.0
        while steps < 1 or time.perf_counter() - start < seconds:
            if steps == 0:
                start = time.perf_counter()
            with runtime.autocast():
                logits = prepared(images).logits
            runtime.backward(functional.cross_entropy(logits.float(), targets))
            runtime.step(optimizer)
            steps += 1
        return steps * BATCH / (time.perf_counter() - start)


def _bare(preset: str) -> float:
    command = [sys.executable, "-m", "benchmarks.training", "--preset", preset, "--bare", "10"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return float(done.stdout.split()[-1])


def _trained(options: argparse.Namespace, flags: list[str], processes: int, *, cwd: str) -> float:
    """Images per second that the metrics of a training say of its second epoch."""
    launcher = ["torch.distributed.run", "--nproc-per-node", str(processes), "-m"] if processes > 1 else []
    environment = dict(os.environ)
    if processes > 1:
        environment["OMP_NUM_THREADS"] = str(max(1, len(os.sched_getaffinity(0)) // processes))
    # The training runs in another folder.
    kind, _, path = options.data.partition(":")
    data = f"{kind}:{Path(path).absolute()}" if path else kind
    command = [sys.executable, "-m", *launcher, "codedtool", "train", "--run-name", "timed", "--device", "cpu"]
    command += ["--preset", options.preset, "--recipe", "cifar10-cpu", "--epochs", "2", *flags]
    command += ["--data", data, "--images-per-class", str(options.images_per_class), "--quiet"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=cwd, env=environment)
    return float(Run.load(Path(cwd) / "runs" / "timed").metrics()[1]["images_per_second"])


if __name__ == "__main__":
    main()
