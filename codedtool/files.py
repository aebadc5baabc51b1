"""Writing files so that a crash leaves either the old or the new file, never a part of one."""

from __future__ import annotations

import os
from pathlib import Path

from codedtool.errors import InputError


def refuse_existing(path: Path, *, force: bool) -> None:
    """Raise InputError if ``path`` is a folder, or if it exists and ``force`` is off."""
    if path.is_dir():
        raise InputError(f"{path} is a folder: an output must be a file; give another path")
    if path.exists() and not force:
        raise InputError(f"{path} exists already: give another path, or `force` to overwrite it")


def write_atomically(path: Path, content: bytes) -> None:
    """Write ``content`` to a temporary file beside ``path``, flush it to disk and rename it to ``path``.

    Missing parent folders are made. If anything fails, the temporary file is removed and an existing ``path`` stays
    unchanged.

    Raises:
        InputError: the file could not be written.
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
