"""Equations (2)-(5) as they are written, with all N outputs of C x H x W in memory; the rival of `CodedSum`."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from codedtool.models.coded_sum import CodedOutput, CodedSum
from codedtool.models.energy import ENERGY_EPS
from codedtool.models.network import CodedNetwork


class LiteralSum(CodedSum):
    """The parameters of `CodedSum`, computed as a grouped convolution and then operations on its N*C channels."""

    def forward(
        self,
        h: torch.Tensor,
        targets: torch.Tensor | None = None,
        *,
        bn: nn.Module | None = None,
        drop_mask: torch.Tensor | None = None,
        keep_mask: torch.Tensor | None = None,
    ) -> CodedOutput:
        """As `CodedSum.forward`."""
        num_subnns, out_channels = self.num_subnns, self.conv.out_channels
        weight_CNd = self.conv.weight.reshape(out_channels, num_subnns, -1)
        kernel = weight_CNd.transpose(0, 1).reshape(num_subnns * out_channels, -1, 1, 1)
        t_BNCHW = functional.conv2d(h, kernel, groups=num_subnns).unflatten(1, (num_subnns, out_channels))
        if keep_mask is not None:
            t_BNCHW = t_BNCHW * keep_mask[..., None, None, None]
        energies_BN = t_BNCHW.to(torch.promote_types(t_BNCHW.dtype, torch.float32)).square().mean(dim=(2, 3, 4))
        mean_B1 = energies_BN.mean(dim=1, keepdim=True) + ENERGY_EPS
        tbar_BNCHW = t_BNCHW * mean_B1.rsqrt().to(t_BNCHW.dtype)[..., None, None, None]
        normalized_BN = energies_BN / mean_B1
        loss = None
        if targets is not None:
            codewords_BN = self.scheme_KN[targets].to(normalized_BN.dtype)
            loss = (self.ratio * normalized_BN - codewords_BN).abs().pow(self.variant.exponent).mean()
        if drop_mask is not None:
            tbar_BNCHW = tbar_BNCHW * drop_mask.to(tbar_BNCHW.dtype)[..., None, None, None]
        total_BCHW = tbar_BNCHW.sum(dim=1)
        return CodedOutput(total_BCHW if bn is None else bn(total_BCHW), normalized_BN, loss)


def make_literal(network: CodedNetwork) -> CodedNetwork:
    """Turn every `CodedSum` of ``network`` into a `LiteralSum`, in place; parameters stay the objects they were."""
    for block in network.coded_blocks:
        block.coded_sum.__class__ = LiteralSum
    return network
