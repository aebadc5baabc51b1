"""Blocks of parallel subNNs, plain or coded: ResNeXt's (section 3.2, appendix B) and MobileNetV2's (appendix E)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from codedtool.coding.scheme import CodingScheme
from codedtool.errors import InputError
from codedtool.models.coded_sum import CodedConcatenation, CodedSum
from codedtool.models.variant import PAPER, Variant


class BlockOutput(NamedTuple):
    """The block's output (B, C_out, H, W); of a coded block also E(tbar_n) (B, N) and the coding loss, else None."""

    features: torch.Tensor
    energies: torch.Tensor | None
    loss: torch.Tensor | None


class NoShortcut(nn.Module):
    """Where nothing goes around a block."""

    def forward(self, x: torch.Tensor) -> None:
        """None, which `Block.join` does not add."""
        return


class Block(nn.Module):
    """N subNNs between two 1x1 convolutions, around a shortcut; no convolution has a bias.

    Args:
        in_channels, out_channels: C_in and C_out.
        width: channels between the 1x1 convolutions, of all subNNs together.
        groups: of the 3x3 convolution, at least N where the block is coded: no subNN sees another's channels.
        num_subnns: N.
        stride: of the 3x3 convolution.
        scheme: codes the block; None: r = 1, a plain block.
        variant: the ablations.
        shortcut: what goes around; `NoShortcut` where the variant has none.

    Raises:
        InputError: a scheme for a width that is no multiple of N.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        width: int,
        groups: int,
        num_subnns: int,
        stride: int,
        scheme: CodingScheme | None,
        variant: Variant,
        shortcut: nn.Module,
    ) -> None:
        super().__init__()
        self.num_subnns = num_subnns
        self.scheme = scheme
        self.reduce: nn.Module = nn.Conv2d(in_channels, width, 1, bias=False)
        self.reduce_bn: nn.Module = nn.BatchNorm2d(width)
        self.grouped = nn.Conv2d(width, width, 3, stride=stride, padding=1, groups=groups, bias=False)
        self.grouped_bn = nn.BatchNorm2d(width)
        self.expand: nn.Conv2d | CodedSum
        if scheme is None:
            self.expand = nn.Conv2d(width, out_channels, 1, bias=False)
        elif width % num_subnns:
            raise InputError(f"a block of {width} channels cannot be coded: they are no N = {num_subnns} equal subNNs")
        else:
            kind = CodedConcatenation if variant.concatenate else CodedSum
            self.expand = kind(width // num_subnns, out_channels, scheme, variant=variant)
        self.expand_bn = nn.BatchNorm2d(out_channels)
        self.shortcut = shortcut if variant.shortcuts else NoShortcut()

    def forward(
        self,
        x: torch.Tensor,
        targets: torch.Tensor | None = None,
        *,
        drop_mask: torch.Tensor | None = None,
        keep_mask: torch.Tensor | None = None,
    ) -> BlockOutput:
        """The block's output for ``x`` (B, C_in, H, W); the other arguments are those of `CodedSum.forward`."""
        return self.join(self.bottleneck(x), self.shortcut(x), targets, drop_mask=drop_mask, keep_mask=keep_mask)

    def bottleneck(self, x: torch.Tensor) -> torch.Tensor:
        """The subNNs' inner activations (B, N*d, H', W'), subNN by subNN; no subNN sees another's."""
        h = self.activation(self.reduce_bn(self.reduce(x)))
        return self.activation(self.grouped_bn(self.grouped(h)))

    def join(
        self,
        h: torch.Tensor,
        shortcut: torch.Tensor | None,
        targets: torch.Tensor | None = None,
        *,
        drop_mask: torch.Tensor | None = None,
        keep_mask: torch.Tensor | None = None,
    ) -> BlockOutput:
        """The sum over the subNNs of `bottleneck`'s activations, added to the shortcut's output."""
        energies, loss = None, None
        if isinstance(self.expand, CodedSum):
            h, energies, loss = self.expand(h, targets, drop_mask=drop_mask, keep_mask=keep_mask)
        else:
            h = self.expand(h)
        h = self.expand_bn(h)
        if shortcut is not None:
            h = h + shortcut
        return BlockOutput(self.last_activation(h), energies, loss)

    def activation(self, h: torch.Tensor) -> torch.Tensor:
        """After each of the first two BatchNorms."""
        return functional.relu(h)

    def last_activation(self, h: torch.Tensor) -> torch.Tensor:
        """Of the block's output."""
        return functional.relu(h)


class ResNeXtBlock(Block):
    """``[C_out, d, r]`` of table 1: N subNNs of bottleneck width d between two 1x1 convolutions, around a shortcut.

    The shortcut is a projection (1x1 convolution and BatchNorm) where the stride or the number of channels changes,
    the identity elsewhere.

    Args:
        in_channels, out_channels, num_subnns, stride, scheme, variant: as for `Block`.
        subnn_channels: d.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        num_subnns: int,
        subnn_channels: int,
        *,
        stride: int = 1,
        scheme: CodingScheme | None = None,
        variant: Variant = PAPER,
    ) -> None:
        shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False), nn.BatchNorm2d(out_channels)
            )
        super().__init__(
            in_channels,
            out_channels,
            width=num_subnns * subnn_channels,
            groups=num_subnns,
            num_subnns=num_subnns,
            stride=stride,
            scheme=scheme,
            variant=variant,
            shortcut=shortcut,
        )
        if variant.shortcuts:
            # The block begins as its shortcut alone (appendix B); without one, nothing would pass.
            nn.init.zeros_(self.expand_bn.weight)


class InvertedResidual(Block):
    """MobileNetV2's block, MBConv (Sandler et al. 2018), whose wide middle is N subNNs of d channels (appendix E).

    ``reduce`` widens here and ``expand`` narrows: the names are ResNeXt's. The 3x3 convolution is depthwise, the
    activations are ReLU6, the output has none, and there is a shortcut, the identity, only where it fits.

    Args:
        in_channels, out_channels, num_subnns, stride, scheme, variant: as for `Block`.
        width: channels of the middle; where it is that of the input and the block is plain, the first convolution is
            left out.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        num_subnns: int,
        width: int,
        *,
        stride: int = 1,
        scheme: CodingScheme | None = None,
        variant: Variant = PAPER,
    ) -> None:
        fits = stride == 1 and in_channels == out_channels
        super().__init__(
            in_channels,
            out_channels,
            width=width,
            groups=width,
            num_subnns=num_subnns,
            stride=stride,
            scheme=scheme,
            variant=variant,
            shortcut=nn.Identity() if fits else NoShortcut(),
        )
        if width == in_channels and scheme is None:
            self.reduce, self.reduce_bn = nn.Identity(), nn.Identity()

    def activation(self, h: torch.Tensor) -> torch.Tensor:
        return functional.relu6(h)

    def last_activation(self, h: torch.Tensor) -> torch.Tensor:
        return h
