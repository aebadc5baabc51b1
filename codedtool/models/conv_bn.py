"""A convolution and its BatchNorm: two passes in training, one convolution in evaluation on a CPU."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


def conv_bn(conv: nn.Module, bn: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Compute ``bn(conv(x))``.

    In evaluation BatchNorm is one factor and one summand per channel. Without gradients, on a CPU, the factors go into
    the convolution's weights and the summands become its bias: BatchNorm's pass over the output, which waits for
    memory, is saved. The weights are far fewer than the output, so they are multiplied anew in every call. That leaves
    nothing to keep up to date.

    Args:
        conv: a convolution without bias, or `nn.Identity`.
        bn: its BatchNorm, or `nn.Identity`.
        x: (B, C_in, H, W).

    Returns:
        (B, C_out, H', W'), a tensor of its own unless both modules are `nn.Identity`.
    """
    if not is_folded(conv, bn, x):
        return bn(conv(x))
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(bn, nn.BatchNorm2d)
    assert bn.running_mean is not None
    assert bn.running_var is not None
    factors_C = bn.weight * (bn.running_var + bn.eps).rsqrt()
    weight = conv.weight * factors_C[:, None, None, None]
    bias_C = bn.bias - bn.running_mean * factors_C
    return functional.conv2d(x, weight, bias_C, conv.stride, conv.padding, conv.dilation, conv.groups)


def is_folded(conv: nn.Module, bn: nn.Module | None, x: torch.Tensor) -> bool:
    """Whether `conv_bn` computes both modules in one convolution."""
    return (
        isinstance(conv, nn.Conv2d)
        and isinstance(bn, nn.BatchNorm2d)
        and not bn.training
        and not torch.is_grad_enabled()
        and x.device.type == "cpu"
        # The compiler folds by itself, and an exported graph shows both layers.
        and not torch.compiler.is_compiling()
        # A hook waits for its own layer.
        and not any(layer._forward_hooks or layer._forward_pre_hooks for layer in (conv, bn))
    )


class ConvBN(nn.Sequential):
    """A convolution, its BatchNorm, and what may follow them, as `conv_bn` computes the first two."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Run all modules on ``x`` (B, C_in, H, W)."""
        x = conv_bn(self[0], self[1], x)
        for module in list(self)[2:]:
            x = module(x)
        return x
