"""Activation distributions of subNNs (appendix F.1, figure 6): what they put out for their classes, and for others.

Shape suffixes: B images of a batch, N subNNs, d bottleneck channels of a subNN, C output channels, H, W pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from codedtool.analysis.result import NONE, Result, Rows, Table
from codedtool.budget import Progress, silent
from codedtool.errors import InputError
from codedtool.models.network import CodedNetwork
from codedtool.training.subject import Subject

# Bin numbers are held in a byte.
_MOST_BINS = 256

# Values binned at a time on the CPU, where they and their bin numbers should stay in the cache.
_CHUNK_CPU, _CHUNK = 1 << 18, 1 << 26


class StreamingHistogram:
    """A histogram of numbers that are at least 0, over a range that grows, in constant memory.

    The range [0, limit) is a power of two. Where a number does not fit, the range doubles: neighbouring bins are added
    up in pairs, and the upper half is empty. Edges of bins are thus exact and so are the counts: they are those of one
    histogram over the last range, whatever the order in which the numbers came.

    Args:
        bins: a power of two, from 2 to 256.
    """

    def __init__(self, *, bins: int = 64) -> None:
        if not 2 <= bins <= _MOST_BINS or bins & (bins - 1):
            raise InputError(f"bins must be a power of two from 2 to {_MOST_BINS}, got {bins}")
        self._counts = torch.zeros(bins, dtype=torch.int64)
        self._sum = 0.0
        # Far below any output of a network; finer than that is not resolved.
        self._limit = 2.0**-20

    @property
    def limit(self) -> float:
        """The end of the range, above every number seen."""
        return self._limit

    @property
    def edges(self) -> tuple[float, ...]:
        """The bins' edges, one more than there are bins; a bin has its lower edge and not its upper one."""
        bins = len(self._counts)
        return tuple(number * self._limit / bins for number in range(bins + 1))

    @property
    def counts(self) -> tuple[int, ...]:
        """How many numbers fell in each bin."""
        return tuple(self._counts.tolist())

    @property
    def total(self) -> int:
        """How many numbers were added."""
        return int(self._counts.sum())

    @property
    def mean(self) -> float | None:
        """The numbers' mean, not rounded to bins; None where there are none."""
        return self._sum / self.total if self.total else None

    def quantile(self, part: float) -> float | None:
        """The number below which ``part`` (0..1) of them are, as if even within a bin; None where there are none."""
        if not self.total:
            return None
        wanted = part * self.total
        cumulative = self._counts.cumsum(0).tolist()
        number = next(number for number, reached in enumerate(cumulative) if reached >= wanted and reached)
        count = int(self._counts[number])
        return (number + (wanted - (cumulative[number] - count)) / count) * self._limit / len(self._counts)

    def add(self, values: torch.Tensor) -> None:
        """Count the numbers of a floating tensor of any shape, on any device.

        Raises:
            InputError: a number below 0, infinite or not a number.
        """
        if not values.numel():
            return
        lowest, highest = (float(value) for value in values.aminmax())
        if not (lowest >= 0 and math.isfinite(highest)):
            raise InputError(f"a histogram takes finite numbers of at least 0, got some from {lowest} to {highest}")
        self.widen(highest)
        # Both are powers of two: the product is exact, and rounding it down gives the bin.
        scale = len(self._counts) / self._limit
        for chunk in values.flatten().split(_CHUNK_CPU if values.device.type == "cpu" else _CHUNK):
            numbers = (chunk * scale).to(torch.uint8)
            self._counts += torch.bincount(numbers, minlength=len(self._counts)).cpu()
            self._sum += float(chunk.sum())

    def widen(self, value: float) -> None:
        """Double the range until ``value`` is in it."""
        while value >= self._limit:
            folded = self._counts.view(-1, 2).sum(dim=1)
            self._counts = torch.cat([folded, torch.zeros_like(folded)])
            self._limit *= 2


@dataclass(frozen=True)
class Distribution:
    """Absolute output values of one subNN for some of the images.

    Attributes:
        counts: values per bin.
        mean: of the values; None without images.
        p99: their 99th percentile, to within a bin; None without images.
    """

    counts: tuple[int, ...]
    mean: float | None
    p99: float | None

    @classmethod
    def of(cls, histogram: StreamingHistogram) -> Distribution:
        """What a histogram has counted."""
        return cls(histogram.counts, histogram.mean, histogram.quantile(0.99))

    def density(self, edges: tuple[float, ...]) -> tuple[float, ...]:
        """The counts scaled to an area of 1; zeros without images."""
        scale = max(sum(self.counts), 1) * (edges[1] - edges[0])
        return tuple(count / scale for count in self.counts)


@dataclass(frozen=True)
class SubnnActivations:
    """One panel of figure 6.

    Attributes:
        subnn: its number, from 0: the column of the scheme.
        edges: of the bins, for both distributions.
        active: for images of the classes that the scheme assigns to the subNN.
        inactive: for the other images.
    """

    subnn: int
    edges: tuple[float, ...]
    active: Distribution
    inactive: Distribution

    @property
    def parts(self) -> tuple[tuple[str, Distribution], ...]:
        """Both distributions with their names."""
        return ("active", self.active), ("inactive", self.inactive)


@dataclass(frozen=True)
class ActivationsResult(Result):
    """Figure 6.

    Attributes:
        data, checkpoint: what it is of.
        block: name of the coded block.
        num_images: validation images.
        subnns: in order.
    """

    data: str
    checkpoint: str
    block: str
    num_images: int
    subnns: tuple[SubnnActivations, ...]

    @property
    def name(self) -> str:
        return "activations"

    def tables(self) -> tuple[Table, ...]:
        kinds = {"active": "the subNN's classes", "inactive": "other classes"}
        return (
            Table(
                f"Absolute outputs of block {self.block} after Energy Normalization, {self.num_images} images",
                (
                    "subNN",
                    *(f"{measure}, {images}" for images in kinds.values() for measure in ("mean", "99th percentile")),
                ),
                tuple(
                    (
                        str(subnn.subnn),
                        *(
                            NONE if number is None else f"{number:.4f}"
                            for _, part in subnn.parts
                            for number in (part.mean, part.p99)
                        ),
                    )
                    for subnn in self.subnns
                ),
            ),
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "data": self.data,
            "checkpoint": self.checkpoint,
            "block": self.block,
            "num_images": self.num_images,
            "subnns": [
                {"subnn": subnn.subnn, "edges": list(subnn.edges)}
                | {
                    name: {"mean": part.mean, "p99": part.p99, "counts": list(part.counts)}
                    for name, part in subnn.parts
                }
                for subnn in self.subnns
            ],
        }

    def rows(self) -> dict[str, Rows]:
        bins = [
            {
                "block": self.block,
                "subnn": subnn.subnn,
                "class": name,
                "from": subnn.edges[number],
                "to": subnn.edges[number + 1],
                "count": part.counts[number],
                "density": density,
            }
            for subnn in self.subnns
            for name, part in subnn.parts
            for number, density in enumerate(part.density(subnn.edges))
        ]
        return {self.name: bins}


def default_block(network: CodedNetwork) -> str:
    """The paper's choice: the second coded block of the last coded stage, or its only coded block."""
    last = network.coded_blocks[-1].stage
    return [block.name for block in network.coded_blocks if block.stage == last][:2][-1]


@torch.no_grad()
def activations(
    subject: Subject,
    *,
    block: str | None = None,
    num_subnns: int = 5,
    bins: int = 64,
    progress: Progress = silent,
) -> ActivationsResult:
    """Histograms of the absolute output values of a block's first subNNs, by whether the image's class activates them.

    The values are those after Energy Normalization, |tbar_n| (eq. 3), of every channel and pixel of every validation
    image: the paper does not say on which side of it figure 6 is, and only normalized values compare between images.

    The outputs of all subNNs are never in memory together: those of one are, for one batch.

    Args:
        block: name of a coded block; None: `default_block`.
        num_subnns: how many, from 1 to N.
        bins: as for `StreamingHistogram`.

    Raises:
        NotApplicableError: a network without coded blocks.
        InputError: no such block, a number out of range, no image that can be read, outputs that are not finite.
    """
    subject.require_coded("activations")
    network = subject.network
    name = default_block(network) if block is None else block
    number = subject.coded_block(name)
    chosen = network.coded_blocks[number]
    coded_sum = chosen.coded_sum
    if not 1 <= num_subnns <= coded_sum.num_subnns:
        raise InputError(f"`num_subnns` must be from 1 to the block's N = {coded_sum.num_subnns}, got {num_subnns}")
    codewords_KN = torch.tensor(coded_sum.scheme.table).bool()
    histograms = [(StreamingHistogram(bins=bins), StreamingHistogram(bins=bins)) for _ in range(num_subnns)]
    num_images = 0
    for images, targets_B in subject.batches(subject.data.val, progress, "collecting activations"):
        with subject.runtime.autocast():
            features = network.stem(images)
            for before in network.blocks[: network.coded_indices[number]]:
                features = before(features).features
            h_BDHW = chosen.bottleneck(features)
        codewords_BN = subject.runtime.put(codewords_KN[targets_B])
        for n, output_BCHW in enumerate(coded_sum.outputs(h_BDHW, num_subnns)):
            output_BCHW.abs_()
            active, inactive = histograms[n]
            active.add(output_BCHW[codewords_BN[:, n]])
            inactive.add(output_BCHW[~codewords_BN[:, n]])
        num_images += len(targets_B)
    if not num_images:
        raise InputError(f"{subject.data.name} has no validation image that can be read")
    for active, inactive in histograms:
        # One range for both: that of the wider one, whose upper half begins at half of its limit.
        for histogram in (active, inactive):
            histogram.widen(max(active.limit, inactive.limit) / 2)
    return ActivationsResult(
        data=subject.recipe.data,
        checkpoint=subject.checkpoint,
        block=name,
        num_images=num_images,
        subnns=tuple(
            SubnnActivations(n, active.edges, Distribution.of(active), Distribution.of(inactive))
            for n, (active, inactive) in enumerate(histograms)
        ),
    )
