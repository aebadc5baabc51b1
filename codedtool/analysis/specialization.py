"""Specialization (section 4.2, figures 2a and 9): accuracy when active or inactive subNNs of one block are removed.

Shape suffixes: B images of a batch, K classes, N subNNs, R numbers of removed subNNs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from codedtool.analysis.result import Result, Rows, Table, percent
from codedtool.budget import Progress, silent
from codedtool.errors import InputError
from codedtool.training.subject import Subject

_PHASE = "removing subNNs"


@dataclass(frozen=True)
class BlockCurves:
    """Accuracy (0..1) of the final prediction by the number of subNNs removed from one block.

    Attributes:
        block: name of the block, such as s2.3.
        num_subnns: number N of subNNs in the block.
        act: number N_act of subNNs that are active for a class.
        active: entry k is the accuracy without k active subNNs of the image's class, k = 0..N_act.
        inactive: entry k is the accuracy without k inactive subNNs, k = 0..N - N_act.
    """

    block: str
    num_subnns: int
    act: int
    active: tuple[float, ...]
    inactive: tuple[float, ...]


@dataclass(frozen=True)
class SpecializeResult(Result):
    """The curves of figures 2a and 9.

    Attributes:
        data, checkpoint: the data set and the checkpoint that were measured.
        num_images: number of validation images that were measured.
        num_available: number of validation images that there are, unreadable ones included.
        repeats: number of random draws for each image and number of removed subNNs.
        seed: seed of the draws.
        blocks: the curves of every measured block, in the network's order.
    """

    data: str
    checkpoint: str
    num_images: int
    num_available: int
    repeats: int
    seed: int
    blocks: tuple[BlockCurves, ...]

    @property
    def name(self) -> str:
        return "specialize"

    def tables(self) -> tuple[Table, ...]:
        columns = max(len(curve) for curves in self.blocks for curve in (curves.active, curves.inactive))
        of = f" of {self.num_available}" if self.num_images < self.num_available else ""
        return (
            Table(
                f"Accuracy without k subNNs of one block, %: {self.num_images}{of} images of {self.data}",
                ("block, removed subNNs", *(f"k={k}" for k in range(columns))),
                tuple(
                    (f"{curves.block}, {removed}", *map(percent, curve), *[""] * (columns - len(curve)))
                    for curves in self.blocks
                    for removed, curve in (("active", curves.active), ("inactive", curves.inactive))
                ),
            ),
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "data": self.data,
            "checkpoint": self.checkpoint,
            "num_images": self.num_images,
            "num_available": self.num_available,
            "repeats": self.repeats,
            "seed": self.seed,
            "blocks": [
                {
                    "block": curves.block,
                    "N": curves.num_subnns,
                    "act": curves.act,
                    "active": list(curves.active),
                    "inactive": list(curves.inactive),
                }
                for curves in self.blocks
            ],
        }

    def rows(self) -> dict[str, Rows]:
        points = [
            {"block": curves.block, "removed": removed, "k": k, "accuracy": accuracy}
            for curves in self.blocks
            for removed, accuracies in (("active", curves.active), ("inactive", curves.inactive))
            for k, accuracy in enumerate(accuracies)
        ]
        return {self.name: points}


def random_removal_masks(
    codewords_BN: torch.Tensor, removed: Sequence[int], *, active: bool, generator: np.random.Generator
) -> torch.Tensor:
    """Masks that remove k random active, or inactive, subNNs for every image.

    The removed subNNs are drawn anew for every image, uniformly and without replacement. For one image, the sets of
    different sizes are nested, so that curves over k are smooth. The generator gives N numbers for each image in turn,
    so several calls with parts of a batch give the same masks as one call with the whole batch.

    Args:
        codewords_BN: (B, N) of 0 and 1 on the CPU: the codeword of every image's class.
        removed: the R numbers k of subNNs to remove.
        active: whether to remove active subNNs (digit 1) or inactive ones (digit 0).
        generator: source of the draws; advances by B * N numbers.

    Returns:
        (R, B, N) bool, False where a subNN is removed.

    Raises:
        InputError: a number is below 0, or above the number of subNNs to choose from.
    """
    candidates_BN = codewords_BN.bool() == active
    available = int(candidates_BN.sum(dim=1).min()) if len(codewords_BN) else codewords_BN.shape[1]
    for k in removed:
        if not 0 <= k <= available:
            kind = "active" if active else "inactive"
            raise InputError(f"{k} {kind} subNNs cannot be removed: an image has {available} of them")
    scores_BN = torch.from_numpy(generator.random(tuple(codewords_BN.shape)))
    # Random scores are below 1, so the candidates rank first, in random order. Those ranked below k are removed.
    ranks_BN = torch.where(candidates_BN, scores_BN, 1.0).argsort(dim=1).argsort(dim=1)
    return ranks_BN >= torch.tensor(list(removed), dtype=torch.int64)[:, None, None]


def even_choice(targets_n: NDArray[np.int64], count: int, *, seed: int) -> NDArray[np.int64]:
    """Draw ``count`` images, the same number of every class as far as its images suffice.

    Args:
        targets_n: (n,) classes of the images.
        count: number of images to draw, at most n.
        seed: seed of the draws.

    Returns:
        The sorted numbers of the images.

    Example:
        >>> targets = np.array([0, 0, 0, 0, 1, 2, 2])
        >>> targets[even_choice(targets, 5, seed=0)].tolist()
        [0, 0, 1, 2, 2]
    """
    order_n = np.random.default_rng(seed).permutation(len(targets_n))
    by_class_n = order_n[np.argsort(targets_n[order_n], kind="stable")]
    sorted_n = targets_n[by_class_n]
    # Image i of its class, in random order, is drawn before every image i + 1.
    place_n = np.arange(len(targets_n)) - np.searchsorted(sorted_n, sorted_n)
    position_n = np.argsort(order_n)[by_class_n]
    return np.sort(by_class_n[np.lexsort((position_n, place_n))[:count]])


@torch.no_grad()
def specialize(
    subject: Subject,
    *,
    blocks: Sequence[str] | None = None,
    images: int | None = None,
    repeats: int = 1,
    seed: int = 0,
    progress: Progress = silent,
) -> SpecializeResult:
    """Measure the accuracy after removing k random active or inactive subNNs of one block (section 4.2).

    A subNN is active for an image if the codeword of the image's true class has a 1 there. The removed subNNs are drawn
    for every image. They are removed before Energy Normalization (the paper's footnote 3), which scales the other
    subNNs up to the same total energy. So a block without its active subNNs passes on the normalized signal of the
    inactive ones.

    The draws for an image depend on the seed, the block, and the image's number among the readable images that are
    measured. They do not depend on the batch size, nor on the other blocks.

    Args:
        subject: a coded run.
        blocks: names of coded blocks, such as s2.3; None or empty: all coded blocks.
        images: number of validation images to measure, at least 1; they are drawn with the seed, evenly from the
            classes. None, or more than there are: all.
        repeats: number of random draws for each image and k, at least 1.
        seed: seed of the draws, at least 0.
        progress: where to report the progress.

    Returns:
        The accuracy by the number of removed active and inactive subNNs, for every block (figures 2a and 9).

    Raises:
        NotApplicableError: the network has no coded block.
        InputError: there is no such block, ``images``, ``repeats`` or ``seed`` is out of range, or no image can be
            read.
    """
    subject.require_coded("specialize")
    if images is not None and images < 1:
        raise InputError(f"`images` must be at least 1, got {images}")
    if repeats < 1:
        raise InputError(f"`repeats` must be at least 1, got {repeats}")
    if seed < 0:
        raise InputError(f"`seed` must be at least 0, got {seed}")
    network = subject.network
    tallies = {
        network.coded_indices[number]: _Tally(subject, number, repeats=repeats, seed=seed)
        for number in sorted({subject.coded_block(name) for name in blocks or network.block_names})
    }
    passes = sum(tally.passes for tally in tallies.values())
    available = subject.data.val
    split = available
    if images is not None and images < len(available):
        split = available.taking(even_choice(available.targets, images, seed=seed))
    whole_hits = torch.zeros((), dtype=torch.int64, device=subject.runtime.device)
    seen = 0
    for images_BCHW, targets_B in subject.batches(split, progress, _PHASE):
        on_device_B = subject.runtime.put(targets_B)
        done = 0
        with subject.runtime.autocast():
            features = network.stem(images_BCHW)
            for index, block in enumerate(network.blocks):
                h, shortcut = block.bottleneck(features), block.shortcut(features)
                if index in tallies:
                    for _ in tallies[index].add(h, shortcut, targets_B, on_device_B):
                        done += 1
                        note = f"block {tallies[index].name}"
                        progress(_PHASE, seen + len(targets_B) * done / (passes + 1), len(split), note)
                features = block.join(h, shortcut).features
            # With k = 0 nothing is removed, so all blocks share one number.
            whole_hits += _hits(network.head(features), on_device_B)
        seen += len(targets_B)
    if not seen:
        raise InputError(f"{subject.data.name} has no validation image that can be read")
    whole = int(whole_hits) / seen
    return SpecializeResult(
        data=subject.recipe.data,
        checkpoint=subject.checkpoint,
        num_images=seen,
        num_available=len(available),
        repeats=repeats,
        seed=seed,
        blocks=tuple(tally.curves(whole, seen) for tally in tallies.values()),
    )


class _Tally:
    """Counts the right answers without k subNNs of one block, on the device so that no pass has to wait."""

    def __init__(self, subject: Subject, number: int, *, repeats: int, seed: int) -> None:
        self._runtime = subject.runtime
        self._network = subject.network
        self._index = subject.network.coded_indices[number]
        self._repeats = repeats
        block = self._network.coded_blocks[number]
        scheme = self._scheme = block.scheme
        self.name = block.name
        self._codewords_KN = torch.tensor(scheme.table)
        self._sizes = {True: range(1, scheme.act + 1), False: range(1, scheme.length - scheme.act + 1)}
        self._hits = {
            (active, k): torch.zeros((), dtype=torch.int64, device=self._runtime.device)
            for active, sizes in self._sizes.items()
            for k in sizes
        }
        # Each combination keeps its generator from batch to batch, so that the batch size does not change the draws.
        self._generators = {
            (active, repeat): np.random.default_rng((seed, number, repeat, int(active)))
            for active in self._sizes
            for repeat in range(repeats)
        }

    @property
    def passes(self) -> int:
        """Number of passes through the rest of the network for a batch."""
        return len(self._hits) * self._repeats

    def add(
        self, h: torch.Tensor, shortcut: torch.Tensor, targets_B: torch.Tensor, on_device_B: torch.Tensor
    ) -> Iterator[None]:
        """Count the right answers for a batch; yields after each pass.

        Args:
            h, shortcut: outputs of the block's bottleneck and shortcut, which no mask changes.
            targets_B, on_device_B: classes of the images, on the CPU and on the device.
        """
        codewords_BN = self._codewords_KN[targets_B]
        block, *rest = self._network.blocks[self._index :]
        for (active, _), generator in self._generators.items():
            sizes = self._sizes[active]
            masks = random_removal_masks(codewords_BN, sizes, active=active, generator=generator)
            for k, mask_BN in zip(sizes, masks, strict=True):
                features = block.join(h, shortcut, keep_mask=self._runtime.put(mask_BN)).features
                for later in rest:
                    features = later(features).features
                self._hits[active, k] += _hits(self._network.head(features), on_device_B)
                self._runtime.mark()
                yield

    def curves(self, whole: float, num_images: int) -> BlockCurves:
        """The curves of the block; ``whole`` is the accuracy of the whole network, 0..1."""
        active, inactive = (
            (whole, *(int(self._hits[kind, k]) / (num_images * self._repeats) for k in self._sizes[kind]))
            for kind in (True, False)
        )
        return BlockCurves(self.name, self._scheme.length, self._scheme.act, active, inactive)


def _hits(logits_BK: torch.Tensor, targets_B: torch.Tensor) -> torch.Tensor:
    return (logits_BK.argmax(dim=1) == targets_B).sum()
