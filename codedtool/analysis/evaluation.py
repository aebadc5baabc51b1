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
        run: the run's directory.
        data: the data set.
        checkpoint: name of the evaluated checkpoint.
        num_images: number of validation images.
        accuracy: top-1, 0..1.
        loss: mean cross-entropy, without label smoothing.
        coding_loss: coded block -> mean coding loss (eq. 5).
        decoder_accuracy: coded block -> accuracy of its early decoder, 0..1 (figure 4).
        seconds: duration of the evaluation.
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
    """Evaluate a run on the validation images of ``subject.data``.

    Raises:
        InputError: other classes than the run's, or missing data.
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
