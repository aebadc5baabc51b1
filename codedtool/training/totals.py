"""Sums of losses and hits over an epoch's images, kept on the device so that no step waits for the host."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from codedtool.errors import CodedtoolError


class DivergedError(CodedtoolError):
    """The loss or the weights are not finite. Exit code 3."""

    exit_code = 3


class Totals:
    """Running sums of losses and hits over images; the sums of several ranks can be added up.

    Args:
        blocks: names of the coded blocks, in order.
        device: device of the sums.
        decoders: also count the hits of the early decoders.

    Attributes:
        sums: one float64 vector: images, hits, classification loss, the coding loss of every block, and with
            ``decoders`` the early decoder's hits of every block.
    """

    def __init__(self, blocks: Sequence[str], device: torch.device, *, decoders: bool) -> None:
        self.blocks = tuple(blocks)
        self._decoders = decoders
        self.sums = torch.zeros(3 + len(self.blocks) * (2 if decoders else 1), dtype=torch.float64, device=device)

    def add(
        self,
        loss: torch.Tensor,
        coding_losses: torch.Tensor,
        logits_BK: torch.Tensor,
        targets_B: torch.Tensor,
        decoded: Sequence[torch.Tensor] = (),
    ) -> None:
        """Add a batch.

        Args:
            loss: scalar classification loss, mean over the batch.
            coding_losses: (number of blocks,) coding losses, means over the batch.
            logits_BK: (B, K).
            targets_B: (B,) int64 classes.
            decoded: per block, the (B,) classes that its early decoder predicts.
        """
        num_images = targets_B.shape[0]
        hits = (logits_BK.argmax(1) == targets_B).sum()
        parts = [
            torch.full((1,), num_images, device=loss.device),
            hits.reshape(1),
            loss.detach().reshape(1) * num_images,
            coding_losses.detach() * num_images,
            *((classes_B == targets_B).sum().reshape(1) for classes_B in decoded),
        ]
        self.sums += torch.cat([part.to(torch.float64) for part in parts])

    def means(self, sums: torch.Tensor | None = None) -> dict[str, Any]:
        """Compute means over images, as Python numbers; waits for the device.

        Args:
            sums: sums over all ranks; None: this rank's own sums.

        Returns:
            ``num_images``, ``accuracy``, ``loss``, ``coding_loss`` (block -> value) and, if counted,
            ``decoder_accuracy`` (block -> value).
        """
        values = (self.sums if sums is None else sums).tolist()
        num_images = max(values[0], 1.0)
        blocks = len(self.blocks)
        result: dict[str, Any] = {
            "num_images": int(values[0]),
            "accuracy": values[1] / num_images,
            "loss": values[2] / num_images,
            "coding_loss": {
                name: value / num_images for name, value in zip(self.blocks, values[3 : 3 + blocks], strict=True)
            },
        }
        if self._decoders:
            hits = values[3 + blocks :]
            result["decoder_accuracy"] = {name: hit / num_images for name, hit in zip(self.blocks, hits, strict=True)}
        return result


class FiniteWatch:
    """Watch that remembers, on the device, the first step with a loss that is not finite, and the term.

    Args:
        blocks: names of the coded blocks, in order.
        device: device of the losses.
    """

    def __init__(self, blocks: Sequence[str], device: torch.device) -> None:
        self._terms = ("classification loss", *(f"coding loss of block {name}" for name in blocks))
        self._step = torch.zeros((), dtype=torch.int64, device=device)
        self._bad_step = torch.full((), -1, dtype=torch.int64, device=device)
        self._bad_terms = torch.zeros(len(self._terms), dtype=torch.bool, device=device)

    def see(self, loss: torch.Tensor, coding_losses: torch.Tensor) -> None:
        """Check the loss terms of one forward pass; does not wait for the device."""
        bad_terms = ~torch.isfinite(torch.cat([loss.detach().reshape(1), coding_losses.detach()]))
        first = (self._bad_step < 0) & bad_terms.any()
        self._bad_step = torch.where(first, self._step, self._bad_step)
        self._bad_terms = torch.where(first, bad_terms, self._bad_terms)

    def next_step(self) -> None:
        """Count an optimizer step."""
        self._step = self._step + 1

    def first_bad(self) -> tuple[int, str] | None:
        """Find the first loss that was not finite; waits for the device.

        Returns:
            The number of steps before it and the name of its term, or None if all losses were finite. If several terms
            were bad, a coding loss is named, because it is computed earlier in the network.
        """
        step = int(self._bad_step.item())
        if step < 0:
            return None
        flags = self._bad_terms.tolist()
        bad = [name for name, flag in zip(self._terms, flags, strict=True) if flag]
        return step, bad[1] if len(bad) > 1 else bad[0]


def all_finite(tensors: Sequence[torch.Tensor]) -> bool:
    """Whether all floating tensors are finite; waits for the device once."""
    flags = [torch.isfinite(tensor).all() for tensor in tensors if tensor.is_floating_point()]
    return bool(torch.stack(flags).all().item())


def stacked(losses: Sequence[torch.Tensor], like: torch.Tensor) -> torch.Tensor:
    """Stack scalar losses into a float32 vector, which is empty for a network without coded blocks.

    Args:
        like: tensor whose device an empty vector gets.
    """
    return torch.stack([loss.float() for loss in losses]) if len(losses) else like.new_zeros(0, dtype=torch.float32)
