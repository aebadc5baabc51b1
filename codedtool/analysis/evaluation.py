"""Accuracy, losses and early decoders of a run on validation images (table 2, figure 4)."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from codedtool.analysis.result import Result, Rows, Table, percent
from codedtool.budget import Progress, silent
from codedtool.training import evaluation
from codedtool.training.subject import Subject


@dataclass(frozen=True)
class EvalResult(Result):
    """Table 2's numbers of one run on one data set.

    Attributes:
        run: path of the run's directory.
        data: name of the data set.
        checkpoint: name of the evaluated checkpoint.
        num_images: number of validation images.
        accuracy: top-1 accuracy, 0..1.
        loss: mean cross-entropy, without label smoothing.
        coding_loss: mean coding loss (eq. 5) of every coded block, by the block's name.
        decoder_accuracy: accuracy of the early decoder of every coded block, 0..1 (figure 4), by the block's name.
        seconds: duration of the evaluation in seconds.
    """

    run: str
    data: str
    checkpoint: str
    num_images: int
    accuracy: float
    loss: float
    coding_loss: dict[str, float]
    decoder_accuracy: dict[str, float]
    seconds: float

    @property
    def name(self) -> str:
        return "eval"

    def lines(self) -> tuple[str, ...]:
        return (f"{self.num_images} images of {self.data}: accuracy {self.accuracy:.2%}, loss {self.loss:.4f}",)

    def tables(self) -> tuple[Table, ...]:
        if not self.coding_loss:
            return ()
        return (
            Table(
                "Coding loss, and accuracy of the early decoders, %",
                ("block", "coding loss", "early decoder"),
                tuple(
                    (block, f"{loss:.4f}", percent(self.decoder_accuracy[block]))
                    for block, loss in self.coding_loss.items()
                ),
            ),
        )

    def rows(self) -> dict[str, Rows]:
        whole = {"block": "", "accuracy": self.accuracy, "loss": self.loss}
        blocks = [
            {"block": block, "accuracy": self.decoder_accuracy[block], "loss": loss}
            for block, loss in self.coding_loss.items()
        ]
        return {self.name: [whole, *blocks]}

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "seconds": round(self.seconds, 3)}


def evaluate(subject: Subject, *, progress: Progress = silent) -> EvalResult:
    """Evaluate a run on the validation images of ``subject.data`` (table 2).

    Args:
        subject: a coded or plain run.
        progress: where to report the progress.

    Returns:
        The accuracy, the cross-entropy, and the coding loss and the early decoder's accuracy of every coded block.

    Raises:
        InputError: the data set is missing, or its classes are not the run's.
    """
    images = subject.data.val
    start = time.monotonic()
    means = evaluation.evaluate(
        subject.network, images, subject.run.normalization, subject.recipe, subject.runtime, progress=progress
    )
    return EvalResult(
        run=str(subject.run.path),
        data=subject.recipe.data,
        checkpoint=subject.checkpoint,
        seconds=time.monotonic() - start,
        **means,
    )
