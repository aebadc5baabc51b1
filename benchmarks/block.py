"""One training step's forward and backward pass: plain ResNeXt, Coded ResNeXt, and the literal equations.

    python -m benchmarks.block [--arch coded_resnext29_10x11d] [--device cpu] [--layout channels_last]

Plain is the control network with r = 1 everywhere; literal is the coded network with all N x C x H x W outputs in
memory (`literal_sum`). The three take turns in one process; a ratio is the median of the rounds' own ratios, so
that a machine that slows down for a while slows all three. Run it from the repository's root.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.nn import functional

from benchmarks.literal_sum import make_literal
from benchmarks.machine import describe_machine
from codedtool.coding.scheme import CodingScheme
from codedtool.models import CodedNetwork, build_network

SCHEMES = Path(__file__).parent.parent / "schemes"
# Architecture -> its schemes, pixels, mu and batch on a CPU and on a GPU.
ARCHITECTURES: dict[str, tuple[tuple[str, ...], int, float, int, int]] = {
    "coded_resnext29_10x11d": (("c10_5of10", "c10_3of10"), 32, 6.0, 16, 512),
    "coded_resnext29_20x6d": (("c100_8of20", "c100_4of20"), 32, 6.0, 16, 512),
    "coded_resnext50_32x4d": (("in1k_16of32", "in1k_8of32"), 160, 2.0, 4, 192),
}
VARIANTS = ("plain", "coded", "literal")
P_DROP = 0.1
PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def build(arch: str, variant: str) -> CodedNetwork:
    """The network of one variant, new, in training mode."""
    torch.manual_seed(0)
    schemes = [CodingScheme.load(SCHEMES / f"{name}.npy") for name in ARCHITECTURES[arch][0]]
    if variant == "plain":
        return build_network(arch.removeprefix("coded_"))
    network = build_network(arch, schemes)
    return make_literal(network) if variant == "literal" else network


def make_step(variant: str, options: argparse.Namespace) -> Callable[[], None]:
    """A function that does one forward and backward pass over a fixed batch of noise."""
    _, size, mu, _, _ = ARCHITECTURES[options.arch]
    layout = getattr(torch, options.layout)
    device = torch.device(options.device)
    network = build(options.arch, variant).to(device, memory_format=layout)
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(options.batch, 3, size, size, generator=generator).to(device, memory_format=layout)
    targets = torch.randint(network.num_classes, (options.batch,), generator=generator).to(device)
    drop_masks = [
        (torch.rand(options.batch, length, generator=generator) >= P_DROP).to(device, torch.float32) / (1 - P_DROP)
        for length in network.drop_group_lengths
    ]
    forward: Any = torch.compile(network, fullgraph=True) if options.compile else network
    dtype = PRECISIONS[options.precision]

    def step() -> None:
        network.zero_grad(set_to_none=True)
        with nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype):
            output = forward(images, targets, drop_masks=drop_masks or None)
            loss = functional.cross_entropy(output.logits.float(), targets)
        for coding_loss in output.coding_losses:
            loss = loss + mu * coding_loss
        loss.backward()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return step


def measure_seconds(options: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds of every round's step of each variant, in turn, after two steps each to warm up."""
    steps = {variant: make_step(variant, options) for variant in options.variants}
    seconds: dict[str, list[float]] = {variant: [] for variant in steps}
    for step in steps.values():
        step()
        step()
    for number in range(options.rounds):
        # Every other round goes the other way, so that none always follows the same one.
        order = list(steps) if number % 2 == 0 else list(steps)[::-1]
        for variant in order:
            start = time.perf_counter()
            steps[variant]()
            seconds[variant].append(time.perf_counter() - start)
    return seconds


def measure_memory(variant: str, options: argparse.Namespace) -> float:
    """Peak MB of one step, weights included, in this process; on a CPU the process must be new."""
    if options.device.startswith("cuda"):
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated()
        step = make_step(variant, options)
        step()
        torch.cuda.reset_peak_memory_stats()
        step()
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    before = _resident_kb("VmRSS")
    step = make_step(variant, options)
    step()
    step()
    return (_resident_kb("VmHWM") - before) / 1e3


def _resident_kb(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


def peak_memory(variant: str, options: argparse.Namespace) -> float:
    """`measure_memory`, for a CPU in a process of its own that gives freed memory back at once."""
    if options.device.startswith("cuda"):
        return measure_memory(variant, options)
    command = [sys.executable, "-m", "benchmarks.block", "--memory-of", variant, "--arch", options.arch]
    command += ["--layout", options.layout, "--batch", str(options.batch), "--precision", options.precision]
    command += ["--compile"] if options.compile else []
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return float(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--arch", choices=ARCHITECTURES, action="append", help="default: all three")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--batch", type=int, help="default: small on a CPU, the paper's or near it on a GPU")
    parser.add_argument("--layout", choices=("channels_last", "contiguous_format"), action="append")
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--compile", action="store_true", help="torch.compile all three")
    parser.add_argument("--memory-of", choices=VARIANTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    archs, layouts = options.arch or list(ARCHITECTURES), options.layout or ["channels_last", "contiguous_format"]
    batch = options.batch
    if options.memory_of:
        options.arch, options.layout = archs[0], layouts[0]
        print(measure_memory(options.memory_of, options))
        return
    device = torch.cuda.get_device_name() if options.device.startswith("cuda") else "CPU"
    print(f"{describe_machine('torch')}, {device}, {options.precision}{', compiled' if options.compile else ''}\n")
    print("| architecture | batch | layout | network | images/s | of plain | peak MB | of plain |")
    print("|---|---|---|---|---|---|---|---|")
    for arch in archs:
        for layout in layouts:
            options.arch, options.layout = arch, layout
            options.batch = batch or ARCHITECTURES[arch][4 if options.device.startswith("cuda") else 3]
            print_rows(options)


def print_rows(options: argparse.Namespace) -> None:
    """Measure one architecture in one layout and print a row per variant."""
    memory = {variant: peak_memory(variant, options) for variant in options.variants}
    seconds = measure_seconds(options)
    first = options.variants[0]
    for variant in options.variants:
        rate = options.batch / median(seconds[variant])
        speed = median(base / own for base, own in zip(seconds[first], seconds[variant], strict=True))
        layout = "NCHW" if options.layout == "contiguous_format" else options.layout
        print(
            f"| {options.arch} | {options.batch} | {layout} | {variant} | {rate:.1f} | {speed:.3f} | "
            f"{memory[variant]:.0f} | {memory[variant] / memory[first]:.3f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
