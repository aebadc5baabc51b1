"""Checkpoints that a kill, a crash or a full disk cannot spoil.

    checkpoints/
        index.json          which folder is last, previous and best; replaced atomically, after the folder is whole
        e0003s000040/       written under a temporary name, flushed, renamed
            weights.safetensors   the network to use (the moving average, where one is kept)
            state.pt              optimizer, moving average, counters, metrics: builtins and tensors only
            manifest.json         size and SHA-256 of the two

A kill before the index is replaced leaves the old index and folders that nothing names; the next save removes them.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import safetensors
import safetensors.torch
import torch

from codedtool.errors import InputError
from codedtool.files import write_atomically

Which = Literal["last", "previous", "best"]

_FORMAT = 1
_WEIGHTS, _STATE, _MANIFEST, _INDEX = "weights.safetensors", "state.pt", "manifest.json", "index.json"


@dataclass(frozen=True)
class Checkpoint:
    """What one checkpoint folder holds.

    Attributes:
        name: the folder's name.
        weights: name -> tensor, on the CPU, of the network to evaluate.
        metadata: text -> text stored beside the weights (the schemes' sha256 among it).
        state: builtins and tensors that continue the training; empty when only the weights were asked for.
    """

    name: str
    weights: dict[str, torch.Tensor]
    metadata: dict[str, str]
    state: dict[str, Any]


class CheckpointStore:
    """The checkpoints of one run, in one folder.

    Args:
        folder: made at the first save.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def index(self) -> dict[str, str]:
        """Which of last, previous and best exist -> folder name; empty before the first save.

        Raises:
            InputError: the index cannot be read.
        """
        path = self.folder / _INDEX
        try:
            document = json.loads(path.read_text())
            return {which: str(document[which]) for which in ("last", "previous", "best") if which in document}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError) as error:
            raise InputError(f"{path}: cannot be read ({error}); restore it or begin a new run") from None

    def save(
        self,
        name: str,
        weights: Mapping[str, torch.Tensor],
        state: Mapping[str, Any],
        *,
        metadata: Mapping[str, str],
        best: bool,
    ) -> None:
        """Write a checkpoint, make it the last (and the best, if ``best``), keep the one before, remove older ones.

        Args:
            name: the new folder's name; a checkpoint of that name that is the last already is left as it is.
            weights: tensors of any device.
            state: nested dicts and lists of int, float, str, bool, None and tensors.
            metadata: stored with the weights.
            best: the evaluation of these weights was the best so far.

        Raises:
            InputError: the write failed (disk full, say); every checkpoint saved before is as it was.
        """
        index = self.index()
        if index.get("last") != name:
            self._write_folder(name, weights, state, metadata)
            if "last" in index:
                index["previous"] = index["last"]
            index["last"] = name
        if best:
            index["best"] = name
        write_atomically(self.folder / _INDEX, (json.dumps(index, indent=2) + "\n").encode())
        self._remove_others(set(index.values()))

    def load(self, which: Which, *, weights_only: bool = False) -> Checkpoint:
        """Read a checkpoint back, on the CPU, after comparing its files with their SHA-256.

        Raises:
            InputError: there is none, or it is damaged; names the file, what is wrong and which other one is whole.
        """
        index = self.index()
        if which not in index:
            has = ", ".join(index) or "none"
            raise InputError(f"{self.folder}: there is no {which} checkpoint (there is: {has})")
        files = (_WEIGHTS,) if weights_only else (_WEIGHTS, _STATE)
        try:
            content = self._read(index[which], files)
            with_metadata = _safetensors_metadata(content[_WEIGHTS])
            weights = safetensors.torch.load(content[_WEIGHTS])
            state = {}
            if not weights_only:
                state = torch.load(io.BytesIO(content[_STATE]), map_location="cpu", weights_only=True)
        except (_DamagedError, OSError, ValueError, RuntimeError, safetensors.SafetensorError) as error:
            raise InputError(
                f"checkpoint {self.folder / index[which]} is damaged: {error}; {self._offer(index, which)}"
            ) from None
        return Checkpoint(name=index[which], weights=weights, metadata=with_metadata, state=state)

    def rewind(self, which: Which) -> None:
        """Make ``which`` the last checkpoint: training goes on from it, and what came after it is dropped.

        The dropped folder stays on disk until the next save.
        """
        index = self.index()
        dropped, chosen = index.get("last"), index[which]
        if dropped == chosen:
            return
        kept = {key: name for key, name in index.items() if name != dropped and key != "previous"}
        write_atomically(self.folder / _INDEX, (json.dumps({**kept, "last": chosen}, indent=2) + "\n").encode())

    def _write_folder(
        self, name: str, weights: Mapping[str, torch.Tensor], state: Mapping[str, Any], metadata: Mapping[str, str]
    ) -> None:
        temporary = self.folder / f".{name}.tmp"
        target = self.folder / name
        try:
            for leftover in (temporary, target):
                shutil.rmtree(leftover, ignore_errors=True)
            temporary.mkdir(parents=True)
            buffer = io.BytesIO()
            torch.save(_to_cpu(state), buffer)
            tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in weights.items()}
            content = {
                _WEIGHTS: safetensors.torch.save(tensors, metadata=dict(metadata)),
                _STATE: buffer.getvalue(),
            }
            manifest = {
                "format": _FORMAT,
                "files": {
                    file: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
                    for file, data in content.items()
                },
            }
            content[_MANIFEST] = (json.dumps(manifest, indent=2) + "\n").encode()
            for file, data in content.items():
                _write_through(temporary / file, data)
            _flush_folder(temporary)
            os.replace(temporary, target)
            _flush_folder(self.folder)
        except OSError as error:
            shutil.rmtree(temporary, ignore_errors=True)
            last = self.index().get("last")
            kept = (
                f"checkpoint {last} is whole: free the space and go on with --resume" if last else "none was saved yet"
            )
            raise InputError(f"cannot save checkpoint {target}: {error.strerror or error}; {kept}") from error

    def _read(self, name: str, files: tuple[str, ...]) -> dict[str, bytes]:
        """The wanted files' bytes; raises _DamagedError where they differ from the manifest."""
        folder = self.folder / name
        try:
            manifest = json.loads((folder / _MANIFEST).read_text())
            expected = manifest["files"]
            version = manifest["format"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise _DamagedError(f"{_MANIFEST} cannot be read ({error})") from None
        if version != _FORMAT:
            raise _DamagedError(f"it has format {version!r}, this codedtool reads format {_FORMAT}")
        content = {}
        for file in files:
            data = (folder / file).read_bytes()
            if len(data) != expected[file]["bytes"]:
                raise _DamagedError(f"{file} has {len(data)} bytes instead of {expected[file]['bytes']}")
            if hashlib.sha256(data).hexdigest() != expected[file]["sha256"]:
                raise _DamagedError(f"the SHA-256 of {file} is not the one it was saved with")
            content[file] = data
        return content

    def _offer(self, index: dict[str, str], damaged: Which) -> str:
        """Which other checkpoint can be used instead, and how."""
        for other in ("last", "previous", "best"):
            if other in index and index[other] != index[damaged]:
                try:
                    self._read(index[other], (_WEIGHTS, _STATE))
                except (_DamagedError, OSError):
                    continue
                return f"the {other} one, {index[other]}, is whole: pass --checkpoint {other}"
        return "no other one is whole: begin a new run"

    def _remove_others(self, keep: set[str]) -> None:
        """Remove older checkpoints, and what a process that was killed while it wrote left under a temporary name."""
        for entry in self.folder.iterdir():
            if entry.is_dir() and entry.name not in keep:
                shutil.rmtree(entry, ignore_errors=True)
            elif entry.name.startswith(f".{_INDEX}."):
                entry.unlink(missing_ok=True)


class _DamagedError(Exception):
    """What is wrong with a checkpoint's files."""


def _to_cpu(value: Any) -> Any:
    """A copy of nested dicts and lists with every tensor on the CPU, so that any device can load them."""
    if isinstance(value, torch.Tensor):
        return value.detach().cpu()
    if isinstance(value, Mapping):
        return {key: _to_cpu(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_to_cpu(item) for item in value]
    return value


def _safetensors_metadata(data: bytes) -> dict[str, str]:
    """The text metadata in a safetensors file's header: 8 bytes of length, then JSON."""
    length = int.from_bytes(data[:8], "little")
    metadata = json.loads(data[8 : 8 + length]).get("__metadata__", {})
    return {str(key): str(value) for key, value in metadata.items()}


def _write_through(path: Path, data: bytes) -> None:
    with path.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def _flush_folder(folder: Path) -> None:
    """Make a folder's entries durable, where the system can open a folder."""
    if hasattr(os, "O_DIRECTORY"):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
