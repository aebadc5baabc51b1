"""The subject of every analysis: a trained run, its network on a device, and images.

Shape suffixes: n images of a split, B of a batch, K classes, N subNNs, L coded blocks.
"""

from __future__ import annotations

import difflib
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

import torch

from codedtool.budget import Progress, silent
from codedtool.data import ImageData, Split, eval_batches, load_dataset, normalize
from codedtool.errors import InputError
from codedtool.models.network import CodedNetwork
from codedtool.models.pruning import extract_binary_classifier
from codedtool.training.checkpoint import Which
from codedtool.training.devices import opened_runtime
from codedtool.training.recipe import Recipe
from codedtool.training.run import Run
from codedtool.training.run_data import check_same_classes, load_run_data
from codedtool.training.runtime import Runtime

Value = TypeVar("Value")

_REPORT_SECONDS = 0.5


class NotApplicableError(InputError):
    """A run lacks something that an analysis needs, such as coded blocks; `report` leaves the analysis out."""


@dataclass(frozen=True, eq=False)
class Subject:
    """A trained run, opened.

    Attributes:
        run: its directory.
        network: the trained network in evaluation mode, on ``runtime.device``.
        recipe: the run's recipe with the changes asked for.
        runtime: the device.
        checkpoint: name of the checkpoint that was loaded.
        find_data: loads ``recipe.data``.
    """

    run: Run
    network: CodedNetwork
    recipe: Recipe
    runtime: Runtime
    checkpoint: str
    find_data: Callable[[], ImageData]
    _known: dict[str, Any] = field(init=False, repr=False, default_factory=dict)

    @cached_property
    def data(self) -> ImageData:
        """The run's data set, with the same classes in the same order; loaded on first use.

        Raises:
            InputError: missing data, or other classes than the run's.
        """
        data = self.find_data()
        check_same_classes(self.run, data)
        return data

    def once(self, key: str, work: Callable[[], Value]) -> Value:
        """The result of ``work``, which is done once per opened run and ``key``: analyses share it."""
        if key not in self._known:
            self._known[key] = work()
        value: Value = self._known[key]
        return value

    def outputs(self, progress: Progress = silent) -> Outputs:
        """The network's outputs for the validation images, from one pass that all analyses share.

        Raises:
            InputError: no image could be read.
        """
        return self.once("outputs", lambda: collect_outputs(self, self.data.val, progress=progress))

    def binary_classifier(self, class_index: int) -> CodedNetwork:
        """The binary classifier of a class (0..K-1), cut from the network once."""
        return self.once(f"classifier {class_index}", lambda: extract_binary_classifier(self.network, class_index))

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, row by row of the schemes."""
        return self.run.classes

    def require_coded(self, what: str) -> None:
        """Raise NotApplicableError where the network has no coded block; ``what`` names the analysis."""
        if not self.network.block_names:
            raise NotApplicableError(
                f"{what} needs coded blocks, and {self.run.path} was trained without schemes ({self.recipe.preset})"
            )

    def coded_block(self, name: str) -> int:
        """The number (0-based) among the coded blocks of the block called ``name``, such as s3.2.

        Raises:
            InputError: no coded block is called so; the message lists them.
        """
        if name not in self.network.block_names:
            raise InputError(
                f"{name!r} is no coded block of this run; its coded blocks are {', '.join(self.network.block_names)}"
            )
        return self.network.block_names.index(name)

    def batches(
        self, split: Split, progress: Progress, phase: str, *, batch_size: int | None = None
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """(B, 3, H, W) normalised images on the device and (B,) int64 targets on the CPU, in order, not augmented.

        Images of every data set are normalised as the run's own: a deployed network knows no other statistics.
        """
        seen, reported = 0, 0.0
        batches = eval_batches(
            split,
            size=self.recipe.eval_size,
            batch_size=batch_size or self.recipe.batch_size,
            num_workers=self.runtime.num_workers,
            pin_memory=self.runtime.pin_memory,
        )
        for images, targets, _ in batches:
            if len(targets):
                yield normalize(self.runtime.put(images), self.run.normalization), targets
                self.runtime.mark()
            seen += len(targets)
            if time.monotonic() - reported > _REPORT_SECONDS:
                reported = time.monotonic()
                progress(phase, seen, len(split))


@contextmanager
def opened_run(
    run: Run,
    *,
    checkpoint: Which = "best",
    changes: Mapping[str, Any] | None = None,
    download: bool = True,
    progress: Progress = silent,
) -> Iterator[Subject]:
    """Open a trained run for analysis; the runtime is closed with the context.

    Args:
        run: from `Run.load`.
        checkpoint: best, last or previous.
        changes: recipe values to change (device, batch_size, data, ...).
        download: fetch a data set that is missing.

    Raises:
        InputError: no or a damaged checkpoint.
    """
    recipe = run.recipe.with_values(changes or {})
    with opened_runtime(recipe) as runtime:
        # First, for it says what is wrong where there is no such checkpoint.
        network = run.load_network(checkpoint)
        name = run.checkpoints.index()[checkpoint]
        runtime.prepare(network)
        find_data = partial(load_run_data, recipe, runtime, download=download, progress=progress)
        yield Subject(run, network.eval(), recipe, runtime, name, find_data)


@dataclass(frozen=True, eq=False)
class Outputs:
    """The network's outputs for every image of a split, on the CPU.

    Attributes:
        logits: (n, K) float32.
        targets: (n,) int64.
        energies: E(tbar_n) of every coded block, (n, N) float32 each.
        decoded: (n, L) int64, the early decoders' classes.
    """

    logits: torch.Tensor
    targets: torch.Tensor
    energies: tuple[torch.Tensor, ...]
    decoded: torch.Tensor

    @property
    def predictions(self) -> torch.Tensor:
        """(n,) int64, the class of the highest logit."""
        return self.logits.argmax(1)


@torch.no_grad()
def collect_outputs(
    subject: Subject, split: Split, *, progress: Progress = silent, phase: str = "evaluating"
) -> Outputs:
    """One pass of the network over a split.

    Raises:
        InputError: no image could be read.
    """
    logits: list[torch.Tensor] = []
    targets: list[torch.Tensor] = []
    energies: list[tuple[torch.Tensor, ...]] = []
    decoded: list[torch.Tensor] = []
    for images, targets_B in subject.batches(split, progress, phase):
        with subject.runtime.autocast():
            output = subject.network(images)
        logits.append(output.logits.float().cpu())
        targets.append(targets_B)
        energies.append(tuple(values_BN.cpu() for values_BN in output.energies))
        classes = subject.network.decode(output.energies)
        decoded.append(torch.stack(classes, dim=1).cpu() if classes else torch.empty(len(targets_B), 0).long())
    if not logits:
        raise InputError(f"{subject.data.name} has no image that can be read in the split that was asked for")
    return Outputs(
        torch.cat(logits),
        torch.cat(targets),
        tuple(torch.cat(values) for values in zip(*energies, strict=True)),
        torch.cat(decoded),
    )


def class_index(classes: tuple[str, ...], text: str) -> int:
    """The class called ``text``, or number ``text`` where no class is called so.

    Raises:
        InputError: neither; the nearest names are offered.
    """
    if text in classes:
        return classes.index(text)
    # Python refuses to read numbers of thousands of digits.
    if text.isdecimal() and len(text) < 20 and int(text) < len(classes):
        return int(text)
    near = difflib.get_close_matches(text, classes, n=3, cutoff=0.4)
    hint = (
        f"did you mean {' or '.join(near)}?"
        if near
        else f"known: {', '.join(classes[:12])}" + (", ..." if len(classes) > 12 else "")
    )
    raise InputError(f"`class_name` {text!r} is neither a class nor a number from 0 to {len(classes) - 1}; {hint}")


def find_negatives(
    subject: Subject, name: str | None, *, download: bool = True, progress: Progress = silent
) -> ImageData | None:
    """A data set of other classes, whose validation images are out-of-distribution negatives (section 4.3).

    Args:
        name: a data set (of a folder, val/ is enough), or "none"; None: the paper's choice (CIFAR-100 for CIFAR-10 and
            the reverse) if it is there.

    Returns:
        None without one.

    Raises:
        InputError: the run's own data set, or one that was named and is not there.
    """
    if name == "none":
        return None
    if name is not None:
        if name == subject.data.name:
            raise InputError(f"`ood` {name} is the data set of the run itself; name one with other classes")
        return load_dataset(
            name, data_dir=Path(subject.recipe.data_dir), download=download, val_only=True, progress=progress
        )
    usual = {"cifar10": "cifar100", "cifar100": "cifar10"}.get(subject.data.name)
    if usual is None:
        return None
    try:
        return load_dataset(usual, data_dir=Path(subject.recipe.data_dir), download=False, progress=progress)
    except InputError:
        return None
