"""The end of a coded block: its last convolution, with energies, coding loss, masks and the sum over subNNs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from codedtool.coding.scheme import CodingScheme
from codedtool.errors import InputError
from codedtool.models.conv_bn import conv_bn, is_folded
from codedtool.models.energy import (
    coding_loss,
    masked_scale,
    nearest_codeword,
    normalize_energies,
    normalized_concatenation,
    normalized_sum,
    spread,
    subnn_energies,
    unnormalized_sum,
)
from codedtool.models.variant import PAPER, Variant


class CodedOutput(NamedTuple):
    """Result of `CodedSum`.

    Attributes:
        sum: sum over the subNNs, (B, C, H, W), after the BatchNorm that was given.
        energies: E(tbar_n), (B, N).
        loss: coding loss, a scalar; None without targets.
    """

    sum: torch.Tensor
    energies: torch.Tensor
    loss: torch.Tensor | None


class CodedSum(nn.Module):
    """The last 1x1 convolution of N subNNs, with Energy Normalization, coding loss and dropSubNNs, and their sum.

    It computes section 3.1 without holding the N outputs in memory. Weights (`conv.weight`, no bias) and cost are those
    of the ordinary 1x1 convolution from N*d to C channels.

    Args:
        subnn_channels: d, the bottleneck channels of one subNN.
        out_channels: C, the output channels.
        scheme: the coding scheme; row k marks the subNNs of class k.
        variant: the ablations; for ``concatenate`` use `CodedConcatenation`.

    Example:
        >>> import numpy as np, torch
        >>> from codedtool.coding.scheme import CodingScheme
        >>> end = CodedSum(4, 8, CodingScheme(np.array([[1, 1, 0, 0], [0, 0, 1, 1]], dtype=np.uint8)))
        >>> result = end(torch.ones(1, 16, 2, 2), torch.tensor([0]))
        >>> result.sum.shape, result.energies.shape
        (torch.Size([1, 8, 2, 2]), torch.Size([1, 4]))
        >>> end.decode(torch.tensor([[0.1, 0.3, 2.0, 1.6]])).tolist()
        [1]
    """

    scheme_KN: torch.Tensor

    def __init__(
        self, subnn_channels: int, out_channels: int, scheme: CodingScheme, *, variant: Variant = PAPER
    ) -> None:
        super().__init__()
        self.num_subnns = scheme.length
        # A network pruned to one class has fewer subNNs present; the mean energy is still taken over N.
        self.num_present = scheme.length
        self.ratio = float(scheme.ratio)
        self.variant = variant
        self.scheme = scheme
        self.conv = self._convolution(subnn_channels, out_channels)
        # Not in the state dict: the run stores the scheme and its sha256 beside the weights.
        self.register_buffer("scheme_KN", torch.tensor(scheme.table), persistent=False)

    def forward(
        self,
        h: torch.Tensor,
        targets: torch.Tensor | None = None,
        *,
        bn: nn.Module | None = None,
        drop_mask: torch.Tensor | None = None,
        keep_mask: torch.Tensor | None = None,
    ) -> CodedOutput:
        """Sum the normalized outputs of the subNNs.

        Args:
            h: (B, N*d, H, W) inner activations, d channels per subNN in the order of the subNNs.
            targets: (B,) int64 classes; None: no coding loss.
            bn: the BatchNorm of the sum; None: there is none.
            drop_mask: (B, N) factors of dropSubNNs, 0 or 1/(1 - p_drop), applied after the normalization; energies and
                coding loss do not see them.
            keep_mask: (N,) or (B, N) of 0 and 1; 0 removes a subNN before the normalization, which then amplifies the
                others.

        Raises:
            InputError: a target on the CPU is no class of the scheme.
        """
        codewords_BN = None if targets is None else self._codewords(targets)
        if self._is_folded(h, bn):
            assert bn is not None
            total_BCHW, normalized_BN = self._folded(h, bn, keep_mask, drop_mask)
        else:
            total_BCHW, normalized_BN = self._sum_of_subnns(h, codewords_BN, keep_mask, drop_mask)
            if bn is not None:
                total_BCHW = bn(total_BCHW)
        if codewords_BN is None:
            return CodedOutput(total_BCHW, normalized_BN, None)
        loss = coding_loss(
            normalized_BN,
            codewords_BN.to(normalized_BN.dtype),
            self.ratio,
            exponent=self.variant.exponent,
            threshold=self.variant.threshold,
        )
        return CodedOutput(total_BCHW, normalized_BN, loss)

    def _codewords(self, targets_B: torch.Tensor) -> torch.Tensor:
        """The codeword of every target; a class outside 0..K-1 would else count from the end, or end a GPU's kernel."""
        if targets_B.device.type == "cpu" and type(targets_B) is torch.Tensor and not torch.compiler.is_compiling():
            wrong_B = (targets_B < 0) | (targets_B >= len(self.scheme_KN))
            if wrong_B.any():
                raise InputError(
                    f"`targets` must be classes from 0 to {len(self.scheme_KN) - 1}, got {int(targets_B[wrong_B][0])}: "
                    "leave images without a class out"
                )
        return self.scheme_KN[targets_B]

    def decode(self, energies: torch.Tensor) -> torch.Tensor:
        """Predict a class for each row of ``energies`` (B, N): the early decoder of section 4.4."""
        return nearest_codeword(energies, self.scheme_KN)

    def energies(self, h: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute the energies alone, which decide about an early exit before the sum is computed.

        Args:
            h: as for `forward`.

        Returns:
            E(tbar_n), (B, N); and the factor of Energy Normalization, (B, 1), for `sum`.
        """
        accumulate = torch.promote_types(h.dtype, torch.float32)
        energies_BN = self._energies(h, self.conv.weight.to(accumulate))
        if self.variant.energy_norm:
            return normalize_energies(energies_BN, self.num_subnns)
        return energies_BN, torch.ones_like(energies_BN[:, :1])

    def sum(self, h: torch.Tensor, scale: torch.Tensor, bn: nn.Module) -> torch.Tensor:
        """Sum the normalized outputs of the subNNs, whose energies are known already; for inference.

        Args:
            h: as for `forward`.
            scale: factors of the activations, (B, 1) from `energies`, or (B, N) with one factor per present subNN.
            bn: the BatchNorm of the sum.

        Returns:
            The BatchNorm's output, (B, C, H, W).
        """
        return conv_bn(self.conv, bn, h * spread(scale, h))

    def outputs(self, h: torch.Tensor, count: int) -> Iterator[torch.Tensor]:
        """Yield the normalized outputs tbar_n of the first ``count`` subNNs, one at a time.

        Each is (B, C, H, W) in float32, or in float64 if ``h`` is.
        """
        h = h.to(torch.promote_types(h.dtype, torch.float32))
        weight = self.conv.weight.to(h.dtype)
        width = h.shape[1] // self.num_subnns
        if self.variant.energy_norm:
            _, scale_B1 = self.energies(h)
            # Scale before the convolution: there are d channels to scale instead of C.
            h = h * scale_B1[:, :, None, None]
        for n in range(count):
            yield functional.conv2d(h[:, n * width : (n + 1) * width], self._weight_of(weight, n, width))

    def _convolution(self, subnn_channels: int, out_channels: int) -> nn.Conv2d:
        return nn.Conv2d(self.num_subnns * subnn_channels, out_channels, 1, bias=False)

    def _is_folded(self, h: torch.Tensor, bn: nn.Module | None) -> bool:
        """Whether BatchNorm is computed with the convolution, as `conv_bn` does it."""
        return self.variant.energy_norm and is_folded(self.conv, bn, h)

    def _folded(
        self, h: torch.Tensor, bn: nn.Module, keep_mask: torch.Tensor | None, drop_mask: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute the BatchNorm's output of the sum, and E(tbar_n)."""
        energies_BN = self._energies(h, self.conv.weight)
        normalized_BN, _, scale_BN = masked_scale(energies_BN, self.num_subnns, keep_mask, drop_mask)
        return self.sum(h, scale_BN, bn), normalized_BN

    def _sum_of_subnns(
        self,
        h: torch.Tensor,
        codewords_BN: torch.Tensor | None,
        keep_mask: torch.Tensor | None,
        drop_mask: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute the sum, with the gradients that the variant leaves, and E(tbar_n)."""
        if codewords_BN is None or not self.variant.gradient_masking:
            return self._aggregate(h, self.conv.weight, keep_mask, drop_mask)
        # Sum of the active subNNs with gradient, plus the sum of the inactive ones without.
        active_BN = codewords_BN.to(h.dtype if drop_mask is None else drop_mask.dtype)
        of_active, of_inactive = (
            part if drop_mask is None else part * drop_mask for part in (active_BN, 1 - active_BN)
        )
        total_BCHW, normalized_BN = self._aggregate(h, self.conv.weight, keep_mask, of_active)
        rest_BCHW, _ = self._aggregate(h.detach(), self.conv.weight.detach(), keep_mask, of_inactive)
        return total_BCHW + rest_BCHW, normalized_BN

    def _aggregate(
        self,
        h: torch.Tensor,
        weight: torch.Tensor,
        keep_mask: torch.Tensor | None,
        drop_mask: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute the sum of the subNNs' outputs and E(tbar_n)."""
        if not self.variant.energy_norm:
            return unnormalized_sum(h, weight, self.num_present, keep_mask=keep_mask, drop_mask=drop_mask)
        return normalized_sum(
            h, weight, self.num_present, original_subnns=self.num_subnns, keep_mask=keep_mask, drop_mask=drop_mask
        )

    def _energies(self, h: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return subnn_energies(h, weight, self.num_present)

    def _weight_of(self, weight: torch.Tensor, n: int, width: int) -> torch.Tensor:
        """Return W_n, the weights of subNN ``n``."""
        return weight[:, n * width : (n + 1) * width]


class CodedConcatenation(CodedSum):
    """`CodedSum` that concatenates the subNNs' outputs instead of adding them (ablation of section 4.3.1).

    ``conv`` has N groups, each of which makes C / N output channels; C must be a multiple of N. In a network pruned to
    one class, the channels of the removed subNNs are zero.
    """

    present: torch.Tensor

    def __init__(
        self, subnn_channels: int, out_channels: int, scheme: CodingScheme, *, variant: Variant = PAPER
    ) -> None:
        assert out_channels % scheme.length == 0
        super().__init__(subnn_channels, out_channels, scheme, variant=variant)
        # Numbers of the present subNNs, (num_present,) int64.
        self.register_buffer("present", torch.arange(scheme.length), persistent=False)

    def _convolution(self, subnn_channels: int, out_channels: int) -> nn.Conv2d:
        return nn.Conv2d(self.num_subnns * subnn_channels, out_channels, 1, groups=self.num_subnns, bias=False)

    def _is_folded(self, h: torch.Tensor, bn: nn.Module | None) -> bool:
        return False  # the energies need the convolution's outputs as they are

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
        _, energies_BN = normalized_concatenation(
            h, weight, self.num_present, original_subnns=self.num_subnns, energy_norm=False
        )
        return energies_BN

    def _weight_of(self, weight: torch.Tensor, n: int, width: int) -> torch.Tensor:
        channels = weight.shape[0] // self.num_present
        return weight[n * channels : (n + 1) * channels]
