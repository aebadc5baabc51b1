"""Evaluation of a network on images (table 2, figure 4); the result is the same for any number of ranks."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from codedtool.budget import Progress
from codedtool.data import Normalization, Split, eval_batches, normalize
from codedtool.models.network import CodedNetwork
from codedtool.training.evidence import Collector, Evidence
from codedtool.training.recipe import Recipe
from codedtool.training.runtime import Runtime
from codedtool.training.totals import Totals, stacked

_REPORT_SECONDS = 0.5


@torch.no_grad()
def evaluate(
    network: CodedNetwork,
    split: Split,
    normalization: Normalization,
    recipe: Recipe,
    runtime: Runtime,
    *,
    crop_part: float,
    progress: Progress,
    see: Callable[[torch.Tensor, torch.Tensor], None] | None = None,
    collector: Collector | None = None,
) -> dict[str, Any]:
    """Measure accuracy, losses and early decoders, without dropSubNNs, padding or test-time augmentation.

    Args:
        network: the network; it is evaluated in evaluation mode and then put back into its mode.
        split: the images; the ranks share them, and each image is used once.
        normalization: normalization of the images that the network was trained on.
        recipe: gives eval_size, batch_size and micro_batch.
        runtime: the device of the network.
        crop_part: the run's `crop_part`.
        progress: called with the state of the work.
        see: called with the logits (B, K) and the classes (B,) of every batch of this rank; None: not needed.
        collector: collects the evidence for predictions; None: not needed.

    Returns:
        `Totals.means` over all ranks, with the accuracy of every early decoder.
    """
    was_training = network.training
    network.eval()
    totals = Totals(network.block_names, runtime.device, decoders=True)
    seen, reported = 0, time.monotonic()
    batches = eval_batches(
        split,
        size=recipe.eval_size,
        crop_part=crop_part,
        batch_size=min(recipe.batch_size, recipe.images_at_once * runtime.world_size),
        rank=runtime.rank,
        world_size=runtime.world_size,
        num_workers=runtime.num_workers,
        pin_memory=runtime.pin_memory,
    )
    for images, targets, indices in batches:
        images_BCHW, targets_B = normalize(runtime.put(images), normalization), runtime.put(targets)
        with runtime.autocast():
            output = network(images_BCHW, targets_B)
        logits_BK = output.logits.float()
        loss = functional.cross_entropy(logits_BK, targets_B) if len(targets) else logits_BK.sum()
        decoded = network.decode(output.energies)
        totals.add(loss, stacked(output.coding_losses, loss), logits_BK, targets_B, decoded)
        if see is not None and len(targets):
            see(logits_BK, targets_B)
        if collector is not None and len(targets):
            collector.see(logits_BK, output.energies, decoded, targets_B, runtime.put(indices))
        runtime.mark()
        seen += len(targets) * runtime.world_size
        if time.monotonic() - reported > _REPORT_SECONDS:
            reported = time.monotonic()
            progress("evaluating", min(seen, len(split)), len(split))
    network.train(was_training)
    return totals.means(runtime.sum(totals.sums))


def collect_evidence(
    network: CodedNetwork,
    split: Split,
    normalization: Normalization,
    recipe: Recipe,
    runtime: Runtime,
    *,
    crop_part: float,
    progress: Progress,
) -> tuple[dict[str, Any], Evidence]:
    """Evaluate a network, and collect the evidence for its predictions (`codedtool.training.evidence`).

    Args:
        network, split, normalization, recipe, runtime, crop_part, progress: as for `evaluate`.

    Returns:
        The result of `evaluate`, and the evidence of all ranks.
    """
    collector = Collector(network, len(split), runtime.device)
    means = evaluate(
        network,
        split,
        normalization,
        recipe,
        runtime,
        crop_part=crop_part,
        progress=progress,
        collector=collector,
    )
    return means, collector.evidence(runtime.sum(collector.values), recipe.eval_size)
