"""The subject of every analysis: a trained run with its network on a device and its data set.

Shape suffixes: n images of a split, B of a batch, K classes, N subNNs, L coded blocks.
"""

from __future__ import annotations

import difflib
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, TypeVar

import torch

from codedtool.budget import Progress, silent
from codedtool.data import ImageData, Split, eval_batches, load_dataset, normalize
from codedtool.errors import InputError
from codedtool.models.network import CodedNetwork
from codedtool.models.pruning import extract_binary_classifier
from codedtool.training.checkpoint import Which
from codedtool.training.devices import device_kind, for_this_machine, opened_runtime
from codedtool.training.evaluation import collect_evidence
from codedtool.training.evidence import EVIDENCE_FILE, Evidence, parse_evidence
from codedtool.training.recipe import Recipe
from codedtool.training.run import Run
from codedtool.training.run_data import check_same_data, data_dir_of, load_data_of
from codedtool.training.runtime import Runtime

Value = TypeVar("Value")

_REPORT_SECONDS = 0.5


class NotApplicableError(InputError):
    """The run lacks something that the analysis needs, such as coded blocks; the report leaves the analysis out."""


@dataclass(frozen=True, eq=False)
class Subject:
    """An opened run: everything that an analysis needs.

    Attributes:
        run: the trained run.
        network: the trained network in evaluation mode, on ``runtime.device``.
        recipe: the run's recipe with the requested changes.
        runtime: the device and its operations.
        checkpoint: name of the loaded checkpoint.
        find_data: function that loads the data set ``recipe.data``.
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
        """The data set, loaded on first use. Its classes are those of the run, in the same order.

        A warning says if it is not the data set that the run was trained on.

        Raises:
            InputError: the data set is missing, or its classes are not the run's.
        """
        data = self.find_data()
        check_same_data(self.run, self.recipe, data)
        return data

    def once(self, key: str, work: Callable[[], Value]) -> Value:
        """Call ``work`` on the first request for ``key``, and return the kept result on later ones."""
        if key not in self._known:
            self._known[key] = work()
        value: Value = self._known[key]
        return value

    def outputs(self, progress: Progress = silent) -> Outputs:
        """The network's outputs for all validation images. They are computed once and shared by all analyses.

        Raises:
            InputError: no image can be read.
        """
        return self.once("outputs", lambda: collect_outputs(self, self.data.val, progress=progress))

    def known_outputs(self) -> Outputs | None:
        """The network's outputs for all validation images, if an analysis has asked for them; else None."""
        found: Outputs | None = self._known.get("outputs")
        return found

    def evidence(self) -> Evidence | None:
        """The statistics for predictions that the training stored with the checkpoint; None if it has none.

        A run of an earlier version has none, nor has a checkpoint that was saved within an epoch, nor images of another
        size than the run's.
        """
        content = self.run.checkpoints.attached(self.checkpoint, EVIDENCE_FILE)
        return parse_evidence(content, self.network, self.recipe.eval_size)

    def measure_evidence(self, progress: Progress = silent) -> Evidence:
        """The statistics for predictions, measured on the validation images of `data`."""
        normalization, recipe, runtime = self.run.normalization, self.recipe, self.runtime
        part = self.run.crop_part
        _, found = collect_evidence(
            self.network, self.data.val, normalization, recipe, runtime, crop_part=part, progress=progress
        )
        return found

    def binary_classifier(self, class_index: int) -> CodedNetwork:
        """The binary classifier of a class (0..K-1). It is extracted once and shared by all analyses."""
        return self.once(f"classifier {class_index}", lambda: extract_binary_classifier(self.network, class_index))

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the schemes' rows."""
        return self.run.classes

    @property
    def pass_size(self) -> int:
        """Number of images that pass the network at once, as many as in training."""
        return min(self.recipe.batch_size, self.recipe.images_at_once)

    def check_control(self, plain: Subject) -> None:
        """Raise InputError if ``plain`` is no run of the plain control: it has coded blocks, or other classes."""
        if plain.network.block_names:
            raise InputError(f"`plain` {plain.run.path} was trained with schemes: name a run of the plain control")
        if plain.classes != self.classes:
            raise InputError(f"`plain` {plain.run.path} has other classes than {self.run.path}")

    def require_coded(self, what: str) -> None:
        """Raise NotApplicableError if the network has no coded block; ``what`` names the analysis in the message."""
        if not self.network.block_names:
            raise NotApplicableError(
                f"{what} needs coded blocks, and {self.run.path} was trained without schemes ({self.recipe.preset})"
            )

    def coded_block(self, name: str) -> int:
        """The position, from 0, of the block called ``name`` (such as s3.2) among the coded blocks.

        Raises:
            InputError: no coded block has this name; the message lists the names.
        """
        if name not in self.network.block_names:
            raise InputError(
                f"{name!r} is no coded block of this run; its coded blocks are {', '.join(self.network.block_names)}"
            )
        return self.network.block_names.index(name)

    def batches(
        self, split: Split, progress: Progress, phase: str, *, batch_size: int | None = None
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Batches of a split in order, without augmentation.

        Images of any data set are normalized with the run's own statistics, as a deployed network would do.

        Args:
            split: the images and their classes.
            progress: where to report the number of images.
            phase: name of the work in the reports.
            batch_size: number of images in a batch; None: as many as a pass has in training.

        Yields:
            (B, 3, H, W) normalized images on the device, and (B,) int64 classes on the CPU.
        """
        for images_BCHW, targets_B, _ in self.numbered_batches(split, progress, phase, batch_size=batch_size):
            yield images_BCHW, targets_B

    def numbered_batches(
        self, split: Split, progress: Progress, phase: str, *, batch_size: int | None = None
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Batches as `batches` yields them, each with the (B,) int64 numbers of its images in the split, on the CPU."""
        seen, reported = 0, 0.0
        batches = eval_batches(
            split,
            size=self.recipe.eval_size,
            crop_part=self.run.crop_part,
            batch_size=batch_size or self.pass_size,
            num_workers=self.runtime.num_workers,
            pin_memory=self.runtime.pin_memory,
        )
        for images, targets, numbers in batches:
            if len(targets):
                yield normalize(self.runtime.put(images), self.run.normalization), targets, numbers
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
    """Open a trained run for analysis. Leaving the context closes its runtime.

    Args:
        run: from `Run.load`.
        checkpoint: "best", "last" or "previous".
        changes: values of the recipe to change, such as device, batch_size or data.
        download: whether a missing data set may be downloaded.
        progress: where to report the loading of the data set.

    Yields:
        The opened run. Its data set is loaded on first use.

    Raises:
        InputError: the checkpoint is missing or damaged, or a changed value is out of range.
    """
    changes = dict(changes or {})
    if "batch_size" in changes:
        changes["micro_batch"] = 0
    recipe = for_this_machine(run.recipe.with_values(changes), changes)
    if recipe.precision == "fp16" and "precision" not in changes and device_kind(recipe) == "cpu":
        warnings.warn("the run was trained in fp16, which needs CUDA: `precision` fp32 is used", stacklevel=1)
        recipe = recipe.with_values({"precision": "fp32"})
    with opened_runtime(recipe) as runtime:
        # Load the network first: its error names a missing checkpoint.
        network = run.load_network(checkpoint)
        name = run.checkpoints.index()[checkpoint]
        runtime.prepare(network)
        find_data = partial(load_data_of, run, recipe, runtime, download=download, progress=progress)
        yield Subject(run, network.eval(), recipe, runtime, name, find_data)


@dataclass(frozen=True, eq=False)
class Outputs:
    """The network's outputs for every image of a split, on the CPU.

    Attributes:
        logits: (n, K) float32 logits.
        targets: (n,) int64 true classes.
        energies: for every coded block, (n, N) float32 energies E(tbar_n) (eq. 3).
        decoded: (n, L) int64 classes that the early decoders predict.
        numbers: (n,) int64 numbers of the images in their split, without those that could not be read; None: unknown.
    """

    logits: torch.Tensor
    targets: torch.Tensor
    energies: tuple[torch.Tensor, ...]
    decoded: torch.Tensor
    numbers: torch.Tensor | None = None

    @property
    def predictions(self) -> torch.Tensor:
        """(n,) int64 predicted classes: those of the highest logits."""
        return self.logits.argmax(1)


@torch.no_grad()
def collect_outputs(
    subject: Subject, split: Split, *, progress: Progress = silent, phase: str = "evaluating"
) -> Outputs:
    """The network's outputs for all images of a split, from one pass.

    Raises:
        InputError: no image can be read.
    """
    logits: list[torch.Tensor] = []
    targets: list[torch.Tensor] = []
    energies: list[tuple[torch.Tensor, ...]] = []
    decoded: list[torch.Tensor] = []
    numbers: list[torch.Tensor] = []
    for images, targets_B, numbers_B in subject.numbered_batches(split, progress, phase):
        with subject.runtime.autocast():
            output = subject.network(images)
        logits.append(output.logits.float().cpu())
        targets.append(targets_B)
        numbers.append(numbers_B)
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
        torch.cat(numbers),
    )


def class_index(classes: tuple[str, ...], text: str) -> int:
    """The number of the class called ``text``. If no class is called so, ``text`` is read as a number, 0..K-1.

    Raises:
        InputError: ``text`` is neither a name nor a number of a class; the message offers similar names.

    Example:
        >>> class_index(("cat", "dog"), "dog")
        1
        >>> class_index(("cat", "dog"), "0")
        0
    """
    if text in classes:
        return classes.index(text)
    # int() refuses text of thousands of digits.
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
    """Load a data set whose validation images are out-of-distribution negatives (section 4.3).

    Args:
        subject: the run that the negatives are for.
        name: name of a data set with other classes; of folder:PATH, only PATH/val is needed. "none": no data set. None:
            the paper's choice, CIFAR-100 for CIFAR-10 and the reverse, if it is on this machine.
        download: whether a named data set may be downloaded.
        progress: where to report the progress.

    Returns:
        The data set, or None without one.

    Raises:
        InputError: the data set is the run's own, or was named and is missing.
    """
    if name == "none":
        return None
    if name is not None:
        if name == subject.recipe.data:
            raise InputError(f"`ood` {name} is the data set of the run itself; name one with other classes")
        return load_dataset(
            name, data_dir=data_dir_of(subject.run, subject.recipe), download=download, val_only=True, progress=progress
        )
    usual = {"cifar10": "cifar100", "cifar100": "cifar10"}.get(subject.recipe.data)
    if usual is None:
        return None
    try:
        return load_dataset(usual, data_dir=data_dir_of(subject.run, subject.recipe), download=False, progress=progress)
    except InputError:
        return None
