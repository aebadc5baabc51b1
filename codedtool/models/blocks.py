"""The ResNeXt block, plain or coded (section 3.2, appendix B)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from codedtool.coding.scheme import CodingScheme
from codedtool.models.coded_sum import CodedSum


class BlockOutput(NamedTuple):
    """The block's output (B, C_out, H, W); of a coded block also E(tbar_n) (B, N) and the coding loss, else None."""

    features: torch.Tensor
    energies: torch.Tensor | None
    loss: torch.Tensor | None


class ResNeXtBlock(nn.Module):
    """``[C_out, d, r]`` of table 1: N subNNs of bottleneck width d between two 1x1 convolutions, around a shortcut.

    The shortcut is a projection (1x1 convolution and BatchNorm) where the stride or the number of channels changes,
    the identity elsewhere. No convolution has a bias; the last BatchNorm begins at zero.

    Args:
        in_channels, out_channels: C_in and C_out.
        num_subnns: N.
        subnn_channels: d.
        stride: of the grouped 3x3 convolution.
        scheme: codes the block; None: r = 1, a plain ResNeXt block.
        exponent: of the coding loss.
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
        exponent: float = 4.0,
    ) -> None:
        super().__init__()
        width = num_subnns * subnn_channels
        self.num_subnns = num_subnns
        self.scheme = scheme
        self.reduce = nn.Conv2d(in_channels, width, 1, bias=False)
        self.reduce_bn = nn.BatchNorm2d(width)
        self.grouped = nn.Conv2d(width, width, 3, stride=stride, padding=1, groups=num_subnns, bias=False)
        self.grouped_bn = nn.BatchNorm2d(width)
        self.expand: nn.Conv2d | CodedSum
        if scheme is None:
            self.expand = nn.Conv2d(width, out_channels, 1, bias=False)
        else:
            self.expand = CodedSum(subnn_channels, out_channels, scheme, exponent=exponent)
        self.expand_bn = nn.BatchNorm2d(out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False), nn.BatchNorm2d(out_channels)
            )

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
        """The subNNs' bottleneck activations (B, N*d, H', W'), subNN by subNN; no subNN sees another's."""
        h = functional.relu(self.reduce_bn(self.reduce(x)))
        return functional.relu(self.grouped_bn(self.grouped(h)))

    def join(
        self,
        h: torch.Tensor,
        shortcut: torch.Tensor,
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
        return BlockOutput(functional.relu(self.expand_bn(h) + shortcut), energies, loss)
