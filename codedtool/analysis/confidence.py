"""Confidence of a run: calibration (table 6) and selective prediction on the validation images, as one analysis."""

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
    """The results of both, for the same images."""

    calibration: CalibrationResult
    selective: SelectiveResult

    @property
    def name(self) -> str:
        return "calibration"

    def left_out(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.calibration.skipped, *self.selective.skipped)))

    def tables(self) -> tuple[Table, ...]:
        return (self.calibration.table(), self.selective.table())

    def rows(self) -> dict[str, Rows]:
        return {"calibration": self.calibration.rows(), "selective": self.selective.rows()}

    def to_json(self) -> dict[str, Any]:
        return self.documents()

    def documents(self) -> dict[str, Any]:
        return {"calibration": self.calibration.to_json(), "selective": self.selective.to_json()}


def confidence(subject: Subject, *, seed: int = 0, repeats: int = 41, progress: Progress = silent) -> ConfidenceResult:
    """Calibrate a run's confidence, and compare confidence scores where the network may abstain.

    Args:
        seed: seed of the random splits.
        repeats: splits per share of images that the temperatures are fitted on.

    Raises:
        InputError: as `calibrate` and `selective`.
    """
    outputs = subject.outputs(progress)
    return ConfidenceResult(
        calibrate(outputs, seed=seed, repeats=repeats, progress=progress), selective(outputs, seed=seed)
    )
