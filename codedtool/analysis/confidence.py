"""Confidence of a run on the validation images: calibration (table 6) and selective prediction, as one analysis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from codedtool.analysis.calibration import CalibrationResult, calibrate
from codedtool.analysis.result import Result, Rows, Table
from codedtool.analysis.selective import SelectiveResult, selective
from codedtool.budget import Progress, silent
from codedtool.training.subject import Subject


@dataclass(frozen=True, eq=False)
class ConfidenceResult(Result):
    """The results of `calibrate` and `selective` for the same images.

    Attributes:
        calibration: calibration errors of every method (table 6).
        selective: risk-coverage curves of the confidence scores.
    """

    calibration: CalibrationResult
    selective: SelectiveResult

    @property
    def name(self) -> str:
        return "calibration"

    def left_out(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.calibration.skipped, *self.selective.skipped)))

    def lines(self) -> tuple[str, ...]:
        errors = (
            f"ECE and MCE are the expected and the maximum calibration error, with {self.calibration.num_bins} bins."
        )
        scaling = "h_T divides all logits by one temperature T (eq. 10)."
        if self.selective.temperature is None:
            return (errors, scaling)
        augmented = "h_aug multiplies T by 1 plus the taus of the early decoders that agree with the answer (eq. 11)."
        return (errors, f"{scaling} {augmented}")

    def tables(self) -> tuple[Table, ...]:
        return (self.calibration.table(), self.selective.table())

    def rows(self) -> dict[str, Rows]:
        return {"calibration": self.calibration.rows(), "selective": self.selective.rows()}

    def to_json(self) -> dict[str, Any]:
        return self.documents()

    def documents(self) -> dict[str, Any]:
        return {"calibration": self.calibration.to_json(), "selective": self.selective.to_json()}


def confidence(subject: Subject, *, seed: int = 0, repeats: int = 41, progress: Progress = silent) -> ConfidenceResult:
    """Calibrate a run's confidence, and compare confidence scores for abstaining (appendix C, table 6).

    Args:
        subject: a coded or plain run. Methods that need early decoders are left out for a plain run.
        seed: seed of the random splits.
        repeats: number of random splits for each share of images that temperatures are fitted on, at least 1.
        progress: where to report the progress.

    Returns:
        The calibration errors and the risk-coverage curves.

    Raises:
        InputError: `calibrate` or `selective` refuses the number or the classes of the validation images.
    """
    outputs = subject.outputs(progress)
    return ConfidenceResult(
        calibrate(outputs, seed=seed, repeats=repeats, progress=progress),
        selective(outputs, seed=seed, repeats=repeats),
    )
