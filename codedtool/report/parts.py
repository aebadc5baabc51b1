"""The parts of the page and their files: a part that is finished is not computed a second time.

RUN/analysis/parts/NAME.json holds a part as the page shows it, and what it was made of: the weights, the images, the
options and the version of codedtool. `stored_part` gives it back as long as all of these are the same.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from codedtool import __version__
from codedtool.analysis.artifacts import artifact_path, figure_bytes, write_json
from codedtool.analysis.result import Drawing, Result, Table
from codedtool.data import ImageData
from codedtool.files import FileError, read_bytes, read_json
from codedtool.training.run import Run
from codedtool.training.subject import Subject

# Grows when the content of a part changes, so that parts of an earlier format are made again.
_FORMAT = 2

# A CSS pixel is 1/96 inch.
_PIXELS_PER_INCH = 96

# Values of the recipe that change no number of a part.
_WITHOUT_EFFECT = ("data_dir", "num_workers")


@dataclass(frozen=True)
class Picture:
    """A figure of a part.

    Attributes:
        alt: one sentence that describes it.
        width: its width in CSS pixels.
        svg: the content of its SVG file.
    """

    alt: str
    width: int
    svg: str


@dataclass(frozen=True)
class Part:
    """The results of a part of the page.

    Attributes:
        key: name of the part: that of the analysis, or "training", "paths", "samples" or "classes". Links to the part
            end in #key.
        figures: the figures.
        tables: the tables below the figures.
        lines: the sentences below the tables.
        left_out: what the part lacks, one text each with the reason.
        details: further numbers for the page, in JSON's types.
    """

    key: str
    figures: tuple[Picture, ...] = ()
    tables: tuple[Table, ...] = ()
    lines: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)


def part_of(
    key: str,
    drawings: Sequence[Drawing],
    written: Collection[Path],
    result: Result | None = None,
    details: Mapping[str, Any] | None = None,
) -> Part:
    """The part that shows a result and its figures.

    Args:
        key: name of the part.
        drawings: the figures.
        written: the files that were written. A figure among them is taken from its file, since drawing a figure again
            moves it by fractions of a pixel.
        result, details: as `Part` shows them.
    """
    figures = []
    for drawing in drawings:
        png = next((path for path in written if path.name == f"{drawing.stem}.png"), None)
        svg = figure_bytes(drawing.figure, "svg") if png is None else read_bytes(png.with_suffix(".svg"))
        figures.append(Picture(drawing.alt, int(drawing.figure.get_figwidth() * _PIXELS_PER_INCH), svg.decode()))
    part = Part(key, tuple(figures), details=details or {})
    if result is None:
        return part
    return replace(part, tables=tuple(result.tables()), lines=tuple(result.lines()), left_out=tuple(result.left_out()))


def ingredients(
    subject: Subject,
    data: ImageData | None,
    *,
    plain: Subject | None,
    ood: ImageData | None,
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """All that the results of an analysis depend on, in JSON's types.

    Args:
        subject: the run.
        data: its data set, or None if it is not there. A stored part is then used if all else is the same.
        plain, ood, options: as for `Analysis.run`.
    """
    return {
        "codedtool": __version__,
        "format": _FORMAT,
        "data": None if data is None else _images_of(data),
        "options": dict(options),
        "ood": None if ood is None else _images_of(ood),
        "plain": None if plain is None else _network_of(plain),
        **_network_of(subject),
    }


def store_part(run: Run, part: Part, made_of: Mapping[str, Any]) -> None:
    """Write the file of a part; a run that cannot be written to goes without it, and the part is made again."""
    with suppress(FileError):
        content = asdict(part)
        document = {"made_of": dict(made_of), "sha256": _sha256_of_json(content), "part": content}
        write_json(_path(run, part.key), document)


def stored_part(run: Run, key: str, made_of: Mapping[str, Any]) -> Part | None:
    """The stored part ``key`` if it was made of ``made_of``; else None."""
    try:
        document = read_json(_path(run, key))
        found, stored = document["made_of"], document["part"]
        if stored["key"] != key or document["sha256"] != _sha256_of_json(stored):
            return None
        part = Part(
            key,
            tuple(Picture(**one) for one in stored["figures"]),
            tuple(
                Table(one["caption"], tuple(one["header"]), tuple(map(tuple, one["rows"]))) for one in stored["tables"]
            ),
            tuple(stored["lines"]),
            tuple(stored["left_out"]),
            stored["details"],
        )
        # Through JSON, so that tuples compare as the lists that they became.
        wanted = json.loads(json.dumps(made_of))
        if wanted["data"] is None:
            wanted["data"] = found["data"]
        return part if found == wanted else None
    except (FileError, KeyError, TypeError, AttributeError):
        # A file that is missing, damaged or of another version: the part is made again.
        return None


def _sha256_of_json(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _path(run: Run, key: str) -> Path:
    return artifact_path(run, f"parts/{key}.json")


def _network_of(subject: Subject) -> dict[str, Any]:
    recipe = {key: value for key, value in subject.recipe.to_json().items() if key not in _WITHOUT_EFFECT}
    weights = subject.once("sha256 of the weights", lambda: _sha256(subject.network.state_dict()))
    return {
        "checkpoint": subject.checkpoint,
        "weights": weights,
        "recipe": recipe,
        "device": subject.runtime.device.type,
        "classes": list(subject.classes),
    }


def _images_of(data: ImageData) -> dict[str, Any]:
    digest = hashlib.sha256((data.split_sha256 if data.fingerprint is None else data.fingerprint.sha256).encode())
    for split in (data.train, data.val):
        digest.update(split.targets.tobytes())
    return {
        "name": data.name,
        "num_train": len(data.train),
        "num_val": len(data.val),
        "sha256": digest.hexdigest(),
    }


def _sha256(weights: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in weights.items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
