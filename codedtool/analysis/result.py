"""The result of an analysis: its tables, numbers and figures, and the one way to save them.

Nothing here imports torch or matplotlib, so the command line may import it at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from codedtool.analysis.artifacts import artifact_path, write_csv, write_figure, write_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from codedtool.training.run import Run

Rows = Sequence[Mapping[str, Any]]

# Shown where there is no number.
NONE = "–"


@dataclass(frozen=True)
class Table:
    """A table for people: the terminal and the page show the same texts.

    Attributes:
        caption: what the numbers are, with their unit.
        header: one heading per column; the first column tells the rows apart.
        rows: the cells' texts.
    """

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Drawing:
    """A figure of a result.

    Attributes:
        stem: the name of its files, without an ending.
        alt: what the figure shows, in words.
        figure: the figure.
    """

    stem: str
    alt: str
    figure: Figure


@runtime_checkable
class Result(Protocol):
    """What every analysis returns: a frozen dataclass with these members.

    An analysis inherits from this class and writes what is its own; the defaults serve a result that is one JSON
    document and adds no sentence.
    """

    @property
    def name(self) -> str:
        """The stem of the result's JSON file."""

    def left_out(self) -> tuple[str, ...]:
        """The parts that were left out, one text each: the part and the reason."""
        return ()

    def lines(self) -> tuple[str, ...]:
        """Sentences that are shown below the tables."""
        return ()

    def tables(self) -> tuple[Table, ...]:
        """The tables, in the order of reading."""

    def rows(self) -> Mapping[str, Rows]:
        """Stem of a CSV file -> its flat rows: every number of the tables and figures, unrounded."""

    def to_json(self) -> dict[str, Any]:
        """The whole result in plain types; the document that ``--json`` prints."""

    def documents(self) -> Mapping[str, Any]:
        """Stem of a JSON file -> its document."""
        return {self.name: self.to_json()}


def percent(share: float | None) -> str:
    """A share (0..1) as per cent, to two decimals, without the sign."""
    return NONE if share is None else f"{100 * share:.2f}"


def millions(number: float) -> str:
    """A number of multiply-adds in millions."""
    return f"{number / 1e6:,.2f}"


def spread(mean: float, deviation: float) -> str:
    """Mean and standard deviation of shares (0..1), as per cent."""
    return f"{percent(mean)} ± {percent(deviation)}"


def save_result(run: Run, result: Result, drawings: Sequence[Drawing] = ()) -> tuple[Path, ...]:
    """Write a result to RUN/analysis/: its documents (.json), rows (.csv) and figures (.png and .svg).

    Returns:
        The paths of the files; of a figure, the .png's.

    Raises:
        InputError: a file cannot be written.
    """
    written = []
    for stem, document in result.documents().items():
        written.append(artifact_path(run, f"{stem}.json"))
        write_json(written[-1], document)
    for stem, rows in result.rows().items():
        written.append(artifact_path(run, f"{stem}.csv"))
        write_csv(written[-1], rows)
    for drawing in drawings:
        written.append(artifact_path(run, f"{drawing.stem}.png"))
        write_figure(written[-1], drawing.figure)
    return tuple(written)
