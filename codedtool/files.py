"""Writing files so that a crash leaves the old one or the new one, never half of either."""

from __future__ import annotations

import os
from pathlib import Path

from codedtool.errors import InputError


def refuse_existing(path: Path, *, force: bool) -> None:
    """Raise InputError when ``path`` exists and may not be overwritten, or when it is a folder."""
    if path.is_dir():
        raise InputError(f"{path} is a folder: an output must be a file; give another path")
    if path.exists() and not force:
        raise InputError(f"{path} exists already: give another path or pass --force to overwrite it")


def write_atomically(path: Path, content: bytes) -> None:
    """Write ``content`` to a temporary name beside ``path``, flush it to disk and rename it into place.

    Missing parent folders are made. On any failure the temporary file is removed, an existing ``path`` is as it
    was, and the OSError is turned into an InputError that names the path.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}; nothing was changed") from error
    finally:
        temporary.unlink(missing_ok=True)
