"""The cost of a network: parameters, multiply-adds, kept activations and measured speed (table 5, section 4.3)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from statistics import median, quantiles
from typing import Any, NamedTuple

import torch

from codedtool.analysis.result import NONE, Result, Rows, Table, millions
from codedtool.budget import Progress, silent
from codedtool.models.counts import count_kept_bytes, count_macs, count_parameters, in_training, training_loss
from codedtool.models.network import CodedNetwork
from codedtool.models.presets import build_network
from codedtool.training.memory import images_that_fit
from codedtool.training.runtime import Runtime
from codedtool.training.subject import Subject, class_index

# Number of images in a timed batch, where memory suffices: enough to keep two cores or a GPU busy.
_TIMED_BATCH = {"cpu": 16, "cuda": 256}
_TIMED_ROUNDS, _MOST_ROUNDS = 7, 35

# Largest standard error of a steady median, as a part of it.
_STEADY = 0.03

# Said below a table with a marked figure.
NOISY = "~: noisy. Other work on this machine slowed some rounds down; the speed may be off by over 3%."

# Table 5, by (preset, image size in pixels): billions of multiply-adds, which fvcore counted with elementwise
# operations.
PAPER_GMACS = {("coded_resnext50_32x4d", 160): {"plain": 2.196, "coded": 2.269}}


@dataclass(frozen=True)
class NetworkCost:
    """The cost of one network.

    Attributes:
        name: name of the network: coded, plain, or binary classifier of a class.
        parameters: number of all parameters.
        parameters_without_projections: number of parameters without the 1x1 convolutions of projection shortcuts.
        macs: multiply-adds of the forward pass for one image; half the operations that torch's counter reports.
        kept_bytes: bytes that autograd keeps for the backward pass in float32, for each image, without the parameters.
        peak_bytes: most bytes allocated during a training step of one batch; None unless on CUDA.
        images_per_second: speed of the forward pass, in evaluation.
        training_images_per_second: speed of a training's forward and backward pass together, without the optimizer.
        is_noisy: whether a speed may be off by more than 3%, because other work slowed some rounds down.
    """

    name: str
    parameters: int
    parameters_without_projections: int
    macs: int
    kept_bytes: int
    peak_bytes: int | None
    images_per_second: float
    training_images_per_second: float
    is_noisy: bool = False


@dataclass(frozen=True)
class CostResult(Result):
    """Table 5 of a run: its network, the plain control, and the binary classifier of one class.

    Attributes:
        preset: name of the run's network.
        image_size: side of the images in pixels.
        batch_size: number of images in a timed batch.
        device: device of the measurements, as torch names it.
        precision: number format of the measured passes: fp32, bf16 or fp16.
        networks: cost of every network, the run's own first.
        skipped: the networks that were left out, each with the reason.
        schemes: which schemes were taken for a network without a run, one sentence per ratio.
    """

    preset: str
    image_size: int
    batch_size: int
    device: str
    precision: str
    networks: tuple[NetworkCost, ...]
    skipped: tuple[str, ...]
    schemes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return "cost"

    @property
    def paper_gmacs(self) -> dict[str, float]:
        """Billions of multiply-adds in table 5, by network; empty if the table lacks this preset at this image size."""
        return PAPER_GMACS.get((self.preset, self.image_size), {})

    def left_out(self) -> tuple[str, ...]:
        return self.skipped

    def lines(self) -> tuple[str, ...]:
        lines = list(self.schemes)
        if self.paper_gmacs:
            figures = ", ".join(f"{name} {millions(1e9 * gmacs)}" for name, gmacs in self.paper_gmacs.items())
            lines.append(
                f"The paper's table 5 has {figures} million multiply-adds: by fvcore, and 3NCHW a coded block."
            )
        if any(one.is_noisy for one in self.networks):
            lines.append(NOISY)
        return tuple(lines)

    def tables(self) -> tuple[Table, ...]:
        return (
            Table(
                f"Cost at {self.image_size} px, batches of {self.batch_size}, {self.device}, {self.precision}",
                (
                    self.preset,
                    "parameters",
                    "multiply-adds, M",
                    "images/s",
                    "training images/s",
                    "kept per image, MB",
                    "peak, MB",
                ),
                tuple(
                    (
                        one.name,
                        f"{one.parameters:,}",
                        millions(one.macs),
                        marked(f"{one.images_per_second:,.1f}", one.is_noisy),
                        marked(f"{one.training_images_per_second:,.1f}", one.is_noisy),
                        f"{one.kept_bytes / 1e6:.2f}",
                        NONE if one.peak_bytes is None else f"{one.peak_bytes / 1e6:,.0f}",
                    )
                    for one in self.networks
                ),
            ),
        )

    def rows(self) -> dict[str, Rows]:
        return {self.name: self.network_rows()}

    def network_rows(self) -> list[dict[str, Any]]:
        """One row per network. Ratios are relative to the first network."""
        first = self.networks[0]
        return [
            asdict(cost)
            | {
                "parameters_ratio": cost.parameters / first.parameters,
                "parameters_without_projections_ratio": cost.parameters_without_projections
                / first.parameters_without_projections,
                "macs_ratio": cost.macs / first.macs,
                "speed_ratio": cost.images_per_second / first.images_per_second,
                "paper_gmacs": self.paper_gmacs.get(cost.name),
            }
            for cost in self.networks
        ]

    def to_json(self) -> dict[str, Any]:
        return {
            "preset": self.preset,
            "image_size": self.image_size,
            "batch_size": self.batch_size,
            "device": self.device,
            "precision": self.precision,
            "networks": self.network_rows(),
            "skipped": list(self.skipped),
            **({"schemes": list(self.schemes)} if self.schemes else {}),
        }


def marked(figure: str, is_noisy: bool) -> str:
    """A measured figure, with the mark of a noisy one."""
    return f"~{figure}" if is_noisy else figure


class Timing(NamedTuple):
    """The duration of a function.

    Attributes:
        seconds: the median over all rounds.
        is_noisy: whether the rounds differ so much that the median may be off by more than 3%.
    """

    seconds: float
    is_noisy: bool


def compare_steadily(
    works: Sequence[Callable[[], Any]], *, device: torch.device, rounds: int, most_rounds: int
) -> list[Timing]:
    """Time functions in turn, for as many rounds as steady medians need.

    Args:
        works: the functions.
        device: the device that they use.
        rounds: the fewest rounds.
        most_rounds: the most rounds; what is not steady then is noisy.
    """
    seconds: list[list[float]] = [[] for _ in works]
    for work in works:
        work()
    while len(seconds[0]) < rounds or (len(seconds[0]) < most_rounds and any(map(_is_noisy, seconds))):
        for times, work in zip(seconds, works, strict=True):
            _synchronize(device)
            start = time.perf_counter()
            work()
            _synchronize(device)
            times.append(time.perf_counter() - start)
    return [Timing(median(times), _is_noisy(times)) for times in seconds]


def _is_noisy(times: Sequence[float]) -> bool:
    """Whether the standard error of the median, from the quartiles, is above `_STEADY` of it; one time is not."""
    if len(times) < 2:
        return False
    low, middle, high = quantiles(times, n=4)
    # For a normal distribution, the median's standard error is 1.25 sigma / sqrt(n), and the quartiles are 1.35 sigma
    # apart.
    return 0.93 * (high - low) / math.sqrt(len(times)) > _STEADY * middle


def cost(subject: Subject, *, class_name: str = "0", seed: int = 0, progress: Progress = silent) -> CostResult:
    """Measure the size and speed of the run's network, its plain control and one binary classifier (table 5).

    The networks are timed in turn in one process. The result is kept with ``subject``, so that asking again costs
    nothing.

    Args:
        subject: a coded or plain run. For a plain run, only its own network is measured.
        class_name: name or number of the binary classifier's class.
        seed: seed of the random images. The counts do not depend on the pixels.
        progress: where to report the progress.

    Returns:
        The costs of the networks, the run's own first.

    Raises:
        InputError: there is no such class.
    """
    index = class_index(subject.classes, class_name)
    return subject.once(f"cost {index} {seed}", lambda: _cost(subject, index, seed, progress))


def _cost(subject: Subject, index: int, seed: int, progress: Progress) -> CostResult:
    network, size = subject.network, subject.recipe.eval_size
    networks, skipped = {"coded" if network.block_names else "plain": network}, []
    if network.block_names:
        control = subject.recipe.preset.removeprefix("coded_")
        plain = build_network(control, num_classes=network.num_classes, variant=network.variant)
        subject.runtime.prepare(plain)
        networks["plain"] = plain.eval()
        networks[f"binary classifier of {subject.classes[index]}"] = subject.binary_classifier(index)
    else:
        skipped.append(f"coded network and binary classifier: {subject.run.path} was trained without schemes")
    costs, batch = measure_networks(networks, subject.runtime, size, seed=seed, progress=progress)
    runtime = subject.runtime
    return CostResult(subject.recipe.preset, size, batch, str(runtime.device), runtime.precision, costs, tuple(skipped))


def measure_networks(
    networks: Mapping[str, CodedNetwork], runtime: Runtime, image_size: int, *, seed: int, progress: Progress
) -> tuple[tuple[NetworkCost, ...], int]:
    """Measure networks on random images. They are timed in turn in one process.

    Args:
        networks: name -> network in evaluation mode, on the runtime's device.
        runtime: the device and the precision.
        image_size: side of the images in pixels.
        seed: seed of the images.
        progress: where to report the progress.

    Returns:
        The costs in the order of the networks, and the number of images in a timed batch.
    """
    device = runtime.device
    generator = torch.Generator().manual_seed(seed)
    two = runtime.put(torch.randn(2, 3, image_size, image_size, generator=generator))
    kept = {name: count_kept_bytes(one, two) for name, one in networks.items()}
    batch = images_that_fit(max(kept.values()), device, _TIMED_BATCH.get(device.type, _TIMED_BATCH["cpu"]))
    images = runtime.put(torch.randn(batch, 3, image_size, image_size, generator=generator))
    progress("timing", 0, 2)
    with torch.no_grad():
        forward = compare_steadily(
            [partial(_answer, one, images, runtime) for one in networks.values()],
            device=device,
            rounds=_TIMED_ROUNDS,
            most_rounds=_MOST_ROUNDS,
        )
    progress("timing", 1, 2)
    with ExitStack() as stack:
        for one in networks.values():
            stack.enter_context(in_training(one))
        steps = compare_steadily(
            [partial(_step, one, images, runtime) for one in networks.values()],
            device=device,
            rounds=_TIMED_ROUNDS,
            most_rounds=_MOST_ROUNDS,
        )
        peaks = [_peak_bytes(one, images, runtime) for one in networks.values()]
    costs = []
    for (name, one), answer, step, peak in zip(networks.items(), forward, steps, peaks, strict=True):
        costs.append(
            NetworkCost(
                name=name,
                parameters=count_parameters(one),
                parameters_without_projections=count_parameters(one, projections=False),
                macs=count_macs(one, two),
                kept_bytes=kept[name],
                peak_bytes=peak,
                images_per_second=batch / answer.seconds,
                training_images_per_second=batch / step.seconds,
                is_noisy=answer.is_noisy or step.is_noisy,
            )
        )
    return tuple(costs), batch


def _answer(network: CodedNetwork, images_BCHW: torch.Tensor, runtime: Runtime) -> None:
    """One forward pass."""
    with runtime.autocast():
        network(images_BCHW)


def _step(network: CodedNetwork, images_BCHW: torch.Tensor, runtime: Runtime) -> None:
    """One forward and backward pass of a training; it leaves no gradients."""
    targets = torch.zeros(len(images_BCHW), dtype=torch.int64, device=images_BCHW.device)
    with runtime.autocast():
        loss = training_loss(network(images_BCHW, targets), targets)
    loss.backward()
    network.zero_grad(set_to_none=True)


def _peak_bytes(network: CodedNetwork, images_BCHW: torch.Tensor, runtime: Runtime) -> int | None:
    if images_BCHW.device.type != "cuda":
        return None
    torch.cuda.reset_peak_memory_stats(images_BCHW.device)
    before = torch.cuda.memory_allocated(images_BCHW.device)
    _step(network, images_BCHW, runtime)
    return torch.cuda.max_memory_allocated(images_BCHW.device) - before


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
