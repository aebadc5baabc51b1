"""One training step's forward and backward pass: plain ResNeXt, Coded ResNeXt, and the literal equations.

    python -m benchmarks.block [--arch coded_resnext29_10x11d] [--precision bf16] [--compile] [--before FOLDER]

Plain is the control network with r = 1 everywhere; literal is the coded network with all N x C x H x W outputs in
memory (`literal_sum`); before is the coded network with the energies of another version of this project, which lies in
``--before`` (`git worktree add FOLDER COMMIT`). They take turns in one process; a ratio is the median of the rounds'
own ratios, so that a machine that slows down for a while slows all. The last line of a precision and layout is the
geometric mean of the paper's three networks. With one thread (OMP_NUM_THREADS=1) the process's own time is measured, so
that other work on the machine counts less. Run it from the repository's root.
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
from statistics import geometric_mean, median
from typing import Any

import torch
from torch.nn import functional

from benchmarks.literal_sum import make_literal
from benchmarks.machine import describe_machine
from benchmarks.versions import import_before
from codedtool.coding.scheme import CodingScheme
from codedtool.models import CodedNetwork, build_network, coded_sum
from codedtool.training.allocator import keep_freed_memory

SCHEMES = Path(__file__).parent.parent / "schemes"
# Architecture -> its schemes, pixels, mu and batch on a CPU and on a GPU. The first three are the paper's.
ARCHITECTURES: dict[str, tuple[tuple[str, ...], int, float, int, int]] = {
    "coded_resnext29_10x11d": (("c10_5of10", "c10_3of10"), 32, 6.0, 16, 512),
    "coded_resnext29_20x6d": (("c100_8of20", "c100_4of20"), 32, 6.0, 16, 512),
    "coded_resnext50_32x4d": (("in1k_16of32", "in1k_8of32"), 160, 2.0, 8, 192),
    "coded_resnext17_10x8d": (("c10_5of10", "c10_3of10"), 32, 6.0, 128, 1024),
}
PAPER = tuple(ARCHITECTURES)[:3]
VARIANTS = ("plain", "coded", "before", "literal")
P_DROP = 0.1
PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def load_before(folder: Path) -> Callable[..., Any]:
    """`normalized_sum` of the version of this project in ``folder``."""
    before: Callable[..., Any] = import_before(folder, "codedtool.models.energy").normalized_sum
    return before


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
    if options.compile:
        # Else the ninth network would be refused: all of them have the code of one `forward`.
        torch._dynamo.reset()
    forward: Any = torch.compile(network, fullgraph=True) if options.compile else network
    dtype = PRECISIONS[options.precision]
    normalized_sum = load_before(options.before) if variant == "before" else coded_sum.normalized_sum

    def step() -> None:
        coded_sum.normalized_sum = normalized_sum
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
    if options.device == "cpu":
        keep_freed_memory()  # as every training on a CPU
    steps = {variant: make_step(variant, options) for variant in options.variants}
    seconds: dict[str, list[float]] = {variant: [] for variant in steps}
    for step in steps.values():
        step()
        step()
    clock = time.process_time if options.device == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    for number in range(options.rounds):
        # Every other round goes the other way, so that none always follows the same one.
        order = list(steps) if number % 2 == 0 else list(steps)[::-1]
        for variant in order:
            start = clock()
            steps[variant]()
            seconds[variant].append(clock() - start)
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
    command += ["--before", str(options.before)] if options.before else []
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--arch", choices=ARCHITECTURES, action="append", help="default: all four")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--batch", type=int, help="default: small on a CPU, the paper's or near it on a GPU")
    parser.add_argument("--layout", choices=("channels_last", "contiguous_format"), action="append")
    parser.add_argument("--precision", choices=PRECISIONS, action="append", help="default: fp32 and bf16")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, help="default: plain and coded, and before if given")
    parser.add_argument("--before", type=Path, metavar="FOLDER", help="another version of this project")
    parser.add_argument("--compile", action="store_true", help="torch.compile all")
    parser.add_argument("--memory-of", choices=VARIANTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if "before" in (options.variants or []) and not options.before:
        parser.error("the variant before needs --before FOLDER")
    options.variants = options.variants or ["plain", "coded", *(["before"] if options.before else [])]
    archs, layouts = options.arch or list(ARCHITECTURES), options.layout or ["channels_last"]
    precisions, batch = options.precision or ["fp32", "bf16"], options.batch
    if options.memory_of:
        options.arch, options.layout, options.precision = archs[0], layouts[0], precisions[0]
        print(measure_memory(options.memory_of, options))
        return
    threads = f", {torch.get_num_threads()} threads" if options.device == "cpu" else ""
    machine = describe_machine("torch", device=options.device)
    print(f"{machine}, {options.device}{threads}{', compiled' if options.compile else ''}\n")
    print("| architecture | batch | precision, layout | network | images/s | of plain | peak MB | of plain |")
    print("|---|---|---|---|---|---|---|---|")
    for layout in layouts:
        for precision in precisions:
            speeds: dict[str, list[float]] = {variant: [] for variant in options.variants}
            for arch in archs:
                options.arch, options.layout, options.precision = arch, layout, precision
                options.batch = batch or ARCHITECTURES[arch][4 if options.device.startswith("cuda") else 3]
                for variant, speed in print_rows(options).items():
                    speeds[variant] += [speed] if arch in PAPER else []
            for variant, ratios in speeds.items():
                if variant != options.variants[0] and len(ratios) == len(PAPER):
                    mean = geometric_mean(ratios)
                    print(f"| the paper's three | | {describe(options)} | {variant} | | {mean:.3f} | | |", flush=True)


def describe(options: argparse.Namespace) -> str:
    """Precision and layout, as they stand in the table."""
    return f"{options.precision}, {'NCHW' if options.layout == 'contiguous_format' else options.layout}"


def print_rows(options: argparse.Namespace) -> dict[str, float]:
    """Measure one architecture in one layout and precision, print a row per variant and return the ratios of speed."""
    memory = {variant: peak_memory(variant, options) for variant in options.variants}
    seconds = measure_seconds(options)
    first = options.variants[0]
    speeds = {}
    for variant in options.variants:
        rate = options.batch / median(seconds[variant])
        speeds[variant] = median(base / own for base, own in zip(seconds[first], seconds[variant], strict=True))
        print(
            f"| {options.arch} | {options.batch} | {describe(options)} | {variant} | {rate:.1f} | "
            f"{speeds[variant]:.3f} | {memory[variant]:.0f} | {memory[variant] / memory[first]:.3f} |",
            flush=True,
        )
    return speeds


if __name__ == "__main__":
    main()
