"""Early decoders (section 4.4): accuracy of every block (figure 4), agreement (table 3) and early exits.

Shape suffixes: n images of a split, B of a batch, K classes, N subNNs, L coded blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch

from codedtool.analysis.artifacts import artifact_path
from codedtool.analysis.cost import compare_speed, count_macs
from codedtool.analysis.result import Result, Rows, Table, percent
from codedtool.budget import Progress, silent
from codedtool.errors import InputError
from codedtool.files import read_json
from codedtool.models.network import CodedNetwork
from codedtool.training.subject import Outputs, Subject

# The margins that are always measured. A margin is at most 1; with 0, every image stops at the first coded block.
_MARGINS = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6)

# Number of images in the timed batch.
_TIMED_IMAGES = {"cpu": 64, "cuda": 512}


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


@dataclass(frozen=True)
class Agreement:
    """One row of table 3.

    Attributes:
        agreeing: number of early decoders that agree with the final prediction, 0..L.
        num_images: number of images with this number of agreeing decoders.
        accuracy: share of these images with a right final prediction, 0..1; None without images.
    """

    agreeing: int
    num_images: int
    accuracy: float | None


@dataclass(frozen=True)
class ExitPoint:
    """The measurements of one rule on the validation images.

    Attributes:
        rule: the rule as text, in the form of `ExitRule.parse`.
        accuracy: share of right answers, early or final, 0..1.
        macs: mean multiply-adds per image.
        macs_ratio: ``macs`` divided by the multiply-adds of the whole network.
        time_ratio: measured time divided by that of the whole network; both are timed in turn.
        exits: share of images that stop at each coded block, then the share that goes through the whole network, 0..1.
    """

    rule: str
    accuracy: float
    macs: float
    macs_ratio: float
    time_ratio: float
    exits: tuple[float, ...]


@dataclass(frozen=True)
class DecodeResult(Result):
    """Figure 4, table 3 and the early exits of a run.

    Attributes:
        checkpoint, data, image_size: the checkpoint, the data set and the image size in pixels that were measured.
        num_images: number of validation images.
        accuracy: accuracy of the final prediction, 0..1.
        decoder_accuracy: accuracy of the early decoder of every coded block, 0..1, by the block's name.
        agreement: rows of table 3, from 0 to L agreeing decoders.
        exits: measured early exits. The requested rules come last.
    """

    checkpoint: str
    data: str
    image_size: int
    num_images: int
    accuracy: float
    decoder_accuracy: dict[str, float]
    agreement: tuple[Agreement, ...]
    exits: tuple[ExitPoint, ...]

    @property
    def name(self) -> str:
        return "decode"

    def lines(self) -> tuple[str, ...]:
        return (
            f"The network's accuracy is {self.accuracy:.2%} on {self.num_images} images.",
            "agree:M stops an image once its last M early decoders predict the same class; margin:X once the nearest "
            "codeword leads the second nearest by X (0: a tie, 1: the largest possible lead).",
        )

    def tables(self) -> tuple[Table, ...]:
        return (
            Table(
                "Accuracy of the early decoders, %",
                ("block", "accuracy"),
                tuple((name, percent(value)) for name, value in self.decoder_accuracy.items()),
            ),
            Table(
                "Accuracy of the final answer by the number of early decoders that agree with it, %",
                ("decoders that agree", "images", "accuracy"),
                tuple((str(row.agreeing), f"{row.num_images:,}", percent(row.accuracy)) for row in self.agreement),
            ),
            Table(
                "Early exits: accuracy, and cost in per cent of the whole network",
                ("rule", "accuracy", "multiply-adds", "measured time"),
                tuple(
                    (point.rule, *map(percent, (point.accuracy, point.macs_ratio, point.time_ratio)))
                    for point in self.exits
                ),
            ),
        )

    def rows(self) -> dict[str, Rows]:
        return {
            "decode": [{"block": name, "accuracy": value} for name, value in self.decoder_accuracy.items()],
            "decode_agreement": [asdict(row) for row in self.agreement],
            "decode_exits": [asdict(row) | {"exits": " ".join(map(str, row.exits))} for row in self.exits],
        }

    def confidence(self, agreeing: int) -> float:
        """Accuracy (0..1) of the images with ``agreeing`` agreeing decoders.

        If there are no such images, it is the accuracy at the nearest smaller number that has images.
        """
        found = [row for row in self.agreement if row.accuracy is not None]
        below = [row for row in found if row.agreeing <= agreeing] or found[:1]
        assert below[-1].accuracy is not None
        return below[-1].accuracy

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> DecodeResult:
        """Make the result from a document of `to_json`."""
        return cls(
            checkpoint=document["checkpoint"],
            data=document["data"],
            image_size=document["image_size"],
            num_images=document["num_images"],
            accuracy=document["accuracy"],
            decoder_accuracy=document["decoder_accuracy"],
            agreement=tuple(Agreement(**row) for row in document["agreement"]),
            exits=tuple(ExitPoint(**(row | {"exits": tuple(row["exits"])})) for row in document["exits"]),
        )


def agreement_table(outputs: Outputs) -> tuple[Agreement, ...]:
    """Table 3: the final prediction's accuracy by the number of early decoders that agree with it, 0 to L."""
    predictions_n = outputs.predictions
    agreeing_n = (outputs.decoded == predictions_n[:, None]).sum(1)
    right_n = predictions_n == outputs.targets
    rows = []
    for number in range(outputs.decoded.shape[1] + 1):
        mine = agreeing_n == number
        size = int(mine.sum())
        rows.append(Agreement(number, size, float(right_n[mine].double().mean()) if size else None))
    return tuple(rows)


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

    def keep(self, going_B: torch.Tensor) -> None:
        """Keep only the images that have not stopped."""
        if self._last_B is not None and self._streak_B is not None:
            self._last_B, self._streak_B = self._last_B[going_B], self._streak_B[going_B]


@torch.no_grad()
def predict_with_exit(
    network: CodedNetwork, images_BCHW: torch.Tensor, rule: ExitRule
) -> tuple[torch.Tensor, torch.Tensor]:
    """Predict with early exit (section 4.4): images that satisfy the rule leave the batch and cost no more computation.

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
    rows_B = torch.arange(len(images_BCHW), device=device)
    watch = _Watch(rule)
    features, number = network.stem(images_BCHW), 0
    for index, block in enumerate(network.blocks):
        output = network.run_block(index, features)
        features = output.features
        if output.energies is None:
            continue
        classes_B = block.decode(output.energies)
        stops_B = watch.stops(output.energies, classes_B, block.coded_sum.scheme_KN)
        answers_B[rows_B[stops_B]] = classes_B[stops_B]
        exits_B[rows_B[stops_B]] = number
        number += 1
        going_B = ~stops_B
        if not bool(going_B.any()):
            return answers_B, exits_B
        if bool(stops_B.any()):
            features, rows_B = features[going_B], rows_B[going_B]
            watch.keep(going_B)
    answers_B[rows_B] = network.head(features).argmax(1)
    return answers_B, exits_B


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
        for index in range(len(network.blocks)):
            total += count_macs(lambda x, index=index: network.run_block(index, x), features)  # type: ignore[misc]
            features = network.run_block(index, features).features
            if index in network.coded_indices:
                found.append(total)
    return [*found, total + count_macs(network.head, features)]


@torch.no_grad()
def decode(
    subject: Subject,
    *,
    rules: Sequence[str] | None = None,
    progress: Progress = silent,
) -> DecodeResult:
    """Measure the early decoders and the early exits of a run on its validation images (section 4.4).

    Args:
        subject: a coded run.
        rules: further early exits to measure, each in the form of `ExitRule.parse`. The rules agree:1 to agree:L and a
            range of margins are always measured.
        progress: where to report the progress.

    Returns:
        The accuracy of every early decoder (figure 4), of the final prediction by agreement (table 3), and of every
        early exit with its cost.

    Raises:
        NotApplicableError: the run has no coded block.
        InputError: a rule has another form.
    """
    asked = [ExitRule.parse(text) for text in rules or ()]
    subject.require_coded("early decoding")
    network, device = subject.network, subject.runtime.device
    outputs = subject.outputs(progress)
    hits_L = (outputs.decoded == outputs.targets[:, None]).double().mean(0)
    tables = [torch.from_numpy(block.scheme.table.copy()) for block in network.coded_blocks]
    curve = [ExitRule("agree", number + 1) for number in range(len(tables))]
    curve += [ExitRule("margin", margin) for margin in _MARGINS]
    curve += [rule for rule in dict.fromkeys(asked) if rule not in curve]
    images = next(iter(subject.batches(subject.data.val, silent, "", batch_size=_TIMED_IMAGES.get(device.type, 64))))[0]
    progress("timing early exits", 0, len(curve))
    works: list[Callable[[], Any]] = [lambda: network(images)]
    works += [lambda rule=rule: predict_with_exit(network, images, rule) for rule in curve]  # type: ignore[misc]
    seconds = compare_speed(works, device=device, rounds=5)
    macs = exit_macs(network, images[:1])
    points = []
    for rule, own_seconds in zip(curve, seconds[1:], strict=True):
        answers_n, exits_n = exits_of(outputs, tables, rule)
        shares = np.bincount(exits_n.numpy(), minlength=len(macs)) / len(exits_n)
        mean_macs = float(shares @ np.array(macs, dtype=np.float64))
        points.append(
            ExitPoint(
                rule=str(rule),
                accuracy=float((answers_n == outputs.targets).double().mean()),
                macs=mean_macs,
                macs_ratio=mean_macs / macs[-1],
                time_ratio=own_seconds / seconds[0],
                exits=tuple(shares.tolist()),
            )
        )
    return DecodeResult(
        checkpoint=subject.checkpoint,
        data=subject.recipe.data,
        image_size=subject.recipe.eval_size,
        num_images=len(outputs.targets),
        accuracy=float((outputs.predictions == outputs.targets).double().mean()),
        decoder_accuracy=dict(zip(network.block_names, hits_L.tolist(), strict=True)),
        agreement=agreement_table(outputs),
        exits=tuple(points),
    )


def load_decoding(subject: Subject) -> DecodeResult | None:
    """The saved result of `decode` for the same checkpoint, data set and image size; None if there is none."""
    try:
        document = read_json(artifact_path(subject.run, "decode.json"))
        result = DecodeResult.from_json(document)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    of = (subject.checkpoint, subject.recipe.data, subject.recipe.eval_size)
    return result if (result.checkpoint, result.data, result.image_size) == of else None
