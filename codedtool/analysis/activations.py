"""Distributions of subNN outputs, for the classes that activate a subNN and for others (appendix F.1, figure 6).

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

# Number of subNNs that figure 6 shows.
_SHOWN = 5

# Bin numbers are stored as uint8.
_MOST_BINS = 256

# Number of values binned at once: on the CPU so few that they and their bin numbers stay in the cache.
_CHUNK_CPU, _CHUNK = 1 << 18, 1 << 26


class StreamingHistogram:
    """A histogram of non-negative numbers in constant memory; its range grows with the numbers.

    The range is [0, limit), and limit is a power of two. When a number lies outside, the range doubles: neighbouring
    bins are added in pairs, and the upper half of the bins is empty. All edges are exact, so the counts equal those of
    an ordinary histogram over the final range, whatever the order of the numbers.

    Args:
        bins: number of bins: a power of two from 2 to 256.

    Raises:
        InputError: another number of bins.

    Example:
        >>> histogram = StreamingHistogram(bins=4)
        >>> histogram.add(torch.tensor([0.1, 0.6, 3.0]))
        >>> histogram.edges
        (0.0, 1.0, 2.0, 3.0, 4.0)
        >>> histogram.counts
        (2, 0, 0, 1)
    """

    def __init__(self, *, bins: int = 64) -> None:
        if not 2 <= bins <= _MOST_BINS or bins & (bins - 1):
            raise InputError(f"`bins` must be a power of two from 2 to {_MOST_BINS}, got {bins}")
        self._counts = torch.zeros(bins, dtype=torch.int64)
        self._sum = 0.0
        # The first limit is far below typical outputs of a network.
        self._limit = 2.0**-20

    @property
    def limit(self) -> float:
        """Upper end of the range; all added numbers are below it."""
        return self._limit

    @property
    def edges(self) -> tuple[float, ...]:
        """Edges of the bins, one more than there are bins. A bin contains its lower edge but not its upper edge."""
        bins = len(self._counts)
        return tuple(number * self._limit / bins for number in range(bins + 1))

    @property
    def counts(self) -> tuple[int, ...]:
        """Number of values in each bin."""
        return tuple(self._counts.tolist())

    @property
    def total(self) -> int:
        """Number of values that were added."""
        return int(self._counts.sum())

    @property
    def mean(self) -> float | None:
        """Exact mean of the added values, not computed from the bins; None without values."""
        return self._sum / self.total if self.total else None

    def quantile(self, part: float) -> float | None:
        """The quantile at ``part`` (0..1), interpolated linearly within a bin; None without values."""
        if not self.total:
            return None
        wanted = part * self.total
        cumulative = self._counts.cumsum(0).tolist()
        number = next(number for number, reached in enumerate(cumulative) if reached >= wanted and reached)
        count = int(self._counts[number])
        return (number + (wanted - (cumulative[number] - count)) / count) * self._limit / len(self._counts)

    def add(self, values: torch.Tensor) -> None:
        """Add all values of a floating-point tensor of any shape, on any device.

        Raises:
            InputError: a value is negative, infinite or NaN.
        """
        if not values.numel():
            return
        lowest, highest = (float(value) for value in values.aminmax())
        if not (lowest >= 0 and math.isfinite(highest)):
            raise InputError(f"a histogram takes finite numbers of at least 0, got some from {lowest} to {highest}")
        self.widen(highest)
        # Both numbers are powers of two, so the scaled values are exact, and rounding down gives the bin.
        scale = len(self._counts) / self._limit
        for chunk in values.flatten().split(_CHUNK_CPU if values.device.type == "cpu" else _CHUNK):
            numbers = (chunk * scale).to(torch.uint8)
            self._counts += torch.bincount(numbers, minlength=len(self._counts)).cpu()
            self._sum += float(chunk.sum())

    def widen(self, value: float) -> None:
        """Double the range until it contains ``value``."""
        while value >= self._limit:
            folded = self._counts.view(-1, 2).sum(dim=1)
            self._counts = torch.cat([folded, torch.zeros_like(folded)])
            self._limit *= 2


@dataclass(frozen=True)
class Distribution:
    """Distribution of one subNN's absolute outputs for some of the images.

    Attributes:
        counts: number of values in each bin.
        mean: mean of the values; None without images.
        p99: 99th percentile of the values, accurate to the width of a bin; None without images.
    """

    counts: tuple[int, ...]
    mean: float | None
    p99: float | None

    @classmethod
    def of(cls, histogram: StreamingHistogram) -> Distribution:
        """The distribution that a histogram has counted."""
        return cls(histogram.counts, histogram.mean, histogram.quantile(0.99))

    def density(self, edges: tuple[float, ...]) -> tuple[float, ...]:
        """Height of each bin, scaled so that the area is 1; zeros without images."""
        scale = max(sum(self.counts), 1) * (edges[1] - edges[0])
        return tuple(count / scale for count in self.counts)


@dataclass(frozen=True)
class SubnnActivations:
    """One panel of figure 6.

    Attributes:
        subnn: number of the subNN, from 0: its column in the scheme.
        edges: edges of the bins of both distributions.
        active: outputs for images of the classes whose codewords activate the subNN.
        inactive: outputs for the other images.
    """

    subnn: int
    edges: tuple[float, ...]
    active: Distribution
    inactive: Distribution

    @property
    def parts(self) -> tuple[tuple[str, Distribution], ...]:
        """The names and distributions of both kinds of images."""
        return ("active", self.active), ("inactive", self.inactive)


@dataclass(frozen=True)
class ActivationsResult(Result):
    """Figure 6 of a run.

    Attributes:
        data, checkpoint: the data set and the checkpoint that were measured.
        block: name of the coded block.
        num_images: number of validation images.
        subnns: one panel for each measured subNN, in order.
        is_normalized: whether the network has Energy Normalization, after which the outputs are taken.
    """

    data: str
    checkpoint: str
    block: str
    num_images: int
    subnns: tuple[SubnnActivations, ...]
    is_normalized: bool = True

    @property
    def name(self) -> str:
        return "activations"

    @property
    def after(self) -> str:
        """What has been done to the outputs, as a part of a title."""
        return " after Energy Normalization" if self.is_normalized else " (no Energy Normalization)"

    def tables(self) -> tuple[Table, ...]:
        kinds = {"active": "the subNN's classes", "inactive": "other classes"}
        return (
            Table(
                f"Absolute outputs of block {self.block}{self.after}, {self.num_images} images",
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
            "energy_norm": self.is_normalized,
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
    """Name of the block that the paper shows: the second coded block of the last coded stage, or its only one."""
    last = network.coded_blocks[-1].stage
    return [block.name for block in network.coded_blocks if block.stage == last][:2][-1]


@torch.no_grad()
def activations(
    subject: Subject,
    *,
    block: str | None = None,
    num_subnns: int | None = None,
    bins: int = 64,
    progress: Progress = silent,
) -> ActivationsResult:
    """Distributions of the absolute outputs of a block's first subNNs (appendix F.1, figure 6).

    Images whose class activates the subNN and other images are counted apart. The values are |tbar_n| (eq. 3), the
    outputs after Energy Normalization, of every channel and pixel of every validation image. The paper does not say
    whether figure 6 shows outputs before or after it; only normalized outputs are comparable between images.

    Only one subNN's outputs for one batch are in memory at a time.

    Args:
        subject: a run with coded blocks.
        block: name of a coded block, such as s3.2; None: `default_block`.
        num_subnns: number of subNNs, counted from the first, 1..N; None: 5, as in figure 6, or N if N is smaller.
        bins: number of bins of a histogram: a power of two from 2 to 256.
        progress: where to report the progress.

    Returns:
        The distributions of every measured subNN.

    Raises:
        NotApplicableError: the network has no coded block.
        InputError: there is no such block, a number is out of range, no image can be read, or outputs are not finite.
    """
    subject.require_coded("activations")
    network = subject.network
    name = default_block(network) if block is None else block
    number = subject.coded_block(name)
    chosen = network.coded_blocks[number]
    coded_sum = chosen.coded_sum
    if num_subnns is None:
        num_subnns = min(_SHOWN, coded_sum.num_subnns)
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
        # Both get the wider range. Half its limit is the smallest value that needs this range.
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
        is_normalized=subject.recipe.energy_norm,
    )
