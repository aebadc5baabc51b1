"""Blocks of parallel subNNs, plain or coded: ResNeXt's (section 3.2, appendix B) and MobileNetV2's (appendix E)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from codedtool.coding.scheme import CodingScheme
from codedtool.errors import InputError
from codedtool.models.coded_sum import CodedConcatenation, CodedSum
from codedtool.models.conv_bn import ConvBN, conv_bn
from codedtool.models.variant import PAPER, Variant


class BlockOutput(NamedTuple):
    """Result of one block's forward pass.

    Attributes:
        features: the block's output, (B, C_out, H, W).
        energies: E(tbar_n) of a coded block, (B, N); None for a plain block.
        loss: the coding loss of a coded block, a scalar; None for a plain block or without targets.
    """

    features: torch.Tensor
    energies: torch.Tensor | None
    loss: torch.Tensor | None


class NoShortcut(nn.Module):
    """Stands in for the shortcut of a block that has none."""

    def forward(self, x: torch.Tensor) -> None:
        """Return None; `Block.join` then adds nothing."""
        return


class Block(nn.Module):
    """N subNNs between two 1x1 convolutions, with a shortcut around them; no convolution has a bias.

    A block is coded when it has a scheme, and plain (r = 1) otherwise. `coded_sum`, `scheme` and `decode` belong to
    coded blocks; `CodedNetwork.coded_blocks` yields those alone.

    Args:
        in_channels, out_channels: C_in and C_out.
        stage: name of the block's stage, such as "s2".
        number: place of the block in its stage, from 1.
        width: channels between the two 1x1 convolutions, all subNNs together.
        groups: groups of the 3x3 convolution; at least N in a coded block, so that subNNs share no channels.
        num_subnns: N.
        stride: stride of the 3x3 convolution.
        scheme: the coding scheme of the block; None makes a plain block.
        variant: the ablations.
        shortcut: the path around the subNNs; replaced by `NoShortcut` when the variant has no shortcuts.

    Raises:
        InputError: a scheme is given and the width is not a multiple of N.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stage: str,
        number: int,
        width: int,
        groups: int,
        num_subnns: int,
        stride: int,
        scheme: CodingScheme | None,
        variant: Variant,
        shortcut: nn.Module,
    ) -> None:
        super().__init__()
        self.stage = stage
        self.number = number
        self.num_subnns = num_subnns
        self.reduce: nn.Module = nn.Conv2d(in_channels, width, 1, bias=False)
        self.reduce_bn: nn.Module = nn.BatchNorm2d(width)
        self.grouped = nn.Conv2d(width, width, 3, stride=stride, padding=1, groups=groups, bias=False)
        self.grouped_bn = nn.BatchNorm2d(width)
        self.expand: nn.Conv2d | CodedSum
        if scheme is None:
            self.expand = nn.Conv2d(width, out_channels, 1, bias=False)
        elif width % num_subnns:
            raise InputError(
                f"stage {stage} cannot be coded: its blocks have {width} inner channels, which do not split into "
                f"N = {num_subnns} equal subNNs; leave the stage plain or choose another preset"
            )
        else:
            kind = CodedConcatenation if variant.concatenate else CodedSum
            self.expand = kind(width // num_subnns, out_channels, scheme, variant=variant)
        self.expand_bn = nn.BatchNorm2d(out_channels)
        self.shortcut = shortcut if variant.shortcuts else NoShortcut()

    @property
    def name(self) -> str:
        """Stage and place in it, such as "s2.1"."""
        return f"{self.stage}.{self.number}"

    @property
    def is_coded(self) -> bool:
        """Whether the block follows a coding scheme."""
        return isinstance(self.expand, CodedSum)

    @property
    def coded_sum(self) -> CodedSum:
        """The end of a coded block: its last convolution with energies, coding loss and masks.

        Raises:
            TypeError: the block is plain.
        """
        if not isinstance(self.expand, CodedSum):
            raise TypeError(f"block {self.name} is plain: only coded blocks have a coded sum, a scheme and a decoder")
        return self.expand

    @property
    def scheme(self) -> CodingScheme:
        """The coding scheme of a coded block.

        Raises:
            TypeError: the block is plain.
        """
        return self.coded_sum.scheme

    def decode(self, energies_BN: torch.Tensor) -> torch.Tensor:
        """Classes that the block's early decoder reads off its energies (section 4.4).

        Args:
            energies_BN: (B, N) energies of this block.

        Returns:
            (B,) int64.

        Raises:
            TypeError: the block is plain.
        """
        return self.coded_sum.decode(energies_BN)

    def forward(
        self,
        x: torch.Tensor,
        targets: torch.Tensor | None = None,
        *,
        drop_mask: torch.Tensor | None = None,
        keep_mask: torch.Tensor | None = None,
    ) -> BlockOutput:
        """Run the block on ``x`` (B, C_in, H, W); the other arguments are those of `CodedSum.forward`."""
        return self.join(self.bottleneck(x), self.shortcut(x), targets, drop_mask=drop_mask, keep_mask=keep_mask)

    def bottleneck(self, x: torch.Tensor) -> torch.Tensor:
        """Compute the inner activations (B, N*d, H', W') of ``x``: d channels per subNN, in the order of the subNNs."""
        h = self.activation(conv_bn(self.reduce, self.reduce_bn, x))
        return self.activation(conv_bn(self.grouped, self.grouped_bn, h))

    def join(
        self,
        h: torch.Tensor,
        shortcut: torch.Tensor | None,
        targets: torch.Tensor | None = None,
        *,
        drop_mask: torch.Tensor | None = None,
        keep_mask: torch.Tensor | None = None,
    ) -> BlockOutput:
        """Sum over the subNNs and add the shortcut.

        Args:
            h: the result of `bottleneck`.
            shortcut: the shortcut's output; None adds nothing.
            targets, drop_mask, keep_mask: as for `CodedSum.forward`; unused in a plain block.
        """
        energies, loss = None, None
        if isinstance(self.expand, CodedSum):
            features, energies, loss = self.expand(
                h, targets, bn=self.expand_bn, drop_mask=drop_mask, keep_mask=keep_mask
            )
        else:
            features = conv_bn(self.expand, self.expand_bn, h)
        return BlockOutput(self.finish(features, shortcut), energies, loss)

    def finish(self, features: torch.Tensor, shortcut: torch.Tensor | None) -> torch.Tensor:
        """Compute the block's output from that of its last BatchNorm and the shortcut's output; None adds nothing.

        ``features`` may be overwritten.
        """
        # BatchNorm's backward pass does not need its output: the sum and the activation overwrite it, because another
        # pass over new memory costs more time than their arithmetic.
        if shortcut is not None:
            features += shortcut
        return self.last_activation(features)

    def activation(self, h: torch.Tensor) -> torch.Tensor:
        """Activation after each of the first two BatchNorms; may overwrite ``h``."""
        return functional.relu(h, inplace=True)

    def last_activation(self, h: torch.Tensor) -> torch.Tensor:
        """Activation of the block's output; may overwrite ``h``."""
        return functional.relu(h, inplace=True)


class ResNeXtBlock(Block):
    """ResNeXt block ``[C_out, d, r]`` of table 1: N subNNs of d bottleneck channels.

    The shortcut is a projection (1x1 convolution and BatchNorm) when the stride or the number of channels changes,
    and the identity otherwise.

    Args:
        in_channels, out_channels, num_subnns, stage, number, stride, scheme, variant: as for `Block`.
        subnn_channels: d.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        num_subnns: int,
        subnn_channels: int,
        *,
        stage: str,
        number: int,
        stride: int = 1,
        scheme: CodingScheme | None = None,
        variant: Variant = PAPER,
    ) -> None:
        shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            shortcut = ConvBN(
                nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False), nn.BatchNorm2d(out_channels)
            )
        super().__init__(
            in_channels,
            out_channels,
            stage=stage,
            number=number,
            width=num_subnns * subnn_channels,
            groups=num_subnns,
            num_subnns=num_subnns,
            stride=stride,
            scheme=scheme,
            variant=variant,
            shortcut=shortcut,
        )
        if variant.shortcuts:
            # At the start the block is its shortcut alone, as in the authors' code; without one it would pass nothing.
            nn.init.zeros_(self.expand_bn.weight)


class InvertedResidual(Block):
    """MobileNetV2's block (MBConv, Sandler et al. 2018), whose wide middle is N subNNs of d channels (appendix E).

    The attributes keep ResNeXt's names, although here ``reduce`` widens and ``expand`` narrows. The 3x3 convolution is
    depthwise. The inner activations are ReLU6 and the output has no activation. The shortcut is the identity; a block
    that changes the stride or the number of channels has no shortcut.

    Args:
        in_channels, out_channels, num_subnns, stage, number, stride, scheme, variant: as for `Block`.
        width: channels of the middle. A plain block with as many input channels has no first convolution.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        num_subnns: int,
        width: int,
        *,
        stage: str,
        number: int,
        stride: int = 1,
        scheme: CodingScheme | None = None,
        variant: Variant = PAPER,
    ) -> None:
        fits = stride == 1 and in_channels == out_channels
        super().__init__(
            in_channels,
            out_channels,
            stage=stage,
            number=number,
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
        # Not in place: a block without the first convolution gets the previous block's output here.
        return functional.relu6(h)

    def last_activation(self, h: torch.Tensor) -> torch.Tensor:
        return h
