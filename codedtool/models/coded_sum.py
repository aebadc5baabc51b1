"""The end of a coded block: energies, coding loss, masks and the sum over subNNs, in place of its last convolution."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from codedtool.coding.scheme import CodingScheme
from codedtool.models.energy import coding_loss, nearest_codeword, normalized_sum


class CodedOutput(NamedTuple):
    """What `CodedSum` gives: the sum (B, C, H, W), E(tbar_n) (B, N), and the coding loss (None without targets)."""

    sum: torch.Tensor
    energies: torch.Tensor
    loss: torch.Tensor | None


class CodedSum(nn.Module):
    """The last 1x1 convolutions of N subNNs with Energy Normalization, coding loss and dropSubNNs, then the sum.

    Its weight is that of the ordinary 1x1 convolution N*d -> C that it replaces (`conv.weight`, no bias), and so is its
    cost (section 3.1 without materialising the N outputs).

    Args:
        subnn_channels: d, bottleneck channels of each subNN.
        out_channels: C.
        scheme: row k names the subNNs of class k.
        exponent: of the coding loss (eq. 5).
    """

    scheme_KN: torch.Tensor

    def __init__(self, subnn_channels: int, out_channels: int, scheme: CodingScheme, *, exponent: float = 4.0) -> None:
        super().__init__()
        self.num_subnns = scheme.length
        # Fewer only in a network pruned to one class; the energy average stays over the original N.
        self.num_present = scheme.length
        self.ratio = float(scheme.ratio)
        self.exponent = exponent
        self.scheme = scheme
        self.conv = nn.Conv2d(scheme.length * subnn_channels, out_channels, 1, bias=False)
        # The run keeps the scheme and its sha256 beside the weights; weights alone do not carry it.
        self.register_buffer("scheme_KN", torch.tensor(scheme.table), persistent=False)

    def forward(
        self,
        h: torch.Tensor,
        targets: torch.Tensor | None = None,
        *,
        drop_mask: torch.Tensor | None = None,
        keep_mask: torch.Tensor | None = None,
    ) -> CodedOutput:
        """Sum the normalized outputs of the subNNs.

        Args:
            h: (B, N*d, H, W), subNN by subNN.
            targets: (B,) int64 classes; None: no coding loss.
            drop_mask: (B, N) dropSubNNs' factors, 0 or 1/(1 - p_drop): applied after the normalization, and after the
                energies are read for the loss.
            keep_mask: (N,) or (B, N) of 0/1: subNNs removed before the normalization, which re-amplifies the others.
        """
        total_BCHW, normalized_BN = normalized_sum(
            h,
            self.conv.weight,
            self.num_present,
            original_subnns=self.num_subnns,
            keep_mask=keep_mask,
            drop_mask=drop_mask,
        )
        loss = None
        if targets is not None:
            codewords_BN = self.scheme_KN[targets].to(normalized_BN.dtype)
            loss = coding_loss(normalized_BN, codewords_BN, self.ratio, exponent=self.exponent)
        return CodedOutput(total_BCHW, normalized_BN, loss)

    def decode(self, energies: torch.Tensor) -> torch.Tensor:
        """The early decoder's class for each row of ``energies`` (B, N); section 4.4."""
        return nearest_codeword(energies, self.scheme_KN)
