"""Networks whose coded stages follow coding schemes (sections 3.1 and 3.2, table 1; MobileNetV2: appendix E)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn

from codedtool.coding.scheme import CodingScheme
from codedtool.models.blocks import Block, BlockOutput, InvertedResidual, ResNeXtBlock
from codedtool.models.conv_bn import ConvBN
from codedtool.models.families import StemKind
from codedtool.models.places import scheme_at
from codedtool.models.variant import PAPER, Variant


class Output(NamedTuple):
    """Result of a network's forward pass.

    Attributes:
        logits: (B, K).
        coding_losses: one scalar per coded block (eq. 5), in the order of the blocks; empty without targets.
        energies: E(tbar_n) of every coded block, (B, N) float32 each, in the order of the blocks.
    """

    logits: torch.Tensor
    coding_losses: tuple[torch.Tensor, ...]
    energies: tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class Stage:
    """One row of table 1.

    Attributes:
        out_channels: C_out of every block.
        subnn_channels: d, the bottleneck channels of one subNN.
        num_blocks: blocks of the stage.
        stride: stride of the first block; the others have stride 1.
    """

    out_channels: int
    subnn_channels: int
    num_blocks: int
    stride: int

    def build_block(
        self, stage: str, number: int, in_channels: int, num_subnns: int, scheme: CodingScheme | None, variant: Variant
    ) -> Block:
        """Build block ``number`` (from 1) of the stage called ``stage``, with new weights."""
        return ResNeXtBlock(
            in_channels,
            _out_channels(self.out_channels, num_subnns, scheme, variant),
            num_subnns,
            self.subnn_channels,
            stage=stage,
            number=number,
            stride=self.stride if number == 1 else 1,
            scheme=scheme,
            variant=variant,
        )


@dataclass(frozen=True)
class InvertedStage:
    """One row of table 2 in MobileNetV2 (Sandler et al. 2018).

    Attributes:
        out_channels, num_blocks, stride: as for `Stage`.
        expansion: inner width of a block as a multiple of its input channels; t in that table.
        multiple: the inner width is rounded to a multiple of this number. Stages that can be coded have N here.
    """

    out_channels: int
    expansion: int
    num_blocks: int
    stride: int
    multiple: int = 1

    def build_block(
        self, stage: str, number: int, in_channels: int, num_subnns: int, scheme: CodingScheme | None, variant: Variant
    ) -> Block:
        """Build block ``number`` (from 1) of the stage called ``stage``, with new weights."""
        return InvertedResidual(
            in_channels,
            _out_channels(self.out_channels, num_subnns, scheme, variant),
            num_subnns,
            _nearest_multiple(self.expansion * in_channels, self.multiple),
            stage=stage,
            number=number,
            stride=self.stride if number == 1 else 1,
            scheme=scheme,
            variant=variant,
        )


class CodedNetwork(nn.Module):
    """A stem, stages of blocks, global average pooling, and a linear layer without bias.

    `build_network` makes one from a preset's name. Consecutive coded blocks with the same scheme form a drop group:
    dropSubNNs drops the same subNNs in all of them (section 3.1.3).

    Args:
        stages: name -> stage, in order.
        num_subnns: N, the same in every block.
        schemes: place -> the scheme of its blocks. A place is a stage ("s3") or blocks of one ("s3.1-3", "s3.4"), as
            `places` describes. Blocks without a scheme are plain (r = 1).
        num_classes: K.
        stem: first layers. "cifar": 3x3 convolution, stride 1. "imagenet": 7x7 convolution and 3x3 max-pooling, stride
            2 each. "mobilenet": 3x3 convolution with ReLU6, stride 2. "mobilenet-cifar": the same with stride 1.
        stem_channels: output channels of the stem.
        head_channels: output channels of MobileNetV2's 1x1 convolution after the last block; 0: no such convolution.
        in_channels: channels of an image.
        variant: the ablations.

    Example:
        >>> import torch
        >>> from codedtool.models import build_network
        >>> network = build_network("resnext_tiny").eval()
        >>> network(torch.zeros(1, 3, 8, 8)).logits.shape
        torch.Size([1, 10])
        >>> [block.name for block in network.blocks]
        ['s1.1', 's2.1', 's2.2', 's3.1', 's3.2']
    """

    def __init__(
        self,
        stages: Mapping[str, Stage | InvertedStage],
        num_subnns: int,
        schemes: Mapping[str, CodingScheme],
        *,
        num_classes: int,
        stem: StemKind = "cifar",
        stem_channels: int = 64,
        head_channels: int = 0,
        in_channels: int = 3,
        variant: Variant = PAPER,
    ) -> None:
        super().__init__()
        self.variant = variant
        self.stem = _stem(stem, in_channels, stem_channels)
        self.block_list = nn.ModuleList()
        drop_groups: list[int] = []
        drop_schemes: list[CodingScheme] = []
        channels = stem_channels
        for name, stage in stages.items():
            for number in range(1, stage.num_blocks + 1):
                scheme = scheme_at(schemes, name, number)
                if scheme is not None:
                    if not drop_schemes or drop_schemes[-1] != scheme:
                        drop_schemes.append(scheme)
                    drop_groups.append(len(drop_schemes) - 1)
                block = stage.build_block(name, number, channels, num_subnns, scheme, variant)
                self.block_list.append(block)
                channels = block.expand_bn.num_features
        self.num_classes = num_classes
        # Places of the coded blocks among all blocks, from 0.
        self.coded_indices = tuple(index for index, block in enumerate(self.blocks) if block.is_coded)
        self.drop_groups = tuple(drop_groups)
        self.drop_group_lengths = tuple(scheme.length for scheme in drop_schemes)
        self.schemes = dict(schemes)
        self.last: nn.Module = nn.Identity()
        if head_channels:
            self.last = ConvBN(
                nn.Conv2d(channels, head_channels, 1, bias=False), nn.BatchNorm2d(head_channels), nn.ReLU6()
            )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(head_channels or channels, num_classes, bias=False)
        self._initialize()

    @property
    def coded_blocks(self) -> tuple[Block, ...]:
        """The coded blocks, in order."""
        return tuple(block for block in self.blocks if block.is_coded)

    @property
    def block_names(self) -> tuple[str, ...]:
        """Names of the coded blocks, in order, such as "s2.1"."""
        return tuple(block.name for block in self.coded_blocks)

    @property
    def block_stages(self) -> tuple[str, ...]:
        """Stage names of all blocks, in order."""
        return tuple(block.stage for block in self.blocks)

    @property
    def blocks(self) -> tuple[Block, ...]:
        """All blocks, coded and plain, in order."""
        return tuple(block for block in self.block_list if isinstance(block, Block))

    def forward(
        self,
        x: torch.Tensor,
        targets: torch.Tensor | None = None,
        *,
        drop_masks: Sequence[torch.Tensor] | None = None,
        keep_masks: Mapping[int, torch.Tensor] | None = None,
    ) -> Output:
        """Compute logits, coding losses and energies of a batch.

        Args:
            x: (B, in_channels, H, W).
            targets: (B,) int64 classes, needed for the coding losses only; None: no coding losses.
            drop_masks: one (B, N) tensor of dropSubNNs' factors per drop group (`drop_group_lengths`); None drops
                nothing.
            keep_masks: number of a coded block (from 0, in the order of `coded_blocks`) -> (N,) or (B, N) of 0 and 1,
                where 0 removes a subNN. Blocks without an entry keep all subNNs.
        """
        features = self.stem(x)
        losses: list[torch.Tensor] = []
        energies: list[torch.Tensor] = []
        for index in range(len(self.block_list)):
            output = self.run_block(index, features, targets, drop_masks=drop_masks, keep_masks=keep_masks)
            features = output.features
            if output.energies is not None:
                energies.append(output.energies)
            if output.loss is not None:
                losses.append(output.loss)
        return Output(self.head(features), tuple(losses), tuple(energies))

    def run_block(
        self,
        index: int,
        features: torch.Tensor,
        targets: torch.Tensor | None = None,
        *,
        drop_masks: Sequence[torch.Tensor] | None = None,
        keep_masks: Mapping[int, torch.Tensor] | None = None,
    ) -> BlockOutput:
        """Run the block at ``index`` of `blocks` on the previous block's output; `forward` calls it for every block.

        The masks are those of the whole network, as for `forward`.
        """
        block = self.blocks[index]
        if not block.is_coded:
            return block(features)
        number = self.coded_indices.index(index)
        return block(
            features,
            targets,
            drop_mask=None if drop_masks is None else drop_masks[self.drop_groups[number]],
            keep_mask=None if keep_masks is None else keep_masks.get(number),
        )

    def head(self, features: torch.Tensor) -> torch.Tensor:
        """Compute the logits (B, K) from the last block's output."""
        return self.fc(self.pooled(features))

    def pooled(self, features: torch.Tensor) -> torch.Tensor:
        """Compute the linear layer's input (B, channels) from the last block's output."""
        return self.pool(self.last(features)).flatten(1)

    def decode(self, energies: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Let the early decoder of every coded block predict the class (section 4.4).

        Args:
            energies: `Output.energies`.

        Returns:
            (B,) int64 classes per coded block.
        """
        return [block.decode(energies_BN) for block, energies_BN in zip(self.coded_blocks, energies, strict=True)]

    def _initialize(self) -> None:
        """Draw the weights of all convolutions: Kaiming normal, fan out, as in the authors' code.

        The authors' coded convolution has N * C outputs and so a larger fan-out than this one with C. The difference
        is one factor on all energies of a block, which Energy Normalization cancels.
        """
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def _stem(kind: StemKind, in_channels: int, channels: int) -> ConvBN:
    if kind == "imagenet":
        return ConvBN(
            nn.Conv2d(in_channels, channels, 7, stride=2, padding=3, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
    stride = 2 if kind == "mobilenet" else 1
    activation = nn.ReLU() if kind == "cifar" else nn.ReLU6()
    convolution = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
    return ConvBN(convolution, nn.BatchNorm2d(channels), activation)


def _out_channels(channels: int, num_subnns: int, scheme: CodingScheme | None, variant: Variant) -> int:
    """C_out of a stage; where outputs are concatenated, rounded to a multiple of N so that subNNs have equal shares."""
    return _nearest_multiple(channels, num_subnns) if scheme is not None and variant.concatenate else channels


def _nearest_multiple(number: int, divisor: int) -> int:
    return max(1, round(number / divisor)) * divisor
