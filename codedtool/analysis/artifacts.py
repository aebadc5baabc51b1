"""Files of results: JSON documents, CSV tables and figures. A file is written completely or not at all.

A run's results are in ``RUN/analysis/``. An analysis replaces its own earlier files there without asking.
"""

from __future__ import annotations

import csv
import io
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from codedtool.files import write_atomically
from codedtool.interrupts import interrupts_held
from codedtool.text import encodable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from codedtool.training.run import Run


def artifact_path(run: Run, file: str) -> Path:
    """The path of the result file called ``file``."""
    return run.path / "analysis" / file


def write_json(path: Path, document: Any) -> None:
    """Write ``document`` (JSON's types; no NaN) to a file."""
    write_atomically(path, (json.dumps(document, indent=2, allow_nan=False) + "\n").encode())


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows to a CSV file (UTF-8). The columns are all keys of all rows; a missing value leaves its cell empty."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, fieldnames=keys, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(
        {key: encodable(value) if isinstance(value, str) else value for key, value in row.items()} for row in rows
    )
    write_atomically(path, buffer.getvalue().encode())


def write_figure(path: Path, figure: Figure) -> None:
    """Write a figure to ``path`` (.png) and the .svg beside it."""
    for kind in ("svg", "png"):
        write_atomically(path.with_suffix(f".{kind}"), figure_bytes(figure, kind))


@interrupts_held()
def figure_bytes(figure: Figure, kind: Literal["svg", "png"]) -> bytes:
    """The content of a figure's file."""
    import matplotlib

    buffer = io.BytesIO()
    # With a fixed salt and no date, the same numbers give the same bytes.
    style = matplotlib.rc_context({"svg.hashsalt": "codedtool", "svg.fonttype": "none"})
    with style, warnings.catch_warnings():
        # The .png shows a box for a letter that no installed font has; the .svg, the page and the tables show it.
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        metadata = {"Date": None} if kind == "svg" else {"Software": None}
        _fix_layout(figure)
        figure.savefig(buffer, format=kind, dpi=150, bbox_inches="tight", metadata=metadata)
    return buffer.getvalue()


def _fix_layout(figure: Figure) -> None:
    """Lay the figure out, and round the places of its axes.

    The solver of the layout does not give the same last digits in every process. Without rounding, the SVG's names of
    clip paths would differ with them.
    """
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes in figure.axes:
        x, y, width, height = (round(value, 6) for value in axes.get_position(original=True).bounds)
        axes.set_position((x, y, width, height))
