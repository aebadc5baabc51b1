"""What a network costs, counted: parameters, multiply-adds, and what autograd keeps of an image."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from codedtool.models.network import CodedNetwork


def count_parameters(network: CodedNetwork, *, projections: bool = True) -> int:
    """Number of parameters of a network, with or without the 1x1 convolutions of its projection shortcuts."""
    total = sum(parameter.numel() for parameter in network.parameters())
    if projections:
        return total
    return total - sum(
        module.weight.numel()
        for block in network.blocks
        for module in block.shortcut.modules()
        if isinstance(module, nn.Conv2d)
    )


@torch.no_grad()
def count_macs(forward: Callable[[torch.Tensor], Any], images_BCHW: torch.Tensor) -> int:
    """Multiply-adds of ``forward`` for one image more, counted by torch: those of convolutions and matrix products.

    What is done once for a batch of any size, ``W_n^T W_n`` of the coded blocks, is not counted.

    Args:
        forward: takes images, or features of a block.
        images_BCHW: the first one is used.
    """
    totals = []
    for number in (1, 2):
        counter = FlopCounterMode(display=False)
        with counter:
            forward(images_BCHW[:1].expand(number, -1, -1, -1).contiguous())
        totals.append(int(counter.get_total_flops()))
    return (totals[1] - totals[0]) // 2


@contextmanager
def in_training(network: nn.Module) -> Iterator[None]:
    """Within it, the network is in training mode. Then its mode and BatchNorm's running statistics are as before."""
    was_training = network.training
    saved = [buffer.clone() for buffer in network.buffers()]
    network.train()
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, before in zip(network.buffers(), saved, strict=True):
                buffer.copy_(before)
        network.train(was_training)


def count_kept_bytes(network: CodedNetwork, images_BCHW: torch.Tensor) -> int:
    """Bytes that autograd keeps per image for the backward pass, without parameters and inputs."""
    known = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    known.add(images_BCHW.untyped_storage().data_ptr())
    sizes: dict[int, int] = {}
    # Holding the storages keeps their addresses from being reused.
    held: list[torch.UntypedStorage] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known and storage.data_ptr() not in sizes:
            sizes[storage.data_ptr()] = storage.nbytes()
            held.append(storage)
        return tensor

    targets = torch.zeros(len(images_BCHW), dtype=torch.int64, device=images_BCHW.device)
    with in_training(network), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = network(images_BCHW, targets)
        training_loss(output, targets)
    return sum(sizes.values()) // len(images_BCHW)


def training_loss(output: Any, targets: torch.Tensor) -> torch.Tensor:
    """The loss of a training step: cross-entropy, binary for a single logit, and the coding losses."""
    if output.logits.shape[1] == 1:
        return functional.binary_cross_entropy_with_logits(output.logits[:, 0], targets.to(output.logits.dtype))
    loss = functional.cross_entropy(output.logits, targets)
    return loss + sum(output.coding_losses) if output.coding_losses else loss
