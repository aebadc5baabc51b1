"""Where the results of analyses go: ``RUN/analysis/NAME.json``, ``.csv``, ``.png`` and ``.svg``.

The folder is the program's own: every analysis replaces its own files there, each written whole or not at all.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codedtool.files import write_atomically
from codedtool.training.run import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def artifact_path(run: Run, file: str) -> Path:
    """Where ``file`` of the run's analyses is."""
    return run.path / "analysis" / file


def save_json(run: Run, name: str, document: Any) -> Path:
    """Write ``document`` (plain types) as NAME.json."""
    path = artifact_path(run, f"{name}.json")
    write_json(path, document)
    return path


def write_json(path: Path, document: Any) -> None:
    """Write ``document`` (plain types) to a file."""
    write_atomically(path, (json.dumps(document, indent=2, allow_nan=False) + "\n").encode())


def save_csv(run: Run, name: str, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write the data of a table or figure as NAME.csv."""
    path = artifact_path(run, f"{name}.csv")
    write_csv(path, rows)
    return path


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows to a file; they may lack keys of others, which stay empty."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, fieldnames=keys, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, buffer.getvalue().encode())


def save_figure(run: Run, name: str, figure: Figure) -> Path:
    """Write NAME.svg, which scales, and NAME.png, which everything shows; returns the PNG's path."""
    path = artifact_path(run, f"{name}.png")
    write_figure(path, figure)
    return path


def write_figure(path: Path, figure: Figure) -> None:
    """Write a figure to ``path`` (.png) and the .svg beside it."""
    import matplotlib

    for kind in ("svg", "png"):
        buffer = io.BytesIO()
        # A fixed salt and no date: the same numbers give the same bytes.
        with matplotlib.rc_context({"svg.hashsalt": "codedtool", "svg.fonttype": "none"}):
            metadata = {"Date": None} if kind == "svg" else {"Software": None}
            figure.savefig(buffer, format=kind, dpi=150, bbox_inches="tight", metadata=metadata)
        write_atomically(path.with_suffix(f".{kind}"), buffer.getvalue())
