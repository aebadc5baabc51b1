"""Early decoders (section 4.4): accuracy of every block (figure 4), agreement (table 3) and early exits.

Shape suffixes: n images of a split, B of a batch, K classes, N subNNs, L coded blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from codedtool.analysis.artifacts import artifact_path, write_json
from codedtool.analysis.cost import NOISY, compare_steadily, marked
from codedtool.analysis.early_exit import ExitRule, exit_macs, exits_of, predict_with_exit
from codedtool.analysis.result import Result, Rows, Table, percent
from codedtool.budget import Progress, silent
from codedtool.data import Split
from codedtool.errors import InputError
from codedtool.files import read_json
from codedtool.training.evidence import EVIDENCE_FILE, Evidence, checked_evidence
from codedtool.training.run_data import is_data_of_training
from codedtool.training.subject import Outputs, Subject

# The margins that are always measured. A margin is at most 1; with 0, every image stops at the first coded block.
_MARGINS = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6)

# Rounds of timing at least; twice as many where they differ much.
_TIMED_ROUNDS = 5

# Number of images in the timed batch.
_TIMED_IMAGES = {"cpu": 256, "cuda": 512}


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
        is_noisy: whether a measured time may be off by more than 3%, because other work slowed some rounds down.
    """

    rule: str
    accuracy: float
    macs: float
    macs_ratio: float
    time_ratio: float
    exits: tuple[float, ...]
    is_noisy: bool = False


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
            *((NOISY,) if any(point.is_noisy for point in self.exits) else ()),
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
                    (
                        point.rule,
                        percent(point.accuracy),
                        percent(point.macs_ratio),
                        marked(percent(point.time_ratio), point.is_noisy),
                    )
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
    timed = _spread_over(subject.data.val, _TIMED_IMAGES.get(device.type, 64))
    images = next(iter(subject.batches(timed, silent, "", batch_size=len(timed))))[0]
    progress("timing early exits", 0, len(curve))

    def answer(rule: ExitRule | None) -> None:
        with subject.runtime.autocast():
            network(images) if rule is None else predict_with_exit(network, images, rule)

    works = [partial(answer, rule) for rule in (None, *curve)]
    whole, *early = compare_steadily(works, device=device, rounds=_TIMED_ROUNDS, most_rounds=2 * _TIMED_ROUNDS)
    macs = exit_macs(network, images[:1])
    points = []
    for rule, timing in zip(curve, early, strict=True):
        answers_n, exits_n = exits_of(outputs, tables, rule)
        shares = np.bincount(exits_n.numpy(), minlength=len(macs)) / len(exits_n)
        mean_macs = float(shares @ np.array(macs, dtype=np.float64))
        points.append(
            ExitPoint(
                rule=str(rule),
                accuracy=float((answers_n == outputs.targets).double().mean()),
                macs=mean_macs,
                macs_ratio=mean_macs / macs[-1],
                time_ratio=timing.seconds / whole.seconds,
                exits=tuple(shares.tolist()),
                is_noisy=timing.is_noisy or whole.is_noisy,
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


def _spread_over(split: Split, count: int) -> Split:
    """``count`` images at equal distances, or all of fewer: the classes of a folder come one after the other."""
    return split.taking(np.unique(np.linspace(0, len(split) - 1, count).astype(np.int64)))


def load_decoding(subject: Subject) -> DecodeResult | None:
    """The saved result of `decode` for the same checkpoint, data set and image size; None if there is none."""
    try:
        document = read_json(artifact_path(subject.run, "decode.json"))
        result = DecodeResult.from_json(document)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    of = (subject.checkpoint, subject.recipe.data, subject.recipe.eval_size)
    return result if (result.checkpoint, result.data, result.image_size) == of else None


def load_evidence(subject: Subject) -> Evidence | None:
    """The evidence for predictions from RUN/analysis/, where the checkpoint has none of its own; None if there is none.

    It is that of an earlier `measure_evidence`, or the agreement in the saved result of `decode`.
    """
    try:
        document = read_json(artifact_path(subject.run, EVIDENCE_FILE))
        data = subject.recipe.data
        # The data set of the training is the run's own, wherever its images lay when they were measured.
        is_of_it = document["data"] == data or (document["is_of_training"] and data == subject.run.recipe.data)
        if document["checkpoint"] == subject.checkpoint and is_of_it:
            found = checked_evidence(document, subject.network, subject.recipe.eval_size)
            if found is not None:
                return found
    except (ValueError, KeyError, TypeError):
        pass  # missing or damaged: as if never written
    decoding = load_decoding(subject)
    if decoding is None:
        return None
    agreement = [(row.num_images, round(row.num_images * (row.accuracy or 0.0))) for row in decoding.agreement]
    found = Evidence(subject.recipe.eval_size, len(subject.classes), tuple(agreement), {})
    return checked_evidence(found.to_json(), subject.network, subject.recipe.eval_size)


def measure_evidence(subject: Subject, progress: Progress = silent) -> Evidence:
    """Measure the evidence for predictions on the validation images, and keep it in RUN/analysis/ if it can be written.

    Raises:
        InputError: the data set is missing, or none of its images can be read.
    """
    found = subject.measure_evidence(progress)
    # If it cannot be written, the next prediction measures again.
    with suppress(InputError):
        of = {
            "checkpoint": subject.checkpoint,
            "data": subject.recipe.data,
            "is_of_training": is_data_of_training(subject.run, subject.data),
        }
        write_json(artifact_path(subject.run, EVIDENCE_FILE), found.to_json() | of)
    return found
