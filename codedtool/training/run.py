"""A training run on disk: a directory that describes itself, so that analyses need nothing else.

runs/
    latest            name of the run that was begun or resumed last
    NAME/
        config.json   format version, recipe, names of the schemes, origin of the run
        classes.json  class names, in the order of the schemes' rows
        schemes/      one .npy per coded stage, or range of blocks (s3.1-3.npy)
        metrics.csv   one row per epoch; metrics.jsonl holds the same rows
        checkpoints/  see `codedtool.training.checkpoint`
"""

from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import json
import math
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from codedtool.coding.scheme import CodingScheme
from codedtool.data import Normalization
from codedtool.data.augmentation import EVAL_CROP_PART
from codedtool.errors import InputError
from codedtool.files import (
    FileError,
    MissingFileError,
    OccupiedError,
    exists,
    is_dir,
    make_folder,
    read_json,
    read_text,
    remove,
    remove_empty,
    rename,
    temporary_beside,
    write_atomically,
    write_together,
)
from codedtool.models.network import CodedNetwork
from codedtool.models.presets import build_network
from codedtool.models.variant import Variant
from codedtool.training.checkpoint import CheckpointStore, Which
from codedtool.training.recipe import Recipe
from codedtool.training.recipes import recipe_for, side_of

DEFAULT_FOLDER = Path("runs")

_FORMAT = 1
_LATEST = "latest"


@dataclass(frozen=True)
class Run:
    """One training run on disk.

    Attributes:
        path: directory of the run.
        recipe: every value of the training; ``recipe.data`` and ``recipe.preset`` name data set and architecture.
        schemes: place -> its coding scheme; a place is a stage ("s3") or blocks of one ("s3.1-3").
        classes: class names, in the order of the schemes' rows.
        normalization: normalization of the training images.
        adjusted: recipe values that were asked for and then fitted to the data set or the memory, by key.
        split_sha256: `ImageData.split_sha256` of the data set.
        crop_part: part of the shorter side that is kept of an image that does not have the evaluation size (see
            `codedtool.data.choose_crop_part`), in every evaluation and prediction of the run.
    """

    path: Path
    recipe: Recipe
    schemes: Mapping[str, CodingScheme]
    classes: tuple[str, ...]
    normalization: Normalization
    adjusted: Mapping[str, Any] = field(default_factory=dict)
    split_sha256: str = ""
    crop_part: float = EVAL_CROP_PART

    @classmethod
    def create(
        cls,
        recipe: Recipe,
        schemes: Mapping[str, CodingScheme],
        classes: Sequence[str],
        normalization: Normalization,
        *,
        name: str | None = None,
        folder: Path = DEFAULT_FOLDER,
        provenance: Mapping[str, Any] | None = None,
        adjusted: Mapping[str, Any] | None = None,
        split_sha256: str = "",
        crop_part: float | None = None,
    ) -> Run:
        """Make the directory of a new run, whole or not at all, and let `latest` name it.

        Args:
            recipe, schemes, classes, normalization: as the attributes.
            name: name of the new directory; None: the data set's name and the next free number.
            folder: folder of all runs.
            provenance: plain JSON types to be stored in config.json, such as command and versions.
            adjusted, split_sha256: as the attributes.
            crop_part: as the attribute; None: `usual_crop_part`.

        Raises:
            InputError: the name is taken or cannot be a folder's name, or writing failed.
        """
        if name is not None and not _is_name(name):
            raise InputError(f"`run_name` {name!r} must be the name of one folder, and not {_LATEST!r}")
        if name is not None and exists(folder / name):
            raise InputError(_taken(folder / name))
        crop_part = usual_crop_part(recipe) if crop_part is None else crop_part
        document = {
            "format": _FORMAT,
            "recipe": recipe.to_json(),
            "schemes": {
                stage: {"file": f"schemes/{stage}.npy", "sha256": scheme.sha256} for stage, scheme in schemes.items()
            },
            "normalization": {"mean": list(normalization.mean), "std": list(normalization.std)},
            "crop_part": crop_part,
            **({"adjusted": dict(adjusted)} if adjusted else {}),
            **({"split_sha256": split_sha256} if split_sha256 else {}),
            **(provenance or {}),
        }
        temporary = temporary_beside(folder / "run")
        made: list[Path] = []
        try:
            make_folder(temporary, made)
            for stage, scheme in schemes.items():
                scheme.save(temporary / "schemes" / f"{stage}.npy", force=True)
            write_atomically(temporary / "classes.json", _json_bytes(list(classes)))
            write_atomically(temporary / "config.json", _json_bytes(document))
            target = _named(temporary, folder, name, recipe.data.partition(":")[0])
        except FileError as error:
            raise InputError(f"cannot begin the run {folder / (name or '')}: {error.reason}") from error
        finally:
            remove(temporary)
            remove_empty(made)
        about = (normalization, dict(adjusted or {}), split_sha256, crop_part)
        run = cls(target, recipe, dict(schemes), tuple(classes), *about)
        try:
            run.make_latest()
        except FileError:
            remove(target)
            raise
        return run

    @classmethod
    def load(cls, path: str | os.PathLike[str] | None = None, *, folder: Path = DEFAULT_FOLDER) -> Run:
        """Read the description of a run; weights are read later, by `load_network`.

        Args:
            path: directory of a run, or its name in ``folder``; None: the run that was begun or resumed last.
            folder: folder of all runs.

        Raises:
            InputError: no such run, or an incomplete or damaged one; the message names the file and the fix.

        Example:
            >>> import tempfile
            >>> from codedtool.data import load_dataset
            >>> from codedtool.training.recipes import recipe_for
            >>> data = load_dataset("digits")
            >>> recipe = recipe_for("digits").with_values({"preset": "resnext_tiny"})
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     _ = Run.create(recipe, {}, data.classes, data.normalization, name="plain", folder=Path(folder))
            ...     run = Run.load(Path(folder) / "plain")
            >>> run.name, run.num_classes, run.recipe.preset
            ('plain', 10, 'resnext_tiny')
        """
        directory = _find(path, folder)
        document = _read_json(directory / "config.json", dict)
        classes = _read_json(directory / "classes.json", list)
        if document.get("format") != _FORMAT:
            raise InputError(
                f"{directory}/config.json has format {document.get('format')!r}, this codedtool reads format {_FORMAT}"
            )
        try:
            stored = document["recipe"]
            # Runs of earlier versions have no name of a recipe: theirs was the data set's own. A value that they do not
            # have came later: they were trained with what its default stands for, whatever the recipe says today.
            name = recipe_for(stored["data"], stored.get("recipe")).recipe
            recipe = Recipe(recipe=name).with_values(stored)
            entries = {
                str(stage): (str(entry["file"]), str(entry["sha256"])) for stage, entry in document["schemes"].items()
            }
            normalization = checked_normalization(document["normalization"])
            adjusted, split_sha256 = dict(document.get("adjusted", {})), str(document.get("split_sha256", ""))
            crop_part = checked_part(document.get("crop_part", usual_crop_part(recipe)))
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
            raise InputError(f"{directory}/config.json describes no run: {error!r} is missing or wrong") from None
        if not all(isinstance(name, str) for name in classes) or len(set(classes)) < max(1, len(classes)):
            raise InputError(f"{directory}/classes.json must hold the names of the classes, each once")
        schemes = {}
        for stage, (file, sha256) in entries.items():
            schemes[stage] = CodingScheme.load(directory / file)
            if schemes[stage].sha256 != sha256:
                raise InputError(
                    f"{directory / file} is not the scheme that the run was trained with: its sha256 is "
                    f"{schemes[stage].sha256[:12]}…, config.json says {sha256[:12]}…; restore the file"
                )
            if schemes[stage].num_classes != len(classes):
                raise InputError(
                    f"{directory}/classes.json names {len(classes)} classes, and the scheme of {stage} has "
                    f"{schemes[stage].num_classes}; restore the file"
                )
        return cls(
            directory,
            recipe,
            schemes,
            tuple(classes),
            normalization,
            adjusted,
            split_sha256,
            crop_part,
        )

    @property
    def name(self) -> str:
        """Name of the run's directory."""
        return self.path.name

    @property
    def checkpoints(self) -> CheckpointStore:
        """Checkpoints of the run."""
        return CheckpointStore(self.path / "checkpoints")

    @property
    def num_classes(self) -> int:
        """K, the number of classes."""
        return len(self.classes)

    def discard(self, latest: str | None) -> None:
        """Remove the directory of a run that failed before its first checkpoint, and restore the file ``latest``.

        It never raises, so that the failure before it is what the user reads.

        Args:
            latest: content of the file ``latest`` before the run was made (`latest_name`).
        """
        remove(self.path)
        folder = self.path.parent
        if latest_name(folder) != self.name:
            return  # another run was begun meanwhile
        if latest is None:
            remove(folder / _LATEST)
        else:
            with suppress(FileError):
                write_atomically(folder / _LATEST, f"{latest}\n".encode())

    def origin(self) -> dict[str, Any]:
        """Read config.json whole: beside the run's own description, it holds the ``provenance`` of `create`."""
        document: dict[str, Any] = _read_json(self.path / "config.json", dict)
        return document

    def make_latest(self) -> None:
        """Write the run's name into the file ``latest`` beside it."""
        write_atomically(self.path.parent / _LATEST, f"{self.name}\n".encode())

    def metadata(self) -> dict[str, str]:
        """Return the text stored with weights so that they are never used with another preset or other schemes."""
        return {"preset": self.recipe.preset} | {
            f"scheme.{stage}": scheme.sha256 for stage, scheme in self.schemes.items()
        }

    def check_metadata(self, metadata: Mapping[str, str], what: str) -> None:
        """Raise InputError unless ``metadata`` names this run's preset and schemes; ``what`` names the weights."""
        mine = self.metadata()
        for key in sorted(mine.keys() | metadata.keys()):
            if mine.get(key) != metadata.get(key):
                raise InputError(
                    f"{what} belongs to another network: its {key} is {metadata.get(key, 'none')}, this run's is "
                    f"{mine.get(key, 'none')}; weights work only with the schemes they were trained with"
                )

    def build_network(self) -> CodedNetwork:
        """Build the run's network with new weights from the recipe's seed, on the CPU, in training mode."""
        variant = Variant(**{field.name: getattr(self.recipe, field.name) for field in dataclasses.fields(Variant)})
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(self.recipe.seed)
            return build_network(self.recipe.preset, self.schemes, num_classes=self.num_classes, variant=variant)

    def load_network(self, which: Which = "best") -> CodedNetwork:
        """Load the trained network, on the CPU, in evaluation mode.

        Args:
            which: best (highest validation accuracy), last or previous.

        Raises:
            InputError: a missing or damaged checkpoint, or weights of another network.
        """
        checkpoint = self.checkpoints.load(which, weights_only=True)
        self.check_metadata(checkpoint.metadata, f"checkpoint {self.checkpoints.folder / checkpoint.name}")
        network = self.build_network()
        try:
            network.load_state_dict(checkpoint.weights)
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise InputError(
                f"the weights of checkpoint {self.checkpoints.folder / checkpoint.name} do not fit {self.path}: "
                f"{reason[:300]}; restore the run's files"
            ) from None
        return network.eval()

    def metrics(self) -> list[dict[str, Any]]:
        """Read metrics.jsonl: one row per finished epoch; empty before the first."""
        path = self.path / "metrics.jsonl"
        try:
            lines = read_text(path).splitlines()
        except MissingFileError:
            return []
        try:
            rows = [json.loads(line) for line in lines]
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path} cannot be read ({error}); restore it") from None
        needed = ("epoch", "val_accuracy", "train_accuracy", "train_loss", "val_loss")
        for row in rows:
            wrong = not isinstance(row, dict) or row.keys() != rows[0].keys() or not all(key in row for key in needed)
            if wrong or not all(isinstance(value, int | float) for value in row.values()):
                raise InputError(f"{path} holds a row that is no epoch's; restore it")
        return rows

    def write_metrics(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Replace metrics.csv and metrics.jsonl by ``rows``; both are written whole, so a resume repeats no row."""
        buffer = io.StringIO()
        if rows:
            writer = csv.DictWriter(buffer, fieldnames=list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        write_together(
            {self.path / "metrics.csv": buffer.getvalue().encode(), self.path / "metrics.jsonl": lines.encode()}
        )


def usual_crop_part(recipe: Recipe) -> float:
    """The ``crop_part`` of a run that has none stored, as runs of earlier versions have not.

    It is 1 where the data set is one whose images have the evaluation size by its name, such as cifar10 at 32 pixels:
    such a run was evaluated on whole images. It is 224 / 256 for folders, which were evaluated so unless all their
    images had the evaluation size.
    """
    return 1.0 if side_of(recipe.data) == recipe.eval_size else EVAL_CROP_PART


def checked_part(value: Any) -> float:
    """A ``crop_part`` that was read from a file; raises ValueError for a wrong one."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
        raise ValueError(f"crop_part {value!r}")
    return float(value)


def latest_name(folder: Path) -> str | None:
    """Read the name of the run in ``folder`` that was begun or resumed last; None if there is none."""
    try:
        return read_text(folder / _LATEST).strip()
    except FileError:
        return None


def _is_name(name: str) -> bool:
    """Whether a run may have this name: one folder's, which is not hidden, and that people and text files can hold."""
    is_folder = Path(name).name == name and not name.startswith(".")
    return bool(name) and is_folder and name == name.strip() and name.isprintable() and name != _LATEST


def _taken(path: Path) -> str:
    return f"{path} exists already: continue it with `resume`, or give another `run_name`"


def _named(temporary: Path, folder: Path, name: str | None, kind: str) -> Path:
    """Give a complete new run its name, or the next free one: of several at once, each gets another.

    Raises:
        InputError: the name is taken, or the folder cannot be renamed.
    """
    if name is not None:
        try:
            rename(temporary, folder / name)
        except OccupiedError:
            raise InputError(_taken(folder / name)) from None
        return folder / name
    for number in itertools.count(1):
        target = folder / f"{kind}-{number}"
        if not exists(target):
            with suppress(OccupiedError):  # another process took it meanwhile
                rename(temporary, target)
                return target
    raise AssertionError


def _find(path: str | os.PathLike[str] | None, folder: Path) -> Path:
    """Find the directory of run ``path``; None means the run that ``latest`` names."""
    if path is None:
        name = latest_name(folder)
        if name is None:
            raise InputError(
                f"no run yet: {folder / _LATEST} does not exist; train one (codedtool train), or name a run's folder"
            )
        if not _is_name(name):
            raise InputError(f"{folder / _LATEST} holds no name of a run: {name[:80]!r}; name a run's folder")
        path = name
    for candidate in (folder / path, Path(path)):
        if is_dir(candidate) and candidate != folder:
            return candidate
    raise InputError(f"there is no run {path}: neither {folder / path} nor {path} is a folder")


def _read_json(path: Path, kind: type) -> Any:
    try:
        document = read_json(path, "restore it or train again")
    except MissingFileError:
        raise InputError(f"{path.parent} is not a run: it has no {path.name}; name a trained run's folder") from None
    if not isinstance(document, kind):
        raise InputError(f"{path} holds a {type(document).__name__} instead of a {kind.__name__}")
    return document


def checked_normalization(document: Any) -> Normalization:
    """A normalization that was read from a file; raises KeyError or TypeError for a wrong one."""
    return Normalization(mean=_three(document["mean"]), std=_three(document["std"]))


def _three(values: Any) -> tuple[float, float, float]:
    """One finite number per channel."""
    try:
        red, green, blue = (float(value) for value in values)
    except ValueError as error:
        raise TypeError(str(error)) from None
    if not all(math.isfinite(value) for value in (red, green, blue)):
        raise TypeError(values)
    return red, green, blue


def _json_bytes(document: Any) -> bytes:
    return (json.dumps(document, indent=2) + "\n").encode()
