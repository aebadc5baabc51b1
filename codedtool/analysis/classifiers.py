"""The binary classifiers of many classes at once: the part that they share is computed once per batch (section 4.3).

The stem, the uncoded stages and the bottlenecks of the first coded block are the same for all classes, because no
subNN's bottleneck depends on another subNN. The rest is a smaller network of its own for each class.

Shape suffixes: B images of a batch, c classes, K all classes, C channels, D bottleneck channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import nn

from codedtool.coding.scheme import CodingScheme
from codedtool.errors import InputError
from codedtool.models.blocks import Block
from codedtool.models.network import CodedNetwork
from codedtool.models.pruning import active_channels, class_row, path_schemes, prune_block

# The classes' own parts are kept for the next batch up to this size. The others are extracted anew for every batch,
# which takes little time compared with running them.
_KEPT_BYTES = 1 << 30


class _Tail(NamedTuple):
    """The part of the network that belongs to one class alone.

    Attributes:
        channels_D: numbers of the class's channels in the first coded block's bottleneck.
        blocks: the pruned coded blocks and the uncoded blocks from the first coded block on.
        row: the class's row of the linear layer.
    """

    channels_D: torch.Tensor
    blocks: tuple[Block, ...]
    row: nn.Linear


class Shared(NamedTuple):
    """What all classes have in common: the first coded block's activations, before the sum over the subNNs.

    Attributes:
        h_BDHW: inner activations of all subNNs.
        shortcut_BCHW: output of the block's shortcut; None in a block without one.
    """

    h_BDHW: torch.Tensor
    shortcut_BCHW: torch.Tensor | None


class BinaryClassifiers:
    """The binary classifiers of ``class_indices``, evaluated together.

    Args:
        network: a coded network, or a plain one with ``schemes``; in evaluation mode.
        class_indices: numbers of the classes, each 0..K-1.
        schemes: the scheme of each stage, to extract classifiers from a plain network; None: the network's own.

    Raises:
        InputError: the schemes do not fit the network, or there are none.
    """

    def __init__(
        self,
        network: CodedNetwork,
        class_indices: Sequence[int],
        *,
        schemes: Mapping[str, CodingScheme] | None = None,
    ) -> None:
        self._network = network
        self._paths = path_schemes(network, schemes)
        if not self._paths:
            raise InputError("no stage of the network has a scheme: binary classifiers need one")
        self._first = min(self._paths)
        self.class_indices = tuple(class_indices)
        self._kept: dict[int, _Tail] = {}
        self._kept_bytes = 0

    @torch.no_grad()
    def scores(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """The logits of the binary classifiers, (B, c) float32, for (B, 3, H, W) normalized images."""
        shared = self.shared(images_BCHW)
        return torch.stack([self.scores_of(class_index, shared) for class_index in self.class_indices], dim=1)

    @torch.no_grad()
    def shared(self, images_BCHW: torch.Tensor) -> Shared:
        """The part that all classes share, for (B, 3, H, W) normalized images."""
        network, first = self._network, self._network.blocks[self._first]
        features = network.stem(images_BCHW)
        for block in network.blocks[: self._first]:
            features = block(features).features
        return Shared(first.bottleneck(features), first.shortcut(features))

    @torch.no_grad()
    def scores_of(self, class_index: int, shared: Shared) -> torch.Tensor:
        """The logits of one class's binary classifier, (B,) float32, from the part that all classes share."""
        tail = self._tail(class_index)
        features = tail.blocks[0].join(shared.h_BDHW[:, tail.channels_D], shared.shortcut_BCHW).features
        for block in tail.blocks[1:]:
            features = block(features).features
        return tail.row(self._network.pooled(features))[:, 0].float()

    @torch.no_grad()
    def whole_logits(self, shared: Shared) -> torch.Tensor:
        """The logits of the whole network, (B, K) float32, from the part that its binary classifiers share."""
        first, *rest = self._network.blocks[self._first :]
        features = first.join(*shared).features
        for block in rest:
            features = block(features).features
        return self._network.head(features).float()

    def _tail(self, class_index: int) -> _Tail:
        if class_index in self._kept:
            return self._kept[class_index]
        blocks = [
            prune_block(block, self._paths[number], class_index) if number in self._paths else block
            for number, block in enumerate(self._network.blocks)
            if number >= self._first
        ]
        channels_D = active_channels(self._network.blocks[self._first], self._paths[self._first], class_index)
        tail = _Tail(channels_D, tuple(blocks), class_row(self._network, class_index))
        size = sum(p.numel() * p.element_size() for block in blocks for p in block.parameters())
        if self._kept_bytes + size <= _KEPT_BYTES:
            self._kept[class_index] = tail
            self._kept_bytes += size
        return tail
