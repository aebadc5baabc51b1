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

    def attached(self, name: str, file: str) -> bytes | None:
        """The content of a further file of checkpoint ``name`` (see `save`); None if it has none, or a damaged one."""
        try:
            return self._read(name, (file,))[file]
        except (_DamagedError, InputError, OSError, KeyError):
            return None

    def rewind(self, which: Which) -> None:
        """Make ``which`` the last checkpoint and drop the later ones; their folders stay until the next save."""
        index = self.index()
        dropped, chosen = index.get("last"), index[which]
        if dropped == chosen:
            return
        kept = {key: name for key, name in index.items() if name != dropped and key != "previous"}
        write_atomically(self.folder / _INDEX, (json.dumps({**kept, "last": chosen}, indent=2) + "\n").encode())

    def _write_folder(
        self,
        name: str,
        weights: Mapping[str, torch.Tensor],
        state: Mapping[str, Any],
        metadata: Mapping[str, str],
        attached: Mapping[str, bytes],
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
                **attached,
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
                f"checkpoint {last} is intact: free space, then continue with `resume`"
                if last
                else "none was saved yet"
            )
            raise InputError(f"cannot save checkpoint {target}: {error.strerror or error}; {kept}") from error

    def _read(self, name: str, files: tuple[str, ...]) -> dict[str, bytes]:
        """Read files of a checkpoint; raises _DamagedError if they differ from the manifest."""
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
        """Name an intact checkpoint that can be used instead of the damaged one."""
        for other in ("last", "previous", "best"):
            if other in index and index[other] != index[damaged]:
                try:
                    self._read(index[other], (_WEIGHTS, _STATE))
                except (_DamagedError, OSError):
                    continue
                return f"the {other} one, {index[other]}, is intact: use `checkpoint` {other}"
        return "no other one is intact: begin a new run"

    def _remove_others(self, keep: set[str]) -> None:
        """Remove older checkpoints, and temporary files of a process that was killed while it wrote."""
        for entry in self.folder.iterdir():
            if entry.is_dir() and entry.name not in keep:
                shutil.rmtree(entry, ignore_errors=True)
            elif entry.name.startswith(f".{_INDEX}."):
                entry.unlink(missing_ok=True)


class _DamagedError(Exception):
    """A checkpoint's files are damaged; the message says how."""


def _to_cpu(value: Any) -> Any:
    """Copy nested dicts and lists with every tensor moved to the CPU, so that any device can load them."""
    if isinstance(value, torch.Tensor):
        return value.detach().cpu()
    if isinstance(value, Mapping):
        return {key: _to_cpu(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_to_cpu(item) for item in value]
    return value


def _safetensors_metadata(data: bytes) -> dict[str, str]:
    """Read the text metadata from a safetensors file's header: 8 bytes of length, then JSON."""
    length = int.from_bytes(data[:8], "little")
    metadata = json.loads(data[8 : 8 + length]).get("__metadata__", {})
    return {str(key): str(value) for key, value in metadata.items()}


def _write_through(path: Path, data: bytes) -> None:
    with path.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def _flush_folder(folder: Path) -> None:
    """Flush a folder's entries to disk, on systems that can open a folder."""
    if hasattr(os, "O_DIRECTORY"):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
