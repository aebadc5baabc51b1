"""The end of a coded block: energies, coding loss, masks and the sum over subNNs, in place of its last convolution."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from codedtool.coding.scheme import CodingScheme
from codedtool.models.energy import (
    coding_loss,
    nearest_codeword,
    normalize_energies,
    normalized_concatenation,
    normalized_sum,
    subnn_energies,
    unnormalized_sum,
)
from codedtool.models.variant import PAPER, Variant


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
        variant: the ablations; ``concatenate`` is `CodedConcatenation`'s.
    """

    scheme_KN: torch.Tensor

    def __init__(
        self, subnn_channels: int, out_channels: int, scheme: CodingScheme, *, variant: Variant = PAPER
    ) -> None:
        super().__init__()
        self.num_subnns = scheme.length
        # Fewer only in a network pruned to one class; the energy average stays over the original N.
        self.num_present = scheme.length
        self.ratio = float(scheme.ratio)
        self.variant = variant
        self.scheme = scheme
        self.conv = self._convolution(subnn_channels, out_channels)
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
        if targets is None:
            return CodedOutput(*self._aggregate(h, self.conv.weight, keep_mask, drop_mask), None)
        codewords_BN = self.scheme_KN[targets]
        if self.variant.gradient_masking:
            # The active subNNs' part with its gradient, and the inactive ones' without.
            active_BN = codewords_BN.to(h.dtype if drop_mask is None else drop_mask.dtype)
            of_active, of_inactive = (
                part if drop_mask is None else part * drop_mask for part in (active_BN, 1 - active_BN)
            )
            total_BCHW, normalized_BN = self._aggregate(h, self.conv.weight, keep_mask, of_active)
            rest_BCHW, _ = self._aggregate(h.detach(), self.conv.weight.detach(), keep_mask, of_inactive)
            total_BCHW = total_BCHW + rest_BCHW
        else:
            total_BCHW, normalized_BN = self._aggregate(h, self.conv.weight, keep_mask, drop_mask)
        loss = coding_loss(
            normalized_BN,
            codewords_BN.to(normalized_BN.dtype),
            self.ratio,
            exponent=self.variant.exponent,
            threshold=self.variant.threshold,
        )
        return CodedOutput(total_BCHW, normalized_BN, loss)

    def decode(self, energies: torch.Tensor) -> torch.Tensor:
        """The early decoder's class for each row of ``energies`` (B, N); section 4.4."""
        return nearest_codeword(energies, self.scheme_KN)

    def outputs(self, h: torch.Tensor, count: int) -> Iterator[torch.Tensor]:
        """tbar_n of the first ``count`` subNNs, one by one, (B, C, H, W) in float32 (float64 for float64 ``h``)."""
        h = h.to(torch.promote_types(h.dtype, torch.float32))
        weight = self.conv.weight.to(h.dtype)
        width = h.shape[1] // self.num_subnns
        if self.variant.energy_norm:
            _, inverse_root_B1 = normalize_energies(self._energies(h, weight), self.num_subnns)
            # The factor goes in before the convolution, where there are d channels to scale and not C.
            h = h * inverse_root_B1[:, :, None, None]
        for n in range(count):
            yield functional.conv2d(h[:, n * width : (n + 1) * width], self._weight_of(weight, n, width))

    def _convolution(self, subnn_channels: int, out_channels: int) -> nn.Conv2d:
        return nn.Conv2d(self.num_subnns * subnn_channels, out_channels, 1, bias=False)

    def _aggregate(
        self,
        h: torch.Tensor,
        weight: torch.Tensor,
        keep_mask: torch.Tensor | None,
        drop_mask: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The block's output before its BatchNorm, and E(tbar_n)."""
        if not self.variant.energy_norm:
            return unnormalized_sum(h, weight, self.num_present, keep_mask=keep_mask, drop_mask=drop_mask)
        return normalized_sum(
            h, weight, self.num_present, original_subnns=self.num_subnns, keep_mask=keep_mask, drop_mask=drop_mask
        )

    def _energies(self, h: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return subnn_energies(h, weight, self.num_subnns)

    def _weight_of(self, weight: torch.Tensor, n: int, width: int) -> torch.Tensor:
        """W_n."""
        return weight[:, n * width : (n + 1) * width]


class CodedConcatenation(CodedSum):
    """`CodedSum` with the outputs beside each other: section 4.3.1's ablation.

    ``conv`` has N groups, each of which makes C / N of the channels; in a network pruned to one class the channels of
    the subNNs that are gone are zero.

    Raises:
        AssertionError: C is no multiple of N.
    """

    present: torch.Tensor

    def __init__(
        self, subnn_channels: int, out_channels: int, scheme: CodingScheme, *, variant: Variant = PAPER
    ) -> None:
        assert out_channels % scheme.length == 0
        super().__init__(subnn_channels, out_channels, scheme, variant=variant)
        # Numbers of the subNNs that are there, (num_present,) int64.
        self.register_buffer("present", torch.arange(scheme.length), persistent=False)

    def _convolution(self, subnn_channels: int, out_channels: int) -> nn.Conv2d:
        return nn.Conv2d(self.num_subnns * subnn_channels, out_channels, 1, groups=self.num_subnns, bias=False)

    def _aggregate(
        self,
        h: torch.Tensor,
        weight: torch.Tensor,
        keep_mask: torch.Tensor | None,
        drop_mask: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        outputs_BCHW, energies_BN = normalized_concatenation(
            h,
            weight,
            self.num_present,
            original_subnns=self.num_subnns,
            energy_norm=self.variant.energy_norm,
            keep_mask=keep_mask,
            drop_mask=drop_mask,
        )
        if self.num_present == self.num_subnns:
            return outputs_BCHW, energies_BN
        outputs_BnCHW = outputs_BCHW.unflatten(1, (self.num_present, -1))
        whole_BNCHW = outputs_BnCHW.new_zeros(h.shape[0], self.num_subnns, *outputs_BnCHW.shape[2:])
        return whole_BNCHW.index_copy(1, self.present, outputs_BnCHW).flatten(1, 2), energies_BN

    def _energies(self, h: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return normalized_concatenation(h, weight, self.num_subnns, original_subnns=self.num_subnns, energy_norm=False)[
            1
        ]

    def _weight_of(self, weight: torch.Tensor, n: int, width: int) -> torch.Tensor:
        channels = weight.shape[0] // self.num_subnns
        return weight[n * channels : (n + 1) * channels]
