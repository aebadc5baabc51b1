"""Memory that the training of a network takes for each image."""

from __future__ import annotations

import torch
from torch.nn import functional

from codedtool.models.network import CodedNetwork, Output


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

    was_training = network.training
    network.train()
    targets = torch.zeros(len(images_BCHW), dtype=torch.int64, device=images_BCHW.device)
    # This pass must not change BatchNorm's running statistics: they are restored below.
    saved = {key: value.clone() for key, value in network.state_dict().items()}
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = network(images_BCHW, targets)
        training_loss(output, targets)
    network.load_state_dict(saved)
    network.train(was_training)
    return sum(sizes.values()) // len(images_BCHW)


def training_loss(output: Output, targets: torch.Tensor) -> torch.Tensor:
    """Sum of the classification loss and the coding losses; of a binary classifier, its binary cross-entropy."""
    if output.logits.shape[1] == 1:
        return functional.binary_cross_entropy_with_logits(output.logits[:, 0], targets.to(output.logits.dtype))
    loss = functional.cross_entropy(output.logits, targets)
    return loss + sum(output.coding_losses) if output.coding_losses else loss
