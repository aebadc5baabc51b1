"""Products of a coded block's activations and weights, in the order of memory that suits the machine.

Shape suffixes as in `energy`: B samples, N subNNs, d bottleneck channels of a subNN, D = N*d, C output channels,
P = H*W pixels, Q = B*P.

A CPU with channels_last activations takes its own way where that was measured to be faster (benchmarks/README.md):
sample by sample, so that a sample is still in the cache for its next product and no transposed copy of all samples is
made; and matrix products instead of convolutions, the more so the fewer pixels there are. Other machines and layouts
take all samples together, and so do compiled networks.
"""

from __future__ import annotations

from itertools import starmap

import torch
from torch.nn import functional

# A CPU takes samples one by one from this many activations each; smaller ones cost more in calls than in arithmetic.
# It was measured to win for 8 and 16 samples, and to lose for 128.
SAMPLE_ELEMENTS = 8192
_MAX_SAMPLES = 64
# Weights that a core's cache holds beside their products.
_CACHED_ELEMENTS = 65536


def sample_grams(h_BDHW: torch.Tensor, num_subnns: int) -> torch.Tensor:
    """Compute ``h_n h_n^T`` of every sample and subNN: (B, N, d, d) in float32, or in float64 for float64 input."""
    accumulate = torch.promote_types(h_BDHW.dtype, torch.float32)
    if _sample_by_sample(h_BDHW):
        exact = (h_NPd.to(accumulate) for h_NPd in _samples(h_BDHW, num_subnns))
        return torch.stack([torch.bmm(h_NPd.transpose(1, 2), h_NPd) for h_NPd in exact])
    h_BNdP = _by_subnn(h_BDHW.to(accumulate), num_subnns)
    if not h_BDHW.is_contiguous():
        # Channels last: a copy that keeps the channels innermost is twice as fast as a transposing one.
        h_BNdP = h_BNdP.transpose(2, 3).contiguous().transpose(2, 3)
    return h_BNdP @ h_BNdP.transpose(2, 3)


def weight_grams(weight_CD: torch.Tensor, num_subnns: int) -> torch.Tensor:
    """Compute ``W_n^T W_n`` of every subNN: (N, d, d) in the weights' type."""
    first, *others = _pieces(weight_CD, num_subnns)
    grams_Ndd = torch.bmm(first.transpose(1, 2), first)
    for piece_NCd in others:
        grams_Ndd.baddbmm_(piece_NCd.transpose(1, 2), piece_NCd)
    return grams_Ndd


def add_weighted_(grad_weight_CD: torch.Tensor, weight_CD: torch.Tensor, factor_Ndd: torch.Tensor) -> None:
    """Add ``W_n F_n`` to ``grad_weight_CD``, in place."""
    num_subnns = len(factor_Ndd)
    for grad_NCd, piece_NCd in zip(_pieces(grad_weight_CD, num_subnns), _pieces(weight_CD, num_subnns), strict=True):
        grad_NCd.add_(torch.bmm(piece_NCd, factor_Ndd))


def pointwise(h_BDHW: torch.Tensor, kernel_CD: torch.Tensor) -> torch.Tensor:
    """1x1 convolution without bias, (B, C, H, W)."""
    # A compiled network's product of many pixels is not faster than its convolution.
    most = kernel_CD.shape[0] * (1 if torch.compiler.is_compiling() else 8)
    if _in_rows(h_BDHW) and _pixels(h_BDHW) <= most:
        return _images(torch.mm(_rows(h_BDHW), kernel_CD.flatten(1).t()), h_BDHW)
    return functional.conv2d(h_BDHW, kernel_CD)


def pointwise_backward(
    grad_BCHW: torch.Tensor, h_BDHW: torch.Tensor, kernel_CD: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of `pointwise` with respect to its two arguments, in their shapes, types and layouts."""
    in_rows = _in_rows(h_BDHW)
    if in_rows:
        grad_BCHW = grad_BCHW.contiguous(memory_format=torch.channels_last)
        if _pixels(h_BDHW) <= kernel_CD.shape[0]:
            grad_h = _images(torch.mm(_rows(grad_BCHW), kernel_CD.flatten(1)), h_BDHW)
            return grad_h, torch.mm(_rows(grad_BCHW).t(), _rows(h_BDHW)).view(kernel_CD.shape)
    in_rows = in_rows and not torch.compiler.is_compiling()
    grad_h, grad_kernel, _ = torch.ops.aten.convolution_backward(
        grad_BCHW, h_BDHW, kernel_CD, None, (1, 1), (0, 0), (1, 1), False, (0, 0), 1, (True, not in_rows, False)
    )
    if in_rows:
        grad_h = grad_h.contiguous(memory_format=torch.channels_last)
        # Faster with rows of C than with rows of D elements, although the weights are then copied.
        grad_kernel = torch.mm(_rows(h_BDHW).t(), _rows(grad_BCHW)).t().contiguous().view(kernel_CD.shape)
    return grad_h, grad_kernel


def inner_products_(one_BDHW: torch.Tensor, other_BDHW: torch.Tensor) -> torch.Tensor:
    """Inner product of each sample of two tensors of one layout: (B,), float32 or float64. May overwrite the first."""
    accumulate = torch.promote_types(one_BDHW.dtype, torch.float32)
    if _sample_by_sample(one_BDHW):
        pairs = zip(_flat_samples(one_BDHW), _flat_samples(other_BDHW), strict=True)
        return torch.stack(list(starmap(torch.dot, ((a.to(accumulate), b.to(accumulate)) for a, b in pairs))))
    return one_BDHW.mul_(other_BDHW).sum(dim=(1, 2, 3), dtype=accumulate)


def scale_and_add_(
    grad_BDHW: torch.Tensor,
    factors_BD: torch.Tensor,
    h_BDHW: torch.Tensor,
    weight_BN: torch.Tensor,
    metric_Ndd: torch.Tensor,
) -> torch.Tensor:
    """Compute ``factors * grad + weight_n M_n h_n`` with symmetric matrices M_n; may overwrite ``grad_BDHW``.

    Args:
        grad_BDHW, h_BDHW: of one shape, type and layout.
        factors_BD: (B, N*d, 1, 1) in the activations' type, from `spread`.
        weight_BN, metric_Ndd: in float32, or in float64 for float64 activations.
    """
    num_subnns, width_d = metric_Ndd.shape[:2]
    # One by one in full precision alone: otherwise every sample would be converted to it and back.
    if _sample_by_sample(h_BDHW) and h_BDHW.dtype == metric_Ndd.dtype:
        for grad_NPd, factor_N1d, h_NPd, weighted_Ndd in zip(
            _samples(grad_BDHW, num_subnns),
            factors_BD.view(-1, num_subnns, 1, width_d).unbind(),
            _samples(h_BDHW, num_subnns),
            (weight_BN[:, :, None, None] * metric_Ndd).unbind(),
            strict=True,
        ):
            added_NPd = torch.bmm(h_NPd, weighted_Ndd)
            torch.addcmul(added_NPd, grad_NPd, factor_N1d, out=grad_NPd)
        return grad_BDHW
    return grad_BDHW.mul_(factors_BD).addcmul_(_apply(metric_Ndd, h_BDHW), spread(weight_BN, h_BDHW))


def spread(values_BN: torch.Tensor, h_BDHW: torch.Tensor) -> torch.Tensor:
    """Repeat one factor per subNN for each of its channels, (B, N*d, 1, 1), in the activations' type.

    Factors are clamped to the range of that type: a weak signal has large factors, which in float16 would become
    infinite, and infinity times zero is not a number.
    """
    limit = torch.finfo(h_BDHW.dtype).max
    values_BN = values_BN.clamp(-limit, limit).to(h_BDHW.dtype)
    batch, num_subnns = values_BN.shape
    return values_BN[:, :, None].expand(-1, -1, h_BDHW.shape[1] // num_subnns).reshape(batch, -1, 1, 1)


def _sample_by_sample(h_BDHW: torch.Tensor) -> bool:
    """Whether to take the samples one by one."""
    return (
        _in_rows(h_BDHW)
        and not torch.compiler.is_compiling()
        and h_BDHW.shape[1:].numel() >= SAMPLE_ELEMENTS
        and h_BDHW.shape[0] <= _MAX_SAMPLES
    )


def _in_rows(h_BDHW: torch.Tensor) -> bool:
    """Whether a CPU's matrix product can read the activations as they lie, as a row of channels per pixel.

    Exported programs have contiguous activations, so that no rule of this module depends on their free batch size.
    """
    return (
        h_BDHW.device.type == "cpu"
        and not h_BDHW.is_contiguous()
        and h_BDHW.is_contiguous(memory_format=torch.channels_last)
    )


def _pixels(h_BDHW: torch.Tensor) -> int:
    """Count the pixels of all samples: Q."""
    return h_BDHW.shape[0] * h_BDHW.shape[2] * h_BDHW.shape[3]


def _by_subnn(h_BDHW: torch.Tensor, num_subnns: int) -> torch.Tensor:
    """Split the activations by subNN, (B, N, d, P)."""
    batch, channels, height, width = h_BDHW.shape
    return h_BDHW.reshape(batch, num_subnns, channels // num_subnns, height * width)


def _samples(h_BDHW: torch.Tensor, num_subnns: int) -> tuple[torch.Tensor, ...]:
    """Views of channels_last samples, each (N, P, d)."""
    batch, _, height, width = h_BDHW.shape
    return h_BDHW.permute(0, 2, 3, 1).view(batch, height * width, num_subnns, -1).transpose(1, 2).unbind()


def _flat_samples(h_BDHW: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Views of channels_last samples, each (P*D,)."""
    return h_BDHW.permute(0, 2, 3, 1).view(len(h_BDHW), -1).unbind()


def _rows(h_BDHW: torch.Tensor) -> torch.Tensor:
    """View channels_last activations as a matrix, (B*P, D)."""
    return h_BDHW.permute(0, 2, 3, 1).flatten(0, 2)


def _images(rows_QC: torch.Tensor, like_BDHW: torch.Tensor) -> torch.Tensor:
    """View a matrix (B*P, C) as channels_last activations (B, C, H, W) with the B, H and W of ``like_BDHW``."""
    batch, _, height, width = like_BDHW.shape
    return rows_QC.view(batch, height, width, -1).permute(0, 3, 1, 2)


def _pieces(weight_CD: torch.Tensor, num_subnns: int) -> tuple[torch.Tensor, ...]:
    """Split weights by subNN, (N, C, d), and along C on a CPU: views that matrix products read without a copy."""
    outputs, channels = weight_CD.shape[:2]
    by_subnn = weight_CD.view(outputs, num_subnns, -1).transpose(0, 1)
    whole = weight_CD.device.type != "cpu" or torch.compiler.is_compiling()
    return by_subnn.split(outputs if whole else max(32, _CACHED_ELEMENTS // channels), dim=1)


def _apply(metric_Ndd: torch.Tensor, h_BDHW: torch.Tensor) -> torch.Tensor:
    """Compute ``M_n h_n`` of every sample and subNN, in the shape, layout and type of the activations."""
    metric_Ndd = metric_Ndd.to(h_BDHW.dtype)
    if h_BDHW.is_contiguous():
        return (metric_Ndd @ _by_subnn(h_BDHW, metric_Ndd.shape[0])).reshape(h_BDHW.shape)
    return functional.conv2d(h_BDHW, metric_Ndd.flatten(0, 1)[:, :, None, None], groups=metric_Ndd.shape[0])
