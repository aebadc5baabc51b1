"""Energies of subNN outputs, Energy Normalization, coding loss and early decoding (sections 3.1 and 4.4).

Shape suffixes: B samples, N subNNs, d bottleneck channels of a subNN, C output channels, HW pixels, K classes.

The output of subNN n is ``t_n = W_n h_n``: linear in its d bottleneck channels, with no BatchNorm or ReLU before the
sum over n. Its energy is therefore ``E(t_n) = <W_n^T W_n, h_n h_n^T> / (C H W)``, two d x d Gram matrices, and the
N x C x H x W tensor of all outputs never exists.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional

# Added to a sample's mean energy before its root is taken. It keeps all-zero outputs zero instead of NaN, with a zero
# gradient. The energies of a working network are larger by many orders of magnitude.
ENERGY_EPS = 1e-12


def subnn_energies(h_BDHW: torch.Tensor, weight_CD: torch.Tensor, num_subnns: int) -> torch.Tensor:
    """Compute E(t_n), eq. 2: the mean square of every subNN's output over channels and pixels.

    Args:
        h_BDHW: (B, N*d, H, W) bottleneck activations, d channels per subNN; any floating type and memory layout.
        weight_CD: (C, N*d, 1, 1) weights of the last convolution.
        num_subnns: N.

    Returns:
        (B, N) in float32, or in float64 for float64 input; also under autocast.
    """
    accumulate = torch.promote_types(h_BDHW.dtype, torch.float32)
    with torch.autocast(h_BDHW.device.type, enabled=False):
        grams_BNdd = _grams(h_BDHW.to(accumulate), num_subnns)
        return _contract(grams_BNdd, _metric(weight_CD.to(accumulate), num_subnns), _count(h_BDHW, weight_CD))


def normalize_energies(energies_BN: torch.Tensor, num_subnns: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Apply Energy Normalization, eq. 2-3: ``tbar_n = t_n / sqrt(E_avg)`` with E_avg the mean energy of N subNNs.

    Args:
        energies_BN: (B, number of present subNNs). The energies of removed subNNs are zero, or absent in a pruned
            network.
        num_subnns: the original N; the mean is taken over N even if subNNs are absent.

    Returns:
        E(tbar_n), in the shape of ``energies_BN`` and with the sum N per sample; and 1 / sqrt(E_avg), (B, 1), which is
        0 for an all-zero signal.
    """
    total_B1 = energies_BN.sum(dim=1, keepdim=True)
    mean_B1 = total_B1 / num_subnns + ENERGY_EPS
    # 1 / sqrt(eps) would blow a zero signal's gradient up a million times, to infinity in float16.
    return energies_BN / mean_B1, torch.where(total_B1 > 0, mean_B1.rsqrt(), 0.0)


def masked_scale(
    energies_BN: torch.Tensor, num_subnns: int, keep_mask: torch.Tensor | None, drop_mask: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Apply Energy Normalization to energies whose subNNs may be masked.

    Args:
        energies_BN: E(t_n) without the masks.
        num_subnns: as for `normalize_energies`.
        keep_mask, drop_mask: as for `normalized_sum`.

    Returns:
        E(tbar_n) and 1 / sqrt(E_avg), as from `normalize_energies`; and the factors of the subNNs' activations, (B, N).
    """
    if keep_mask is not None:
        energies_BN = energies_BN * keep_mask
    normalized_BN, inverse_root_B1 = normalize_energies(energies_BN, num_subnns)
    scale_BN = inverse_root_B1.expand_as(energies_BN)
    for mask in (keep_mask, drop_mask):
        if mask is not None:
            scale_BN = scale_BN * mask
    return normalized_BN, inverse_root_B1, scale_BN


def coding_loss(
    normalized_BN: torch.Tensor,
    codewords_BN: torch.Tensor,
    ratio: float,
    *,
    exponent: float = 4.0,
    threshold: float = 0.0,
) -> torch.Tensor:
    """Compute L_code, eq. 5: the batch mean of ``max(|r E(tbar_n) - w_{k,n}| - threshold, 0)^exponent``.

    Args:
        normalized_BN: E(tbar_n), from `normalize_energies`.
        codewords_BN: codeword of each sample's class, 0 and 1 in the same floating type.
        ratio: r = N_act / N.
        exponent: 4 in the paper; section 3.1.2 also tries 2 and 1.
        threshold: energy errors below this cost nothing (paper: 0).
    """
    errors_BN = (ratio * normalized_BN - codewords_BN).abs()
    if threshold:
        errors_BN = (errors_BN - threshold).clamp_min(0)
    return errors_BN.pow(exponent).mean()


def nearest_codeword(energies_BN: torch.Tensor, scheme_KN: torch.Tensor) -> torch.Tensor:
    """Predict classes from energies: the early decoder of section 4.4.

    The paper scales the energies to the sum N_act and takes the codeword nearest in L2. All codewords have the same
    norm, so the nearest one has the largest inner product with the energies, whatever their scale.

    Args:
        energies_BN: (B, N) energies of one block.
        scheme_KN: (K, N) codewords of 0 and 1.

    Returns:
        (B,) int64 classes.
    """
    return (energies_BN @ scheme_KN.to(energies_BN.dtype).T).argmax(dim=1)


def codeword_distance(energies_BN: torch.Tensor, codewords_BN: torch.Tensor) -> torch.Tensor:
    """Squared distance of a block's energies to a codeword, over N_act: (B,), 0 for the codeword itself.

    The energies are scaled to sum N_act, as for the early decoder (section 4.4).

    Args:
        energies_BN: (B, N) floats of at least 0.
        codewords_BN: (B, N) of 0 and 1, every row with N_act ones.
    """
    codewords_BN = codewords_BN.to(energies_BN.dtype)
    act_B1 = codewords_BN.sum(1, keepdim=True)
    scaled_BN = energies_BN * (act_B1 / energies_BN.sum(1, keepdim=True).clamp_min(1e-12))
    return (scaled_BN - codewords_BN).square().sum(1) / act_B1[:, 0]


def normalized_sum(
    h_BDHW: torch.Tensor,
    weight_CD: torch.Tensor,
    num_subnns: int,
    *,
    original_subnns: int | None = None,
    keep_mask: torch.Tensor | None = None,
    drop_mask: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute ``sum_n drop_n tbar_n`` and E(tbar_n), with one ordinary 1x1 convolution of scaled activations.

    Args:
        h_BDHW, weight_CD, num_subnns: as for `subnn_energies`.
        original_subnns: N of eq. 3, for a pruned network with fewer subNNs; None: num_subnns.
        keep_mask: (N,) or (B, N) of 0 and 1, factors of t_n before the normalization.
        drop_mask: (B, N) factors of tbar_n, after the normalization.

    Returns:
        The sum, (B, C, H, W), in the activations' type or autocast's; and E(tbar_n), (B, N), as from
        `normalize_energies`. Both can be differentiated once with respect to activations and weights.
    """
    device = h_BDHW.device.type
    if torch.is_autocast_enabled(device) and h_BDHW.dtype == torch.float32:
        h_BDHW = h_BDHW.to(torch.get_autocast_dtype(device))
    return _NormalizedSum.apply(
        h_BDHW, weight_CD, keep_mask, drop_mask, num_subnns, num_subnns if original_subnns is None else original_subnns
    )


def unnormalized_sum(
    h_BDHW: torch.Tensor,
    weight_CD: torch.Tensor,
    num_subnns: int,
    *,
    keep_mask: torch.Tensor | None = None,
    drop_mask: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute ``sum_n drop_n t_n`` and E(t_n): `normalized_sum` without Energy Normalization, an ablation."""
    energies_BN = subnn_energies(h_BDHW, weight_CD, num_subnns)
    if keep_mask is not None:
        energies_BN = energies_BN * keep_mask
    for mask in (keep_mask, drop_mask):
        if mask is not None:
            h_BDHW = h_BDHW * spread(mask.expand_as(energies_BN), h_BDHW)
    return functional.conv2d(h_BDHW, weight_CD), energies_BN


def normalized_concatenation(
    h_BDHW: torch.Tensor,
    weight_Cd: torch.Tensor,
    num_subnns: int,
    *,
    original_subnns: int,
    energy_norm: bool = True,
    keep_mask: torch.Tensor | None = None,
    drop_mask: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Concatenate the outputs ``drop_n tbar_n``, and compute E(tbar_n): the ablation of section 4.3.1.

    Args:
        h_BDHW: as for `subnn_energies`.
        weight_Cd: (C, d, 1, 1) weights of a convolution with N groups; each subNN makes C / N channels.
        num_subnns, original_subnns, keep_mask, drop_mask: as for `normalized_sum`.
        energy_norm: apply Energy Normalization; False leaves outputs and energies unscaled.

    Returns:
        The concatenated outputs, (B, C, H, W), and E(tbar_n), (B, N). All outputs together have C channels, so they
        are simply computed.
    """
    outputs_BNCHW = functional.conv2d(h_BDHW, weight_Cd, groups=num_subnns).unflatten(1, (num_subnns, -1))
    accumulate = torch.promote_types(outputs_BNCHW.dtype, torch.float32)
    energies_BN = outputs_BNCHW.to(accumulate).square().mean(dim=(2, 3, 4))
    if keep_mask is not None:
        energies_BN = energies_BN * keep_mask
    scale_BN = torch.ones_like(energies_BN)
    if energy_norm:
        energies_BN, inverse_root_B1 = normalize_energies(energies_BN, original_subnns)
        scale_BN = inverse_root_B1.expand_as(energies_BN)
    for mask in (keep_mask, drop_mask):
        if mask is not None:
            scale_BN = scale_BN * mask
    limit = torch.finfo(outputs_BNCHW.dtype).max
    scale_BN = scale_BN.clamp(-limit, limit).to(outputs_BNCHW.dtype)
    return (outputs_BNCHW * scale_BN[:, :, None, None, None]).flatten(1, 2), energies_BN


def _by_subnn(h_BDHW: torch.Tensor, num_subnns: int) -> torch.Tensor:
    """Split the activations by subNN, (B, N, d, HW)."""
    batch, channels, height, width = h_BDHW.shape
    return h_BDHW.reshape(batch, num_subnns, channels // num_subnns, height * width)


def _grams(h_BDHW: torch.Tensor, num_subnns: int) -> torch.Tensor:
    """Compute ``h_n h_n^T`` of every sample and subNN, (B, N, d, d)."""
    h_BNdP = _by_subnn(h_BDHW, num_subnns)
    if not h_BDHW.is_contiguous():
        # Channels last: a copy that keeps the channels innermost is twice as fast as a transposing one.
        h_BNdP = h_BNdP.transpose(2, 3).contiguous().transpose(2, 3)
    return h_BNdP @ h_BNdP.transpose(2, 3)


def _metric(weight_CD: torch.Tensor, num_subnns: int) -> torch.Tensor:
    """Compute ``W_n^T W_n`` of every subNN, (N, d, d)."""
    weight_NCd = _by_subnn_first(weight_CD, num_subnns)
    return torch.bmm(weight_NCd.transpose(1, 2), weight_NCd)


def _by_subnn_first(weight_CD: torch.Tensor, num_subnns: int) -> torch.Tensor:
    """Split the weights by subNN, (N, C, d): a view that matrix products read without a copy."""
    return weight_CD.view(weight_CD.shape[0], num_subnns, -1).transpose(0, 1)


def _count(h_BDHW: torch.Tensor, weight_CD: torch.Tensor) -> int:
    """Count the elements of one t_n: C H W."""
    return weight_CD.shape[0] * h_BDHW.shape[2] * h_BDHW.shape[3]


def _contract(grams_BNdd: torch.Tensor, metric_Ndd: torch.Tensor, count: int) -> torch.Tensor:
    """Compute the energies (B, N) from the Gram matrices of activations and weights, clamped at 0 against rounding."""
    inner_NB1 = torch.bmm(grams_BNdd.flatten(2).transpose(0, 1), metric_Ndd.flatten(1)[:, :, None])
    return inner_NB1[:, :, 0].T.clamp_min(0) / count


def spread(values_BN: torch.Tensor, h_BDHW: torch.Tensor) -> torch.Tensor:
    """Repeat one factor per subNN for each of its channels, (B, N*d, 1, 1), in the activations' type.

    Factors are clamped to the range of that type: a weak signal has large factors, which in float16 would become
    infinite, and infinity times zero is not a number.
    """
    limit = torch.finfo(h_BDHW.dtype).max
    values_BN = values_BN.clamp(-limit, limit).to(h_BDHW.dtype)
    return values_BN.repeat_interleave(h_BDHW.shape[1] // values_BN.shape[1], dim=1)[:, :, None, None]


class _NormalizedSum(torch.autograd.Function):
    """`normalized_sum` with a hand-written gradient.

    It keeps the activations, which the ReLU before keeps anyway, and the (B, N, d, d) Gram matrices. Autograd alone
    would also keep the scaled activations and a copy of them, and read them more often.
    """

    @staticmethod
    def forward(
        ctx: Any,
        h_BDHW: torch.Tensor,
        weight_CD: torch.Tensor,
        keep_mask: torch.Tensor | None,
        drop_mask: torch.Tensor | None,
        num_subnns: int,
        original_subnns: int,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        accumulate = torch.promote_types(h_BDHW.dtype, torch.float32)
        with torch.autocast(h_BDHW.device.type, enabled=False):
            grams_BNdd = _grams(h_BDHW.to(accumulate), num_subnns)
            metric_Ndd = _metric(weight_CD.to(accumulate), num_subnns)
            energies_BN = _contract(grams_BNdd, metric_Ndd, _count(h_BDHW, weight_CD))
            normalized_BN, inverse_root_B1, scale_BN = masked_scale(energies_BN, original_subnns, keep_mask, drop_mask)
            total_BCHW = functional.conv2d(h_BDHW * spread(scale_BN, h_BDHW), weight_CD.to(h_BDHW.dtype))
        if h_BDHW.dtype == torch.bfloat16:
            # Kept for the weights' gradient alone, which is no more exact than bf16 otherwise. In float32 they would be
            # larger than the activations of the last stages; float16 has not their range.
            grams_BNdd = grams_BNdd.bfloat16()
        ctx.save_for_backward(
            h_BDHW, weight_CD, keep_mask, grams_BNdd, metric_Ndd, normalized_BN, inverse_root_B1, scale_BN
        )
        ctx.original_subnns = original_subnns
        return total_BCHW, normalized_BN

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_total_BCHW: torch.Tensor, grad_normalized_BN: torch.Tensor
    ) -> tuple[torch.Tensor | None, ...]:
        h_BDHW, weight_CD, keep_mask, grams_BNdd, metric_Ndd, normalized_BN, inverse_root_B1, scale_BN = (
            ctx.saved_tensors
        )
        num_subnns, width_d = metric_Ndd.shape[:2]
        factors = spread(scale_BN, h_BDHW)
        scaled_BDHW = h_BDHW * factors
        grad_h, grad_weight, _ = torch.ops.aten.convolution_backward(
            grad_total_BCHW,
            scaled_BDHW,
            weight_CD.to(h_BDHW.dtype),
            None,
            (1, 1),
            (0, 0),
            (1, 1),
            False,
            (0, 0),
            1,
            (True, True, False),
        )
        # In place from here on, because new memory costs more time than the arithmetic. The sum is <dL/dtotal, total>,
        # which equals inverse_root times its gradient.
        along_B1 = scaled_BDHW.mul_(grad_h).sum(dim=(1, 2, 3), dtype=scale_BN.dtype)[:, None]
        del scaled_BDHW  # before the product below needs as much memory
        # With mean = E_avg: normalized = E / mean and inverse_root = mean^(-1/2).
        inverse_B1 = inverse_root_B1.square()
        through_normalized_B1 = (grad_normalized_BN * normalized_BN).sum(dim=1, keepdim=True)
        grad_mean_B1 = -inverse_B1 * (along_B1 / 2 + through_normalized_B1)
        grad_energies_BN = grad_normalized_BN * inverse_B1 + grad_mean_B1 / ctx.original_subnns
        if keep_mask is not None:
            grad_energies_BN = grad_energies_BN * keep_mask
        # E = <W^T W, h h^T> / count, so that dE/dh = 2 W^T W h / count and dE/dW = 2 W h h^T / count.
        weight_of_BN = grad_energies_BN * (2 / _count(h_BDHW, weight_CD))
        grad_h = grad_h.mul_(factors).addcmul_(_apply_metric(metric_Ndd, h_BDHW), spread(weight_of_BN, h_BDHW))
        grams_NBD = grams_BNdd.to(weight_of_BN.dtype).flatten(2).transpose(0, 1)
        weighted_N1D = torch.bmm(weight_of_BN.T[:, None, :], grams_NBD)
        weighted_Ndd = weighted_N1D.view(num_subnns, width_d, width_d).to(weight_CD.dtype)
        of_energies_NCd = torch.bmm(_by_subnn_first(weight_CD, num_subnns), weighted_Ndd)
        of_energies = of_energies_NCd.transpose(0, 1).reshape(weight_CD.shape)
        # Added to the reordered copy, in the weights' type, and not the other way round: no further copy is made.
        return grad_h, of_energies.add_(grad_weight), None, None, None, None


def _apply_metric(metric_Ndd: torch.Tensor, h_BDHW: torch.Tensor) -> torch.Tensor:
    """Compute ``W_n^T W_n h_n`` of every sample and subNN, in the shape, layout and type of the activations."""
    metric_Ndd = metric_Ndd.to(h_BDHW.dtype)
    if h_BDHW.is_contiguous():
        return (metric_Ndd @ _by_subnn(h_BDHW, metric_Ndd.shape[0])).reshape(h_BDHW.shape)
    return functional.conv2d(h_BDHW, metric_Ndd.flatten(0, 1)[:, :, None, None], groups=metric_Ndd.shape[0])
