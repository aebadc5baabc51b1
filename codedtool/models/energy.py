"""Energies of subNN outputs, Energy Normalization, coding loss and early decoding (section 3.1), without the outputs.

Shape suffixes: B samples, N subNNs, d bottleneck channels of a subNN, C output channels, HW pixels, K classes.

The output of subNN n is ``t_n = W_n h_n``: linear in its d bottleneck channels, with no BatchNorm or ReLU before the
sum over n. Its energy is therefore ``E(t_n) = <W_n^T W_n, h_n h_n^T> / (C H W)``, two d x d Gram matrices, and the
N x C x H x W tensor of all outputs never exists.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

# Added to the mean energy (of a sample's subNNs) before its root is taken. Energies of a working network are many
# orders above it; an all-zero input gives zeros instead of NaN, with finite gradients.
ENERGY_EPS = 1e-12


def subnn_energies(h_BDHW: torch.Tensor, weight_CD: torch.Tensor, num_subnns: int) -> torch.Tensor:
    """E(t_n), eq. 2: the mean square over channels and pixels of every subNN's output.

    Args:
        h_BDHW: (B, N*d, H, W), the subNNs' bottleneck activations, subNN by subNN; any floating type and layout.
        weight_CD: (C, N*d, 1, 1), the last convolution's weights.
        num_subnns: N.

    Returns:
        (B, N), float32 (float64 for float64 input), also under autocast.
    """
    return _SubnnEnergies.apply(h_BDHW, weight_CD, num_subnns)


def normalize_energies(energies_BN: torch.Tensor, num_subnns: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Energy Normalization, eq. 2-3: ``tbar_n = t_n / sqrt(E_avg)`` with E_avg the mean energy over the N subNNs.

    Args:
        energies_BN: (B, number of subNNs present): removed subNNs are zero or, in a pruned network, absent.
        num_subnns: the original N, over which the mean is taken whatever is present.

    Returns:
        E(tbar_n), shape of ``energies_BN``, summing to N per sample; and 1 / sqrt(E_avg), (B, 1).
    """
    mean_B1 = energies_BN.sum(dim=1, keepdim=True) / num_subnns + ENERGY_EPS
    return energies_BN / mean_B1, mean_B1.rsqrt()


def coding_loss(
    normalized_BN: torch.Tensor, codewords_BN: torch.Tensor, ratio: float, *, exponent: float = 4.0
) -> torch.Tensor:
    """L_code, eq. 5: the mean over samples and subNNs of ``|r E(tbar_n) - w_{k,n}|^exponent``.

    Args:
        normalized_BN: E(tbar_n) of `normalize_energies`.
        codewords_BN: 0/1 in the same floating type, the codeword of each sample's class.
        ratio: r = N_act / N.
        exponent: 4 in the paper; 2 and 1 are its ablation (section 3.1.2).
    """
    return (ratio * normalized_BN - codewords_BN).abs().pow(exponent).mean()


def nearest_codeword(energies_BN: torch.Tensor, scheme_KN: torch.Tensor) -> torch.Tensor:
    """The early decoder, section 4.4: the class whose codeword is nearest (L2) to the energies scaled to sum N_act.

    All codewords have the same norm, so the nearest has the largest inner product, whatever the scale.

    Returns:
        (B,) int64.
    """
    return (energies_BN @ scheme_KN.to(energies_BN.dtype).T).argmax(dim=1)


def normalized_sum(h_BDHW: torch.Tensor, weight_CD: torch.Tensor, scale_BN: torch.Tensor) -> torch.Tensor:
    """``sum_n scale_n t_n`` as one ordinary 1x1 convolution of the scaled bottleneck activations; (B, C, H, W).

    Args:
        h_BDHW, weight_CD: as for `subnn_energies`.
        scale_BN: (B, N), 1 / sqrt(E_avg) times dropSubNNs' factors.
    """
    return _NormalizedSum.apply(h_BDHW, weight_CD.to(h_BDHW.dtype), scale_BN)


def _grams(h_BDHW: torch.Tensor, num_subnns: int) -> torch.Tensor:
    """``h_n h_n^T`` of every sample and subNN, (B, N, d, d)."""
    batch, channels, height, width = h_BDHW.shape
    h_BNdP = h_BDHW.reshape(batch, num_subnns, channels // num_subnns, height * width)
    return h_BNdP @ h_BNdP.transpose(2, 3)


def _spread(values_BN: torch.Tensor, channels: int) -> torch.Tensor:
    """One value per subNN as a factor for its channels, (B, N*d, 1, 1)."""
    return values_BN.repeat_interleave(channels // values_BN.shape[1], dim=1)[:, :, None, None]


class _SubnnEnergies(torch.autograd.Function):
    """`subnn_energies`; keeps the small Gram matrices for the backward pass instead of a copy of the activations."""

    @staticmethod
    def forward(ctx: Any, h_BDHW: torch.Tensor, weight_CD: torch.Tensor, num_subnns: int) -> torch.Tensor:
        _, channels, height, width = h_BDHW.shape
        accumulate = torch.promote_types(h_BDHW.dtype, torch.float32)
        with torch.autocast(h_BDHW.device.type, enabled=False):
            grams_BNdd = _grams(h_BDHW.to(accumulate), num_subnns)
            weight_CNd = weight_CD.to(accumulate).reshape(-1, num_subnns, channels // num_subnns)
            metric_Ndd = torch.einsum("cnd,cne->nde", weight_CNd, weight_CNd)
            ctx.save_for_backward(h_BDHW, weight_CD, grams_BNdd, metric_Ndd)
            ctx.count = weight_CD.shape[0] * height * width
            return (grams_BNdd * metric_Ndd).sum(dim=(2, 3)) / ctx.count

    @staticmethod
    def backward(ctx: Any, grad_BN: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        h_BDHW, weight_CD, grams_BNdd, metric_Ndd = ctx.saved_tensors
        num_subnns, width_d = metric_Ndd.shape[0], metric_Ndd.shape[1]
        scaled_BN = grad_BN * (2.0 / ctx.count)
        kernel = metric_Ndd.reshape(num_subnns * width_d, width_d, 1, 1).to(h_BDHW.dtype)
        grad_h = functional.conv2d(h_BDHW, kernel, groups=num_subnns)
        grad_h = grad_h * _spread(scaled_BN.to(h_BDHW.dtype), h_BDHW.shape[1])
        weighted_Ndd = torch.einsum("bn,bnde->nde", scaled_BN, grams_BNdd)
        weight_CNd = weight_CD.to(weighted_Ndd.dtype).reshape(-1, num_subnns, width_d)
        grad_weight = torch.einsum("cnd,nde->cne", weight_CNd, weighted_Ndd)
        return grad_h, grad_weight.reshape(weight_CD.shape).to(weight_CD.dtype), None


class _NormalizedSum(torch.autograd.Function):
    """`normalized_sum`; scales again in the backward pass instead of keeping the scaled activations."""

    @staticmethod
    def forward(ctx: Any, h_BDHW: torch.Tensor, weight_CD: torch.Tensor, scale_BN: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(h_BDHW, weight_CD, scale_BN)
        return functional.conv2d(h_BDHW * _spread(scale_BN.to(h_BDHW.dtype), h_BDHW.shape[1]), weight_CD)

    @staticmethod
    def backward(ctx: Any, grad_BCHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        h_BDHW, weight_CD, scale_BN = ctx.saved_tensors
        factors = _spread(scale_BN.to(h_BDHW.dtype), h_BDHW.shape[1])
        grad_scaled, grad_weight, _ = torch.ops.aten.convolution_backward(
            grad_BCHW,
            h_BDHW * factors,
            weight_CD,
            None,
            (1, 1),
            (0, 0),
            (1, 1),
            False,
            (0, 0),
            1,
            (True, True, False),
        )
        per_channel_BD = (grad_scaled * h_BDHW).sum(dim=(2, 3), dtype=scale_BN.dtype)
        grad_scale = per_channel_BD.reshape(*scale_BN.shape, -1).sum(dim=2)
        return grad_scaled * factors, grad_weight, grad_scale
