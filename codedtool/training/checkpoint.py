"""Checkpoints that a kill, a crash or a full disk cannot spoil.

    checkpoints/
        index.json          names of the last, previous and best folder; replaced atomically once a folder is complete
        e0003s000040/       epoch 3, step 40; written under a temporary name, flushed, renamed
            weights.safetensors   the network to use (the moving average, if the recipe keeps one)
            state.pt              optimizer, moving average, counters, metrics: builtins and tensors only
            evidence.json         statistics for predictions (`codedtool.training.evidence`), after a whole epoch
            manifest.json         size and SHA-256 of the files

A kill before the index is replaced leaves the old index, and folders that it does not name; the next save removes them.
"""

from __future__ import annotations

import hashlib
import io
import json
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from codedtool.errors import InputError
from codedtool.files import (
    FileError,
    MissingFileError,
    exists,
    flush_folder,
    is_dir,
    is_temporary,
    listed,
    make_folder,
    read_bytes,
    read_json,
    remove,
    rename,
    temporary_beside,
    write_atomically,
    write_through,
)
from codedtool.training.weights import from_safetensors, to_safetensors

Which = Literal["last", "previous", "best"]

_FORMAT = 1
_WEIGHTS, _STATE, _MANIFEST, _INDEX = "weights.safetensors", "state.pt", "manifest.json", "index.json"


@dataclass(frozen=True)
class Checkpoint:
    """Content of one checkpoint folder.

    Attributes:
        name: name of the folder.
        weights: state dict of the network to evaluate, on the CPU.
        metadata: text stored with the weights, such as the sha256 of the schemes.
        state: builtins and tensors needed to continue the training; empty if only the weights were read.
    """

    name: str
    weights: dict[str, torch.Tensor]
    metadata: dict[str, str]
    state: dict[str, Any]


class CheckpointStore:
    """Checkpoints of one run.

    Args:
        folder: folder of the checkpoints; made at the first save.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def index(self) -> dict[str, str]:
        """Read the index: last, previous and best, as far as they exist -> folder name; empty before the first save.

        Raises:
            InputError: the index cannot be read.
        """
        path, advice = self.folder / _INDEX, "restore it or begin a new run"
        try:
            document = read_json(path, advice)
        except MissingFileError:
            # A kill before the first index was written leaves one folder; several were named by an index.
            if len(self._complete()) > 1:
                raise InputError(f"{path} is missing, and checkpoints are there; {advice}") from None
            return {}
        if not isinstance(document, dict):
            raise InputError(f"{path}: holds no names of checkpoints; {advice}")
        index = {which: document[which] for which in ("last", "previous", "best") if which in document}
        for name in index.values():
            if not isinstance(name, str) or name in ("", ".", "..") or any(letter in name for letter in "/\\\0"):
                raise InputError(f"{path}: {name!r} is no name of a checkpoint; {advice}")
        return index

    def newest(self) -> str | None:
        """The folder of the last checkpoint, as far as the index can be read; for messages about other errors."""
        try:
            return self.index().get("last")
        except InputError:
            return None

    def save(
        self,
        name: str,
        weights: Mapping[str, torch.Tensor],
        state: Mapping[str, Any],
        *,
        metadata: Mapping[str, str],
        best: bool,
        attached: Mapping[str, bytes] | None = None,
    ) -> None:
        """Save a checkpoint as the last one; the one before becomes the previous, and older ones are removed.

        Args:
            name: name of the new folder. If the last checkpoint has this name already, it is not written again.
            weights: state dict, on any device.
            state: nested dicts and lists of int, float, str, bool, None and tensors.
            metadata: text stored with the weights.
            best: make it the best checkpoint too.
            attached: further files of the folder, by name.

        Raises:
            InputError: the write failed, for example because the disk is full; earlier checkpoints are unchanged.
        """
        index = self.index()
        if index.get("last") != name:
            self._write_folder(name, weights, state, metadata, attached or {})
            if "last" in index:
                index["previous"] = index["last"]
            index["last"] = name
        if best:
            index["best"] = name
        write_atomically(self.folder / _INDEX, (json.dumps(index, indent=2) + "\n").encode())
        self._remove_others(set(index.values()))

    def load(self, which: Which, *, weights_only: bool = False) -> Checkpoint:
        """Read a checkpoint onto the CPU, after comparing its files with their SHA-256.

        Args:
            which: last, previous or best.
            weights_only: leave the state that continues a training unread.

        Raises:
            InputError: a missing or damaged checkpoint; the message names the damage and an intact checkpoint.
        """
        index = self.index()
        if which not in index:
            has = ", ".join(index) or "none"
            raise InputError(f"{self.folder}: there is no {which} checkpoint (there is: {has})")
        files = (_WEIGHTS,) if weights_only else (_WEIGHTS, _STATE)
        name = index[which]
        try:
            if weights_only or _STATE in self._expected(name):
                content = self._read(name, files)
                weights, metadata = from_safetensors(content[_WEIGHTS])
                state = {} if weights_only else _read_state(content[_STATE])
                return Checkpoint(name=name, weights=weights, metadata=metadata, state=state)
        except (_DamagedError, InputError) as error:
            raise InputError(
                f"checkpoint {self.folder / name} is damaged: {error}; {self._offer(index, which)}"
            ) from None
        raise InputError(
            f"checkpoint {self.folder / name} has no state to continue a training from: its run is a light copy; "
            "begin a new run with its weights by `init`"
        )

    def copy_weights(self, which: Which, folder: Path) -> str:
        """Copy a checkpoint without the state of its training; it is the last and the best one in ``folder``.

        Args:
            which: last, previous or best.
            folder: the new folder of checkpoints, which is made.

        Returns:
            The checkpoint's name.

        Raises:
            InputError: the checkpoint is missing or damaged, or writing failed.
        """
        name = self.load(which, weights_only=True).name
        files = tuple(file for file in self._expected(name) if file != _STATE)
        try:
            content = self._read(name, files)
        except _DamagedError as error:
            raise InputError(f"checkpoint {self.folder / name} is damaged: {error}; restore it") from None
        for file, data in (content | {_MANIFEST: _manifest(content)}).items():
            write_atomically(folder / name / file, data)
        write_atomically(folder / _INDEX, (json.dumps({"last": name, "best": name}, indent=2) + "\n").encode())
        return name

    def attached(self, name: str, file: str) -> bytes | None:
        """The content of a further file of checkpoint ``name`` (see `save`); None if it has none, or a damaged one."""
        try:
            return self._read(name, (file,))[file]
        except (_DamagedError, InputError, OSError, KeyError):
            return None

    def rewind(self, which: Which) -> None:
        """Make ``which`` the last checkpoint and drop the later ones; their folders stay until the next save.

        If the best one is dropped, ``which`` is the best one that is left, unless it was saved within an epoch.
        """
        index = self.index()
        dropped, chosen = index.get("last"), index[which]
        if dropped == chosen:
            return
        kept = {key: name for key, name in index.items() if name != dropped and key != "previous"}
        if "best" not in kept and chosen.endswith("s000000"):
            kept["best"] = chosen
        write_atomically(self.folder / _INDEX, (json.dumps({**kept, "last": chosen}, indent=2) + "\n").encode())

    def _write_folder(
        self,
        name: str,
        weights: Mapping[str, torch.Tensor],
        state: Mapping[str, Any],
        metadata: Mapping[str, str],
        attached: Mapping[str, bytes],
    ) -> None:
        temporary, target = temporary_beside(self.folder / name), self.folder / name
        try:
            make_folder(temporary, [])
            buffer = io.BytesIO()
            torch.save(_to_cpu(state), buffer)
            content = {_WEIGHTS: to_safetensors(weights, metadata), _STATE: buffer.getvalue(), **attached}
            content[_MANIFEST] = _manifest(content)
            for file, data in content.items():
                write_through(temporary / file, data)
            flush_folder(temporary)
            remove(target)  # of a training that was killed before the index named it
            rename(temporary, target)
            flush_folder(self.folder)
        except (OSError, FileError) as error:
            last = self.newest()
            kept = (
                f"checkpoint {last} is intact: free space, then continue with `resume`"
                if last
                else "none was saved yet"
            )
            words = error.reason if isinstance(error, FileError) else error.strerror or error
            raise InputError(f"cannot save checkpoint {target}: {words}; {kept}") from error
        finally:
            remove(temporary)

    def _read(self, name: str, files: tuple[str, ...]) -> dict[str, bytes]:
        """Read files of a checkpoint; raises _DamagedError if they differ from the manifest."""
        expected = self._expected(name)
        content = {}
        for file in files:
            if file not in expected:
                raise _DamagedError(f"{_MANIFEST} cannot be read ({file!r})")
            data = read_bytes(self.folder / name / file)
            size, sha256 = expected[file]
            if len(data) != size:
                raise _DamagedError(f"{file} has {len(data)} bytes instead of {size}")
            if hashlib.sha256(data).hexdigest() != sha256:
                raise _DamagedError(f"the SHA-256 of {file} is not the one it was saved with")
            content[file] = data
        return content

    def _expected(self, name: str) -> dict[str, tuple[int, str]]:
        """Size and SHA-256 of a checkpoint's files, by the manifest; raises _DamagedError if it cannot be read."""
        try:
            manifest = read_json(self.folder / name / _MANIFEST)
            expected = {file: (entry["bytes"], entry["sha256"]) for file, entry in manifest["files"].items()}
            version = manifest["format"]
        except (FileError, KeyError, TypeError, AttributeError) as error:
            raise _DamagedError(f"{_MANIFEST} cannot be read ({error})") from None
        if version != _FORMAT:
            raise _DamagedError(f"it has format {version!r}, this codedtool reads format {_FORMAT}")
        return expected

    def _offer(self, index: dict[str, str], damaged: Which) -> str:
        """Name an intact checkpoint that can be used instead of the damaged one."""
        for other in ("last", "previous", "best"):
            if other in index and index[other] != index[damaged]:
                try:
                    self._read(index[other], (_WEIGHTS, _STATE))
                except (_DamagedError, FileError):
                    continue
                return f"the {other} one, {index[other]}, is intact: use `checkpoint` {other}"
        return "no other one is intact: begin a new run"

    def _complete(self) -> list[Path]:
        """The folders that hold a whole checkpoint; none where they cannot be listed."""
        try:
            return [path for path in listed(self.folder) if not is_temporary(path) and exists(path / _MANIFEST)]
        except FileError:
            return []

    def _remove_others(self, keep: set[str]) -> None:
        """Remove older checkpoints, and what a process left that was killed while it wrote; the save has succeeded."""
        with suppress(FileError):
            for path in listed(self.folder):
                # Earlier versions gave an index's temporary file the index's name.
                left = is_temporary(path) or path.name.startswith(f".{_INDEX}.")
                if left or (path.name not in keep and is_dir(path)):
                    remove(path)


class _DamagedError(Exception):
    """A checkpoint's files are damaged; the message says how."""


def _manifest(content: Mapping[str, bytes]) -> bytes:
    """The manifest of a checkpoint's files."""
    files = {file: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for file, data in content.items()}
    return (json.dumps({"format": _FORMAT, "files": files}, indent=2) + "\n").encode()


def _to_cpu(value: Any) -> Any:
    """Copy nested dicts and lists with every tensor moved to the CPU, so that any device can load them."""
    if isinstance(value, torch.Tensor):
        return value.detach().cpu()
    if isinstance(value, Mapping):
        return {key: _to_cpu(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_to_cpu(item) for item in value]
    return value


def _read_state(content: bytes) -> dict[str, Any]:
    """Read what `CheckpointStore.save` was given as ``state``; nothing in it is executed."""
    try:
        with warnings.catch_warnings():
            # A pickle of another protocol than PyTorch's is read, or refused, all the same.
            warnings.filterwarnings("ignore", "Detected pickle protocol")
            state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged or hostile pickle can raise anything
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise _DamagedError(f"{_STATE} cannot be read ({reason})") from None
    if not isinstance(state, dict):
        raise _DamagedError(f"{_STATE} holds a {type(state).__name__}")
    return state
