"""The metrics for TensorBoard too (``--tensorboard``)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from codedtool.errors import InputError


class Board:
    """Event files of one run; what an earlier, killed process wrote past the checkpoint is purged.

    Args:
        folder: where the event files go.
        first_epoch: 0-based epoch that training begins or goes on with.

    Raises:
        InputError: TensorBoard is not installed.
    """

    def __init__(self, folder: Path, first_epoch: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise InputError(f"--tensorboard needs TensorBoard ({error}); pip install tensorboard") from None
        self._writer = SummaryWriter(str(folder), purge_step=first_epoch + 1)

    def write(self, row: Mapping[str, Any]) -> None:
        """One row of the metrics; ``row["epoch"]`` is the step."""
        for key, value in row.items():
            if key != "epoch":
                self._writer.add_scalar(key, value, row["epoch"])
        self._writer.flush()
