"""Early exit (section 4.4): an image stops at the first coded block that is sure, and costs no more computation.

A coded block is sure by its energies alone. They come from the bottleneck, so an image that stops there needs neither
the block's last convolution nor its shortcut.

Shape suffixes: n images of a split, B of a batch, K classes, N subNNs, L coded blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from codedtool.analysis.cost import count_macs
from codedtool.errors import InputError
from codedtool.models.network import CodedNetwork
from codedtool.training.subject import Outputs


@dataclass(frozen=True)
class ExitRule:
    """The condition under which an image stops before the last block.

    Attributes:
        kind: "agree": stop if the last ``value`` early decoders predict the same class. "margin": stop if the nearest
            codeword leads the second nearest by at least ``value``. The lead is the difference of the codewords' inner
            products with the energies scaled to sum N_act, divided by N_act: 0 is a tie, and 1 is the largest possible.
        value: number of decoders, an integer from 1; or a margin, 0..1.
    """

    kind: Literal["agree", "margin"]
    value: float

    @classmethod
    def parse(cls, text: str) -> ExitRule:
        """Read a rule from text: agree:M or margin:X.

        Raises:
            InputError: ``text`` has another form, M is below 1, or X is outside 0..1.

        Example:
            >>> ExitRule.parse("agree:2")
            ExitRule(kind='agree', value=2)
            >>> ExitRule.parse("margin:0.1")
            ExitRule(kind='margin', value=0.1)
        """
        kind, _, value = text.partition(":")
        try:
            number = float(value)
            if kind == "agree" and number >= 1 and number == int(number):
                return cls("agree", int(number))
            if kind == "margin" and 0 <= number <= 1:
                return cls("margin", number)
        except (ValueError, OverflowError):
            pass
        raise InputError(f"`rules` {text!r} is neither agree:M with M from 1 nor margin:X with X from 0 to 1")

    def __str__(self) -> str:
        return f"{self.kind}:{self.value!r}".removesuffix(".0")


def margins(energies_BN: torch.Tensor, scheme_KN: torch.Tensor) -> torch.Tensor:
    """The lead of the nearest codeword over the second nearest, as `ExitRule` defines it (section 4.4).

    Args:
        energies_BN: (B, N) energies of a coded block, at least 0; only their ratios matter.
        scheme_KN: (K, N) codewords of 0 and 1.

    Returns:
        (B,) margins, 0..1; 0 if all energies are 0.

    Example:
        >>> scheme = torch.tensor([[1, 1, 0, 0], [0, 0, 1, 1]])
        >>> margins(torch.tensor([[3.0, 3.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]]), scheme)
        tensor([1., 0.])
    """
    scheme_KN = scheme_KN.to(energies_BN.dtype)
    act = scheme_KN[0].sum()
    scaled_BN = energies_BN * (act / energies_BN.sum(1, keepdim=True).clamp_min(1e-12))
    highest_B2 = (scaled_BN @ scheme_KN.T).topk(2, dim=1).values
    return (highest_B2[:, 0] - highest_B2[:, 1]) / act


# Part of a batch that must have stopped before it leaves. Copying the others costs about as much as this part of the
# blocks that follow.
_LEAVING = 1 / 16


class _Watch:
    """Follows the early decoders of a batch from block to block and tells which images satisfy the rule."""

    def __init__(self, rule: ExitRule) -> None:
        self._rule = rule
        self._last_B: torch.Tensor | None = None
        self._streak_B: torch.Tensor | None = None

    def stops(self, energies_BN: torch.Tensor, classes_B: torch.Tensor, scheme_KN: torch.Tensor) -> torch.Tensor:
        """(B,) bool: the images that stop after this coded block."""
        if self._rule.kind == "margin":
            return margins(energies_BN, scheme_KN) >= self._rule.value
        if self._last_B is None or self._streak_B is None:
            streak_B = torch.ones_like(classes_B)
        else:
            streak_B = torch.where(classes_B == self._last_B, self._streak_B + 1, 1)
        self._last_B, self._streak_B = classes_B, streak_B
        # A tensor cannot be compared with numbers of more than 64 bits; no network has 2^31 blocks.
        return streak_B >= min(self._rule.value, 2**31)

    def keep(self, going: torch.Tensor) -> None:
        """Keep only the images of these places in the batch, which have not stopped."""
        if self._last_B is not None and self._streak_B is not None:
            self._last_B, self._streak_B = self._last_B[going], self._streak_B[going]


@torch.no_grad()
def predict_with_exit(
    network: CodedNetwork, images_BCHW: torch.Tensor, rule: ExitRule
) -> tuple[torch.Tensor, torch.Tensor]:
    """Predict with early exit (section 4.4): images that satisfy the rule stop there.

    They leave the batch, and cost no more computation, as soon as they are a sixteenth of it.

    Args:
        network: a coded network in evaluation mode.
        images_BCHW: (B, 3, H, W) normalized images.
        rule: the condition to stop.

    Returns:
        (B,) int64 classes; and (B,) int64 numbers of the coded blocks (from 0) that gave them, L for the linear layer.
    """
    device = images_BCHW.device
    answers_B = torch.empty(len(images_BCHW), dtype=torch.int64, device=device)
    exits_B = torch.full_like(answers_B, len(network.block_names))
    # Images of the batch, and which of them go on; those that stopped leave together.
    rows_B = torch.arange(len(images_BCHW), device=device)
    going_B = torch.ones_like(rows_B, dtype=torch.bool)
    watch = _Watch(rule)
    features, number = network.stem(images_BCHW), 0
    for block in network.blocks:
        if not block.is_coded:
            features = block(features).features
            continue
        h, coded_sum = block.bottleneck(features), block.coded_sum
        energies_BN, scale_B1 = coded_sum.energies(h)
        classes_B = block.decode(energies_BN)
        stops_B = watch.stops(energies_BN, classes_B, coded_sum.scheme_KN) & going_B
        answers_B[rows_B[stops_B]] = classes_B[stops_B]
        exits_B[rows_B[stops_B]] = number
        number += 1
        going_B &= ~stops_B
        left = int(going_B.sum())
        if not left:
            return answers_B, exits_B
        if left <= (1 - _LEAVING) * len(rows_B):
            going = going_B.nonzero()[:, 0]
            rows_B, going_B, scale_B1 = rows_B[going], going_B[going], scale_B1[going]
            h, features = _rows_of(h, going), _rows_of(features, going)
            watch.keep(going)
        features = block.finish(coded_sum.sum(h, scale_B1, block.expand_bn), block.shortcut(features))
    going = going_B.nonzero()[:, 0]
    answers_B[rows_B[going]] = network.head(features[going]).argmax(1)
    return answers_B, exits_B


def _rows_of(features_BCHW: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Some images of a batch, in the batch's memory layout, which index_select would give up."""
    if features_BCHW.is_contiguous():
        return features_BCHW.index_select(0, rows)
    return features_BCHW.permute(0, 2, 3, 1).index_select(0, rows).permute(0, 3, 1, 2)


def exits_of(outputs: Outputs, schemes_KN: list[torch.Tensor], rule: ExitRule) -> tuple[torch.Tensor, torch.Tensor]:
    """The result of `predict_with_exit`, from outputs of the whole network: exits depend on the energies alone."""
    answers_n, exits_n = outputs.predictions.clone(), torch.full_like(outputs.targets, len(schemes_KN))
    watch = _Watch(rule)
    going_n = torch.ones_like(outputs.targets, dtype=torch.bool)
    for number, (energies_nN, scheme_KN) in enumerate(zip(outputs.energies, schemes_KN, strict=True)):
        stops_n = watch.stops(energies_nN, outputs.decoded[:, number], scheme_KN) & going_n
        answers_n[stops_n] = outputs.decoded[stops_n, number]
        exits_n[stops_n] = number
        going_n &= ~stops_n
    return answers_n, exits_n


def exit_macs(network: CodedNetwork, image_1CHW: torch.Tensor) -> list[int]:
    """Multiply-adds per image up to each coded block's answer, in order, then those of the whole network."""
    found, total = [], count_macs(network.stem, image_1CHW)
    with torch.no_grad():
        features = network.stem(image_1CHW)
        for index, block in enumerate(network.blocks):
            if block.is_coded:
                decided = count_macs(lambda x, block=block: block.coded_sum.energies(block.bottleneck(x)), features)  # type: ignore[misc]
                found.append(total + decided)
            total += count_macs(lambda x, index=index: network.run_block(index, x), features)  # type: ignore[misc]
            features = network.run_block(index, features).features
    return [*found, total + count_macs(network.head, features)]
