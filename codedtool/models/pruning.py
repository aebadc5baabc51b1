"""Binary classifiers cut from a network: the subNNs of one class and its row of the linear layer (section 4.3)."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import nn

from codedtool.coding.scheme import CodingScheme
from codedtool.errors import InputError
from codedtool.models.blocks import Block
from codedtool.models.coded_sum import CodedConcatenation, CodedSum
from codedtool.models.network import CodedNetwork
from codedtool.models.places import scheme_at


def keep_masks_of_class(network: CodedNetwork, class_index: int) -> dict[int, torch.Tensor]:
    """Build `CodedNetwork.forward`'s keep masks that leave only the subNNs of one class in every coded block."""
    return {number: block.coded_sum.scheme_KN[class_index] for number, block in enumerate(network.coded_blocks)}


def path_schemes(network: CodedNetwork, schemes: Mapping[str, CodingScheme] | None = None) -> dict[int, CodingScheme]:
    """Find the scheme that marks each class's subNNs, for every block that has one.

    Args:
        network: a coded or plain network.
        schemes: place -> scheme, needed to cut binary classifiers from a plain network (section 4.3); None: the
            network's own schemes.

    Returns:
        Number of the block (from 0, among all blocks) -> its scheme.

    Raises:
        InputError: a scheme with another N or K than the network.
    """
    found = {}
    for number, block in enumerate(network.blocks):
        scheme = scheme_at(network.schemes if schemes is None else schemes, block.stage, block.number)
        if scheme is None:
            continue
        if scheme.length != block.num_subnns or scheme.num_classes != network.num_classes:
            raise InputError(
                f"the scheme of block {block.name} has N={scheme.length} and K={scheme.num_classes}, the network "
                f"N={block.num_subnns} and K={network.num_classes}; the two must be equal"
            )
        found[number] = scheme
    return found


def extract_binary_classifier(
    network: CodedNetwork, class_index: int, *, schemes: Mapping[str, CodingScheme] | None = None
) -> CodedNetwork:
    """Copy ``network`` without the subNNs that are inactive for a class, and with the logit of that class only.

    Stem, plain stages and shortcuts are copied whole. The mean energy is still taken over the original N, so the output
    equals logit ``class_index`` of the whole network with `keep_masks_of_class`.

    Args:
        network: the trained network, in evaluation mode (BatchNorm statistics are copied).
        class_index: the class, 0..K-1.
        schemes: as for `path_schemes`.

    Raises:
        InputError: no such class, or schemes that do not fit.
    """
    if not 0 <= class_index < network.num_classes:
        raise InputError(f"class {class_index} does not exist: classes are 0 to {network.num_classes - 1}")
    paths = path_schemes(network, schemes)
    # Modules replaced below are not copied.
    kept = {id(network.blocks[number]): network.blocks[number] for number in paths} | {id(network.fc): network.fc}
    smaller = copy.deepcopy(network, memo=dict(kept))
    for number, scheme in paths.items():
        smaller.block_list[number] = copy.deepcopy(prune_block(network.blocks[number], scheme, class_index))
    smaller.fc = class_row(network, class_index)
    smaller.num_classes = 1
    return smaller


def class_row(network: CodedNetwork, class_index: int) -> nn.Linear:
    """Copy the row of the linear layer that computes one class's logit."""
    row = network.fc.weight.detach()[class_index : class_index + 1]
    # On the "meta" device no random weights are drawn; they would be replaced at once.
    linear = nn.Linear(row.shape[1], 1, bias=False, device="meta")
    linear.weight = nn.Parameter(row.clone())
    return linear.train(network.fc.training)


def prune_block(block: Block, scheme: CodingScheme, class_index: int) -> Block:
    """Make a block with the subNNs of one class only; it shares shortcut and last BatchNorm with ``block``."""
    active = [subnn for subnn, bit in enumerate(scheme.table[class_index].tolist()) if bit]
    channels_D = active_channels(block, scheme, class_index)
    replaced: tuple[nn.Module, ...] = (block.reduce, block.reduce_bn, block.grouped, block.grouped_bn, block.expand)
    shared: tuple[nn.Module, ...] = (block.shortcut, block.expand_bn)
    smaller = copy.deepcopy(block, memo={id(module): module for module in (*replaced, *shared)})
    # Only plain blocks that cannot be coded (MobileNetV2's first) begin without a convolution.
    assert isinstance(block.reduce, nn.Conv2d)
    assert isinstance(block.reduce_bn, nn.BatchNorm2d)
    smaller.reduce = _slice_conv(block.reduce, outputs=channels_D)
    smaller.reduce_bn = _slice_bn(block.reduce_bn, channels_D)
    smaller.grouped = _slice_conv(block.grouped, outputs=channels_D)
    smaller.grouped_bn = _slice_bn(block.grouped_bn, channels_D)
    smaller.expand = _prune_end(block.expand, active, channels_D)
    return smaller


def _prune_end(end: nn.Conv2d | CodedSum, active: list[int], channels_D: torch.Tensor) -> nn.Conv2d | CodedSum:
    """Make the end of a block that reads the channels of the active subNNs only."""
    if isinstance(end, nn.Conv2d):
        return _slice_conv(end, inputs=channels_D)
    smaller = copy.deepcopy(end, memo={id(end.conv): end.conv})
    smaller.num_present = len(active)
    smaller.scheme_KN = end.scheme_KN[:, active]
    if isinstance(smaller, CodedConcatenation):
        smaller.present = torch.tensor(active, device=smaller.present.device)
        smaller.conv = _slice_conv(end.conv, outputs=_spread(active, end.conv.out_channels // end.num_subnns))
    else:
        smaller.conv = _slice_conv(end.conv, inputs=channels_D)
    return smaller


def active_channels(block: Block, scheme: CodingScheme, class_index: int) -> torch.Tensor:
    """List the block's bottleneck channels that belong to the subNNs of a class, (N_act*d,) int64."""
    active = [subnn for subnn, bit in enumerate(scheme.table[class_index].tolist()) if bit]
    return _spread(active, block.grouped.out_channels // block.num_subnns).to(block.grouped.weight.device)


def _spread(active: list[int], width: int) -> torch.Tensor:
    """List the channels of the given subNNs, ``width`` per subNN."""
    return (torch.tensor(active)[:, None] * width + torch.arange(width)).flatten()


def _slice_conv(
    conv: nn.Conv2d, *, outputs: torch.Tensor | None = None, inputs: torch.Tensor | None = None
) -> nn.Conv2d:
    """Cut a convolution to the given input and output channels; a grouped one keeps the groups of its outputs."""
    weight = conv.weight.detach()
    groups = conv.groups
    if outputs is not None:
        weight = weight[outputs.to(weight.device)]
        groups = groups * len(outputs) // conv.out_channels if groups > 1 else 1
    if inputs is not None:
        weight = weight[:, inputs.to(weight.device)]
    sliced = nn.Conv2d(
        weight.shape[1] * groups,
        weight.shape[0],
        weight.shape[2],
        stride=conv.stride[0],
        padding=int(conv.padding[0]),
        groups=groups,
        bias=False,
        device="meta",
    )
    # Indexing made a copy, which keeps the network's memory layout (channels last).
    sliced.weight = nn.Parameter(weight)
    return sliced.train(conv.training)


def _slice_bn(bn: nn.BatchNorm2d, channels: torch.Tensor) -> nn.BatchNorm2d:
    """Cut a BatchNorm to the given channels."""
    sliced = nn.BatchNorm2d(len(channels), eps=bn.eps, momentum=bn.momentum, device="meta")
    state = {key: value if value.ndim == 0 else value[channels] for key, value in bn.state_dict().items()}
    sliced.load_state_dict(state, assign=True)
    return sliced.train(bn.training)
