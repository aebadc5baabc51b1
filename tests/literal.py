"""The paper's equations (2) to (5) as they are written, with every subNN's output in memory; float64 in the tests."""

from __future__ import annotations

import torch
from torch.nn import functional


def literal_coded_sum(
    h: torch.Tensor,
    weight: torch.Tensor,
    table: torch.Tensor,
    targets: torch.Tensor,
    *,
    original_subnns: int,
    drop_mask: torch.Tensor | None = None,
    keep_mask: torch.Tensor | None = None,
    exponent: float = 4.0,
    threshold: float = 0.0,
    energy_norm: bool = True,
    concatenate: bool = False,
    gradient_masking: bool = False,
    eps: float = 0.0,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Sum over subNNs (B, C, H, W), energies E(tbar_n) (B, N) and coding loss, from h (B, N*d, H, W).

    With ``concatenate`` the weight is (C, d), of which each subNN has C / N rows, and the first result (B, C, H, W) are
    the outputs beside each other.
    """
    num_subnns = table.shape[1]
    batch, channels = h.shape[:2]
    d = channels // num_subnns
    outputs = []
    for n in range(num_subnns):
        part = slice(n * d, (n + 1) * d)
        rows = slice(n * len(weight) // num_subnns, (n + 1) * len(weight) // num_subnns)
        outputs.append(functional.conv2d(h[:, part], weight[rows] if concatenate else weight[:, part]))
    t = torch.stack(outputs, dim=1)  # (B, N, C, H, W)
    if keep_mask is not None:
        t = t * keep_mask.expand(batch, num_subnns)[:, :, None, None, None]
    energy = (t**2).mean(dim=(2, 3, 4))  # eq. 2
    average = energy.sum(dim=1) / original_subnns + eps
    t_bar = t / average.sqrt()[:, None, None, None, None] if energy_norm else t  # eq. 3
    energy_bar = (t_bar**2).mean(dim=(2, 3, 4))
    ratio = table[0].sum() / original_subnns
    errors = ((ratio * energy_bar - table[targets]).abs() - threshold).clamp(min=0)
    loss = (errors**exponent).mean(dim=1).mean()  # eq. 5
    if gradient_masking:  # appendix E, after the normalization
        active = table[targets][:, :, None, None, None].bool()
        t_bar = torch.where(active, t_bar, t_bar.detach())
    if drop_mask is not None:
        t_bar = t_bar * drop_mask[:, :, None, None, None]
    return t_bar.flatten(1, 2) if concatenate else t_bar.sum(dim=1), energy_bar, loss
