"""A light copy of a run, to share: all commands read it, and only a training cannot be resumed from it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codedtool.errors import InputError
from codedtool.files import (
    FileError,
    exists,
    listed,
    make_folder,
    read_bytes,
    read_json,
    remove,
    remove_empty,
    rename,
    temporary_beside,
    total_bytes,
    write_atomically,
)
from codedtool.training.checkpoint import Which
from codedtool.training.recipe import Recipe
from codedtool.training.run import Run

# What config.json keeps for the machine of the training: the command line, and where first weights came from.
_OF_THE_MACHINE = ("command", "init")

# The key of config.json that tells a light copy from a run that can be resumed.
_MARK = "light_copy"


@dataclass(frozen=True)
class LightCopy:
    """A light copy of a run.

    Attributes:
        path: the copy's folder.
        checkpoint: name of the checkpoint in it.
        bytes: size of all its files.
    """

    path: Path
    checkpoint: str
    bytes: int

    def to_json(self) -> dict[str, Any]:
        """The copy in JSON's types."""
        return {"path": str(self.path), "kind": "run", "bytes": self.bytes, "checkpoint": self.checkpoint}


def light_copy(run: Run, path: Path | None = None, *, checkpoint: Which = "best", force: bool = False) -> LightCopy:
    """Copy a run without the state of its training, its analyses and the paths of its machine.

    The copy holds config.json, the classes, the schemes, the metrics and one checkpoint: weights, and the statistics
    for predictions. Of a data set in a folder it keeps the folder's name; `data` names the folder where it is needed.

    Args:
        run: from `Run.load`.
        path: folder of the copy; None: RUN/export/run.
        checkpoint: "best", "last" or "previous".
        force: whether an earlier copy at ``path`` may be replaced.

    Raises:
        InputError: the checkpoint is missing or damaged, ``path`` is taken (with ``force``: by something else than a
            light copy), or writing failed.
    """
    path = path or run.path / "export" / "run"
    if exists(path) and not (force and _is_light(path)):
        raise InputError(f"{path} exists already: `force` replaces only an earlier light copy; name another `out`")
    temporary = temporary_beside(path)
    made: list[Path] = []
    try:
        make_folder(temporary, made)
        document = {key: value for key, value in run.origin().items() if key not in _OF_THE_MACHINE}
        document[_MARK] = True
        document["recipe"] = _without_paths(document["recipe"])
        if "data_set" in document:
            document["data_set"] = {key: value for key, value in document["data_set"].items() if key != "path"}
        write_atomically(temporary / "config.json", (json.dumps(document, indent=2) + "\n").encode())
        files = [run.path / name for name in ("classes.json", "metrics.csv", "metrics.jsonl")]
        # A plain network's run has no schemes.
        schemes = run.path / "schemes"
        for file in [file for file in files if exists(file)] + (listed(schemes) if exists(schemes) else []):
            write_atomically(temporary / file.relative_to(run.path), read_bytes(file))
        name = run.checkpoints.copy_weights(checkpoint, temporary / "checkpoints")
        size = total_bytes(temporary)
        remove(path)
        rename(temporary, path)
    except FileError as error:
        raise InputError(f"cannot write the copy {path}: {error.reason}") from error
    finally:
        remove(temporary)
        remove_empty(made)
    return LightCopy(path, name, size)


def _without_paths(recipe: dict[str, Any]) -> dict[str, Any]:
    """A stored recipe with the name of its data set's folder in place of the path, and the usual ``data_dir``."""
    kind, colon, value = str(recipe["data"]).partition(":")
    return recipe | {"data": kind + colon + Path(value).name, "data_dir": Recipe().data_dir}


def _is_light(path: Path) -> bool:
    try:
        document = read_json(path / "config.json")
    except FileError:
        return False
    return isinstance(document, dict) and document.get(_MARK) is True
