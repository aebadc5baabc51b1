"""Metrics as event files for TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from codedtool.errors import InputError


class Board:
    """Writer of one run's event files; it removes events that a killed process wrote after the checkpoint.

    Args:
        folder: folder of the event files.
        first_epoch: the next epoch to train, from 0.

    Raises:
        InputError: TensorBoard is not installed.
    """

    def __init__(self, folder: Path, first_epoch: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise InputError(f"`tensorboard` needs TensorBoard ({error}): pip install tensorboard") from None
        self._writer = SummaryWriter(str(folder), purge_step=first_epoch + 1)

    def write(self, row: Mapping[str, Any]) -> None:
        """Write one row of metrics; ``row["epoch"]`` is TensorBoard's step."""
        for key, value in row.items():
            if key != "epoch":
                self._writer.add_scalar(key, value, row["epoch"])
        self._writer.flush()
