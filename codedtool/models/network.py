"""Networks whose coded stages follow coding schemes (sections 3.1 and 3.2, table 1; MobileNetV2: appendix E)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import nn

from codedtool.coding.scheme import CodingScheme
from codedtool.models.blocks import Block, BlockOutput, InvertedResidual, ResNeXtBlock
from codedtool.models.coded_sum import CodedSum
from codedtool.models.energy import nearest_codeword
from codedtool.models.variant import PAPER, Variant


class Output(NamedTuple):
    """What a forward pass gives.

    Attributes:
        logits: (B, K).
        coding_losses: one scalar per coded block (eq. 5), in order; empty without targets.
        energies: E(tbar_n) of every coded block, (B, N) each, float32.
    """

    logits: torch.Tensor
    coding_losses: tuple[torch.Tensor, ...]
    energies: tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class Stage:
    """One row of table 1: ``num_blocks`` blocks ``[out_channels, subnn_channels, .]``, the first with ``stride``."""

    out_channels: int
    subnn_channels: int
    num_blocks: int
    stride: int

    def build_block(
        self, number: int, in_channels: int, num_subnns: int, scheme: CodingScheme | None, variant: Variant
    ) -> Block:
        """Block ``number`` (0-based) of the stage."""
        return ResNeXtBlock(
            in_channels,
            _out_channels(self.out_channels, num_subnns, scheme, variant),
            num_subnns,
            self.subnn_channels,
            stride=self.stride if number == 0 else 1,
            scheme=scheme,
            variant=variant,
        )


@dataclass(frozen=True)
class InvertedStage:
    """One row of MobileNetV2's table 2: ``num_blocks`` blocks ``expansion`` times as wide as their input inside.

    Attributes:
        out_channels, num_blocks, stride: as of `Stage`.
        expansion: t of that table.
        multiple: the width is made a multiple of this: N in stages that schemes may code.
    """

    out_channels: int
    expansion: int
    num_blocks: int
    stride: int
    multiple: int = 1

    def build_block(
        self, number: int, in_channels: int, num_subnns: int, scheme: CodingScheme | None, variant: Variant
    ) -> Block:
        """Block ``number`` (0-based) of the stage."""
        return InvertedResidual(
            in_channels,
            _out_channels(self.out_channels, num_subnns, scheme, variant),
            num_subnns,
            _nearest_multiple(self.expansion * in_channels, self.multiple),
            stride=self.stride if number == 0 else 1,
            scheme=scheme,
            variant=variant,
        )


StemKind = Literal["cifar", "imagenet", "mobilenet", "mobilenet-cifar"]


class CodedNetwork(nn.Module):
    """Stem, stages of blocks, global average, and a linear layer without bias.

    Args:
        stages: name -> stage, in order.
        num_subnns: N of every block.
        schemes: stage name -> the scheme that codes its blocks; other stages are plain (r = 1).
        num_classes: K.
        stem: "cifar" (3x3, stride 1), "imagenet" (7x7 stride 2, then 3x3 max-pooling stride 2), or MobileNetV2's
            ("mobilenet": 3x3 stride 2 with ReLU6; "mobilenet-cifar": stride 1).
        stem_channels: channels after the stem.
        head_channels: of MobileNetV2's 1x1 convolution after the last block; 0: none.
        in_channels: channels of an image.
        variant: the ablations.

    Consecutive coded blocks with the same scheme share one drop mask per sample and form a drop group.
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
        block_names: list[str] = []
        block_stages: list[str] = []
        coded_indices: list[int] = []
        drop_groups: list[int] = []
        drop_schemes: list[CodingScheme] = []
        channels = stem_channels
        for name, stage in stages.items():
            scheme = schemes.get(name)
            for number in range(stage.num_blocks):
                if scheme is not None:
                    block_names.append(f"{name}.{number + 1}")
                    coded_indices.append(len(self.block_list))
                    if not drop_schemes or drop_schemes[-1] != scheme:
                        drop_schemes.append(scheme)
                    drop_groups.append(len(drop_schemes) - 1)
                block = stage.build_block(number, channels, num_subnns, scheme, variant)
                self.block_list.append(block)
                block_stages.append(name)
                channels = block.expand_bn.num_features
        self.num_classes = num_classes
        self.block_names = tuple(block_names)
        self.block_stages = tuple(block_stages)
        self.coded_indices = tuple(coded_indices)
        self.drop_groups = tuple(drop_groups)
        self.drop_group_lengths = tuple(scheme.length for scheme in drop_schemes)
        self.schemes = dict(schemes)
        self.last: nn.Module = nn.Identity()
        if head_channels:
            self.last = nn.Sequential(
                nn.Conv2d(channels, head_channels, 1, bias=False), nn.BatchNorm2d(head_channels), nn.ReLU6()
            )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(head_channels or channels, num_classes, bias=False)
        self._initialize()

    @property
    def coded_blocks(self) -> tuple[Block, ...]:
        """The coded blocks in order, one per name of `block_names`."""
        return tuple(self.blocks[index] for index in self.coded_indices)

    @property
    def blocks(self) -> tuple[Block, ...]:
        """All blocks in order."""
        return tuple(block for block in self.block_list if isinstance(block, Block))

    def forward(
        self,
        x: torch.Tensor,
        targets: torch.Tensor | None = None,
        *,
        drop_masks: Sequence[torch.Tensor] | None = None,
        keep_masks: Mapping[int, torch.Tensor] | None = None,
    ) -> Output:
        """Logits, coding losses and energies.

        Args:
            x: (B, in_channels, H, W).
            targets: (B,) int64; None: no coding losses. Inference needs none.
            drop_masks: one (B, N) tensor of dropSubNNs' factors per drop group (`drop_group_lengths`); None: no drop.
            keep_masks: coded-block number (0-based, in the order of `block_names`) -> (N,) or (B, N) of 0/1, the
                subNNs that stay; blocks without an entry are whole.
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
        """Block ``index`` of all blocks, with the masks of the whole network; what `forward` is made of."""
        block = self.blocks[index]
        if index not in self.coded_indices:
            return block(features)
        number = self.coded_indices.index(index)
        return block(
            features,
            targets,
            drop_mask=None if drop_masks is None else drop_masks[self.drop_groups[number]],
            keep_mask=None if keep_masks is None else keep_masks.get(number),
        )

    def head(self, features: torch.Tensor) -> torch.Tensor:
        """Logits (B, K) from the last block's output."""
        return self.fc(self.pooled(features))

    def pooled(self, features: torch.Tensor) -> torch.Tensor:
        """What the linear layer sees (B, channels), from the last block's output."""
        return self.pool(self.last(features)).flatten(1)

    def decode(self, energies: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """The early decoders' classes (section 4.4), one (B,) int64 per coded block."""
        predictions = []
        for block, energies_BN in zip(self.coded_blocks, energies, strict=True):
            assert isinstance(block.expand, CodedSum)
            predictions.append(nearest_codeword(energies_BN, block.expand.scheme_KN))
        return predictions

    def _initialize(self) -> None:
        """Kaiming normal (fan out) for convolutions (appendix B).

        The authors' coded convolution counts N * C outputs where this one counts C; Energy Normalization cancels the
        difference.
        """
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def _stem(kind: StemKind, in_channels: int, channels: int) -> nn.Sequential:
    if kind == "imagenet":
        return nn.Sequential(
            nn.Conv2d(in_channels, channels, 7, stride=2, padding=3, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
    stride = 2 if kind == "mobilenet" else 1
    activation = nn.ReLU() if kind == "cifar" else nn.ReLU6()
    convolution = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(channels), activation)


def _out_channels(channels: int, num_subnns: int, scheme: CodingScheme | None, variant: Variant) -> int:
    """A stage's C_out: concatenated, every subNN makes as many channels, so it is a multiple of N."""
    return _nearest_multiple(channels, num_subnns) if scheme is not None and variant.concatenate else channels


def _nearest_multiple(number: int, divisor: int) -> int:
    return max(1, round(number / divisor)) * divisor
