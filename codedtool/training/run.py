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
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from codedtool.coding.scheme import CodingScheme
from codedtool.data import Normalization
from codedtool.errors import InputError
from codedtool.files import write_atomically
from codedtool.models.network import CodedNetwork
from codedtool.models.presets import build_network
from codedtool.models.variant import Variant
from codedtool.training.checkpoint import CheckpointStore, Which
from codedtool.training.recipe import Recipe, recipe_for

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
    """

    path: Path
    recipe: Recipe
    schemes: Mapping[str, CodingScheme]
    classes: tuple[str, ...]
    normalization: Normalization
    adjusted: Mapping[str, Any] = field(default_factory=dict)
    split_sha256: str = ""

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
    ) -> Run:
        """Make the directory of a new run, whole or not at all, and let `latest` name it.

        Args:
            recipe, schemes, classes, normalization: as the attributes.
            name: name of the new directory; None: the data set's name and the next free number.
            folder: folder of all runs.
            provenance: plain JSON types to be stored in config.json (command, versions).
            adjusted, split_sha256: as the attributes.

        Raises:
            InputError: the name is taken or cannot be a folder's name, or writing failed.
        """
        kind = recipe.data.partition(":")[0]
        target = folder / (name or _free_name(folder, kind))
        if target.parent != folder or target.name in ("", ".", "..", _LATEST) or target.name.startswith("."):
            raise InputError(f"`run_name` {name!r} must be the name of one folder, and not {_LATEST!r}")
        if target.exists():
            raise InputError(f"{target} exists already: continue it with `resume`, or give another `run_name`")
        document = {
            "format": _FORMAT,
            "recipe": recipe.to_json(),
            "schemes": {
                stage: {"file": f"schemes/{stage}.npy", "sha256": scheme.sha256} for stage, scheme in schemes.items()
            },
            "normalization": {"mean": list(normalization.mean), "std": list(normalization.std)},
            **({"adjusted": dict(adjusted)} if adjusted else {}),
            **({"split_sha256": split_sha256} if split_sha256 else {}),
            **(provenance or {}),
        }
        temporary = folder / f".{target.name}.{os.getpid()}.tmp"
        try:
            for stage, scheme in schemes.items():
                scheme.save(temporary / "schemes" / f"{stage}.npy", force=True)
            write_atomically(temporary / "classes.json", _json_bytes(list(classes)))
            write_atomically(temporary / "config.json", _json_bytes(document))
            os.replace(temporary, target)
        except OSError as error:
            raise InputError(f"cannot begin the run {target}: {error.strerror or error}") from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        run = cls(target, recipe, dict(schemes), tuple(classes), normalization, dict(adjusted or {}), split_sha256)
        run.make_latest()
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
            >>> from codedtool.training.recipe import recipe_for
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
                str(stage): (str(entry["file"]), entry["sha256"]) for stage, entry in document["schemes"].items()
            }
            normalization = Normalization(
                mean=tuple(document["normalization"]["mean"]), std=tuple(document["normalization"]["std"])
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{directory}/config.json describes no run: {error!r} is missing or wrong") from None
        schemes = {}
        for stage, (file, sha256) in entries.items():
            schemes[stage] = CodingScheme.load(directory / file)
            if schemes[stage].sha256 != sha256:
                raise InputError(
                    f"{directory / file} is not the scheme that the run was trained with: its sha256 is "
                    f"{schemes[stage].sha256[:12]}…, config.json says {sha256[:12]}…; restore the file"
                )
        return cls(
            directory,
            recipe,
            schemes,
            tuple(str(name) for name in classes),
            normalization,
            document.get("adjusted", {}),
            document.get("split_sha256", ""),
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

        Args:
            latest: content of the file ``latest`` before the run was made (`latest_name`).
        """
        shutil.rmtree(self.path, ignore_errors=True)
        folder = self.path.parent
        if latest_name(folder) != self.name:
            return  # another run was begun meanwhile
        if latest is None:
            (folder / _LATEST).unlink(missing_ok=True)
        else:
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
        network.load_state_dict(checkpoint.weights)
        return network.eval()

    def metrics(self) -> list[dict[str, Any]]:
        """Read metrics.jsonl: one row per finished epoch; empty before the first."""
        try:
            text = (self.path / "metrics.jsonl").read_text()
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in text.splitlines()]

    def write_metrics(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Replace metrics.csv and metrics.jsonl by ``rows``; both are written whole, so a resume repeats no row."""
        buffer = io.StringIO()
        if rows:
            writer = csv.DictWriter(buffer, fieldnames=list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        write_atomically(self.path / "metrics.csv", buffer.getvalue().encode())
        write_atomically(self.path / "metrics.jsonl", lines.encode())


def latest_name(folder: Path) -> str | None:
    """Read the name of the run in ``folder`` that was begun or resumed last; None if there is none."""
    try:
        return (folder / _LATEST).read_text().strip()
    except OSError:
        return None


def _free_name(folder: Path, kind: str) -> str:
    number = 1
    while (folder / f"{kind}-{number}").exists():
        number += 1
    return f"{kind}-{number}"


def _find(path: str | os.PathLike[str] | None, folder: Path) -> Path:
    """Find the directory of run ``path``; None means the run that ``latest`` names."""
    if path is None:
        name = latest_name(folder)
        if name is None:
            raise InputError(
                f"no run yet: {folder / _LATEST} does not exist; train one (codedtool train), or name a run's folder"
            )
        path = name
    for candidate in (folder / path, Path(path)):
        if candidate.is_dir() and candidate != folder:
            return candidate
    raise InputError(f"there is no run {path}: neither {folder / path} nor {path} is a folder")


def _read_json(path: Path, kind: type) -> Any:
    try:
        document = json.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(f"{path.parent} is not a run: it has no {path.name}; name a trained run's folder") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}); restore it or train again") from None
    if not isinstance(document, kind):
        raise InputError(f"{path} holds a {type(document).__name__} instead of a {kind.__name__}")
    return document


def _json_bytes(document: Any) -> bytes:
    return (json.dumps(document, indent=2) + "\n").encode()
