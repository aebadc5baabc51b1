"""The result of an analysis: its tables, numbers and figures, and the one way to save them.

Nothing here imports torch or matplotlib, so the command line may import it at once.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from codedtool.analysis.artifacts import artifact_path, write_csv, write_figure, write_json
from codedtool.files import FileError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from codedtool.training.run import Run

Rows = Sequence[Mapping[str, Any]]

# The text of a cell that has no number.
NONE = "–"


@dataclass(frozen=True)
class Table:
    """A table for people: the terminal and the page show the same texts.

    Attributes:
        caption: what the numbers are, with their unit.
        header: one heading per column. The first column holds the names of the rows.
        rows: the texts of the cells, row by row.
    """

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Drawing:
    """A figure that shows a result.

    Attributes:
        stem: name of the figure's files, without the ending.
        alt: one sentence that describes the figure, for readers who cannot see it.
        figure: the figure.
    """

    stem: str
    alt: str
    figure: Figure


@runtime_checkable
class Result(Protocol):
    """The return value of every analysis: a frozen dataclass with these members.

    A result class inherits from this class and defines `name`, `tables`, `rows` and `to_json`. The other members have
    defaults: nothing was left out, no sentence is added, and there is one JSON document.
    """

    @property
    def name(self) -> str:
        """The stem of the result's JSON file."""

    def left_out(self) -> tuple[str, ...]:
        """One text for each part that was left out: its name and the reason."""
        return ()

    def lines(self) -> tuple[str, ...]:
        """Sentences to show below the tables."""
        return ()

    def tables(self) -> tuple[Table, ...]:
        """The tables, in the order in which they are shown."""

    def rows(self) -> Mapping[str, Rows]:
        """The rows of every CSV file, by the file's stem: all numbers of the tables and figures, unrounded."""

    def to_json(self) -> dict[str, Any]:
        """The whole result in JSON's types: the document that the command prints for ``--json``."""

    def documents(self) -> Mapping[str, Any]:
        """The JSON documents to save, by the file's stem."""
        return {self.name: self.to_json()}


def percent(share: float | None) -> str:
    """``share`` (0..1) in per cent, with two decimals and without the % sign; `NONE` for None."""
    return NONE if share is None else f"{100 * share:.2f}"


def millions(number: float) -> str:
    """A number of multiply-adds, in millions with two decimals."""
    return f"{number / 1e6:,.2f}"


def spread(mean: float, deviation: float) -> str:
    """A mean and a standard deviation of shares (0..1), in per cent."""
    return f"{percent(mean)} ± {percent(deviation)}"


def save_result(run: Run, result: Result, drawings: Sequence[Drawing] = ()) -> tuple[Path, ...]:
    """Write a result to RUN/analysis/: its documents (.json), rows (.csv) and figures (.png and .svg).

    A file that cannot be written, for example because the run is on a read-only file system, is a warning: the caller
    still has the result. The files after it are not tried.

    Returns:
        The paths of the files that were written. Of a figure's two files, only the .png is listed.
    """
    written: list[Path] = []
    writes: list[tuple[Path, Callable[[Path], None]]] = [
        *(
            (artifact_path(run, f"{stem}.json"), partial(write_json, document=document))
            for stem, document in result.documents().items()
        ),
        *((artifact_path(run, f"{stem}.csv"), partial(write_csv, rows=rows)) for stem, rows in result.rows().items()),
        *(
            (artifact_path(run, f"{drawing.stem}.png"), partial(write_figure, figure=drawing.figure))
            for drawing in drawings
        ),
    ]
    for path, write in writes:
        try:
            write(path)
        except FileError as error:
            warnings.warn(f"the result is not stored in {path.parent}: {error.reason}", stacklevel=2)
            break
        written.append(path)
    return tuple(written)
