"""A binary classifier as a smaller network: one class's subNNs and one row of the linear layer (section 4.3)."""

from __future__ import annotations

import copy

import torch
from torch import nn

from codedtool.errors import InputError
from codedtool.models.coded_sum import CodedSum
from codedtool.models.network import CodedResNeXt


def keep_masks_of_class(network: CodedResNeXt, class_index: int) -> dict[int, torch.Tensor]:
    """For `CodedResNeXt.forward`: in every coded block only the subNNs of one class stay."""
    masks = {}
    for number, block in enumerate(network.coded_blocks):
        assert isinstance(block.expand, CodedSum)
        masks[number] = block.expand.scheme_KN[class_index]
    return masks


def extract_binary_classifier(network: CodedResNeXt, class_index: int) -> CodedResNeXt:
    """A copy of ``network`` without the subNNs that are inactive for a class, and with its logit only.

    Stem, uncoded stages and shortcuts are whole; N stays the original N in the energy average, so the output equals
    logit ``class_index`` of the network with `keep_masks_of_class`.

    Args:
        network: coded, in evaluation mode (its BatchNorm statistics are copied).
        class_index: 0..K-1.

    Raises:
        InputError: no such class.
    """
    if not 0 <= class_index < network.num_classes:
        raise InputError(f"class {class_index} does not exist: classes are 0 to {network.num_classes - 1}")
    smaller = copy.deepcopy(network)
    for block in smaller.coded_blocks:
        coded_sum = block.expand
        assert isinstance(coded_sum, CodedSum)
        active_N = coded_sum.scheme_KN[class_index].bool()
        channels_D = active_N.repeat_interleave(block.reduce.out_channels // block.num_subnns).nonzero().flatten()
        block.reduce = _slice_conv(block.reduce, outputs=channels_D)
        block.reduce_bn = _slice_bn(block.reduce_bn, channels_D)
        block.grouped = _slice_conv(block.grouped, outputs=channels_D, groups=int(active_N.sum()))
        block.grouped_bn = _slice_bn(block.grouped_bn, channels_D)
        coded_sum.conv = _slice_conv(coded_sum.conv, inputs=channels_D)
        coded_sum.num_present = int(active_N.sum())
        coded_sum.scheme_KN = coded_sum.scheme_KN[:, active_N]
    row = smaller.fc.weight.detach()[class_index : class_index + 1]
    smaller.fc = nn.Linear(row.shape[1], 1, bias=False, device=row.device, dtype=row.dtype)
    smaller.fc.weight = nn.Parameter(row.clone())
    smaller.num_classes = 1
    return smaller


def _slice_conv(
    conv: nn.Conv2d,
    *,
    outputs: torch.Tensor | None = None,
    inputs: torch.Tensor | None = None,
    groups: int = 1,
) -> nn.Conv2d:
    """The convolution from and to the given channels only; the inputs of a grouped one go with its outputs."""
    weight = conv.weight.detach()
    if outputs is not None:
        weight = weight[outputs]
    if inputs is not None:
        weight = weight[:, inputs]
    sliced = nn.Conv2d(
        weight.shape[1] * groups,
        weight.shape[0],
        weight.shape[2],
        stride=conv.stride[0],
        padding=int(conv.padding[0]),
        groups=groups,
        bias=False,
        device=weight.device,
        dtype=weight.dtype,
    )
    sliced.weight = nn.Parameter(weight.clone())
    return sliced


def _slice_bn(bn: nn.BatchNorm2d, channels: torch.Tensor) -> nn.BatchNorm2d:
    """The BatchNorm of the given channels."""
    sliced = nn.BatchNorm2d(len(channels), eps=bn.eps, momentum=bn.momentum, device=bn.weight.device)
    sliced.load_state_dict(
        {key: value if value.ndim == 0 else value[channels] for key, value in bn.state_dict().items()}
    )
    return sliced.train(bn.training)
