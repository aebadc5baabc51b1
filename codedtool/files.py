"""File work: look, list, read, write, flush, clean up.

Every function tells a refusal of the system in one `FileError`, with the path and the system's words. Writing leaves
either the old or the new file, never a part of one. A failed clean-up never hides the error before it.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import secrets
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

from codedtool.errors import CodedtoolError, InputError
from codedtool.text import decode_text

# Temporary files and folders begin with this and end in random digits. It is short because a file name that is just
# short enough for the file system must not be refused for its temporary name.
_TEMPORARY = ".codedtool-"

# What file systems answer that cannot flush, or cannot open a folder in order to flush it: shared folders of virtual
# machines, old network drives, folders without the right to be listed.
_CANNOT_FLUSH = frozenset(
    {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, errno.EACCES, errno.EPERM}
)
_NOTHING_THERE = (errno.ENOENT, errno.ENOTDIR)
_OCCUPIED = (errno.EEXIST, errno.ENOTEMPTY, errno.EISDIR)


class FileError(InputError):
    """The system refuses to look at, read or write a path, or the file there cannot be understood.

    Attributes:
        reason: the system's words alone, for a message that names another path.
    """

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason or message


class MissingFileError(FileError):
    """There is nothing at the path."""


class OccupiedError(FileError):
    """Something is at the path already."""


def exists(path: Path) -> bool:
    """Whether something is at ``path``; a link counts as what it leads to.

    Raises:
        FileError: the system does not tell, for example because a folder on the way may not be searched.
    """
    return _mode(path) is not None


def is_dir(path: Path) -> bool:
    """Whether ``path`` is a folder, or a link to one; raises as `exists`."""
    return stat.S_ISDIR(_mode(path) or 0)


def is_file(path: Path) -> bool:
    """Whether ``path`` is an ordinary file, or a link to one; raises as `exists`."""
    return stat.S_ISREG(_mode(path) or 0)


def listed(folder: Path) -> list[Path]:
    """Everything in a folder, sorted by name.

    Raises:
        FileError: the folder cannot be listed.
    """
    with _told(f"{folder}: cannot be listed"):
        return [folder / name for name in sorted(os.listdir(folder))]


def files_ending(folder: Path, suffix: str) -> list[Path]:
    """The files in a folder whose names end in ``suffix``, sorted by name, without hidden ones.

    Raises:
        FileError: the folder cannot be listed.
    """
    with _told(f"{folder}: cannot be listed"), os.scandir(folder) as entries:
        names = [entry.name for entry in entries if not entry.name.startswith(".") and _may_be_read(entry)]
    return [folder / name for name in sorted(names) if Path(name).suffix == suffix]


def expanded(path: str | os.PathLike[str]) -> Path:
    """``path`` with the home folder in place of ``~``; unchanged for a user who has none."""
    return Path(os.path.expanduser(path))


def absolute(path: Path) -> Path:
    """``path`` from the root on; unchanged if the working folder is gone."""
    try:
        return path.absolute()
    except OSError:
        return path


@contextmanager
def opened(path: Path, advice: str = "") -> Iterator[BinaryIO]:
    """Open a file for reading, in bytes.

    Args:
        path: the file.
        advice: what to do if it cannot be read; ends the error's message.

    Raises:
        FileError: the file cannot be opened or read; `MissingFileError` if there is none.
    """
    failure = f"{path}: cannot be read"
    with _told(failure, advice):
        stream = open(path, "rb")  # noqa: SIM115  # a ValueError of the body below is not about the path
    with stream:
        try:
            yield stream
        except OSError as error:
            raise _error(failure, error, advice) from error


def read_bytes(path: Path, advice: str = "") -> bytes:
    """The content of a file; arguments and errors as `opened`."""
    with opened(path, advice) as stream:
        return stream.read()


def read_text(path: Path, advice: str = "") -> str:
    """The text of a file, as `codedtool.text.decode_text` reads it; arguments as `opened`.

    Raises:
        FileError: the file cannot be read, or is not text.
    """
    content = read_bytes(path, advice)
    with _told(f"{path}: cannot be read as text", advice):
        return decode_text(content)


def read_json(path: Path, advice: str = "") -> Any:
    """The document in a JSON file; arguments as `opened`.

    Raises:
        FileError: the file cannot be read, or is not JSON.
    """
    text = read_text(path, advice)
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise _error(f"{path}: cannot be read as JSON", error, advice) from None


@contextmanager
def locked(folder: Path, refusal: str) -> Iterator[None]:
    """Within it, no other process can be within it for the same folder. The lock ends with its process.

    On a system or a file system without such locks, nothing is locked.

    Raises:
        InputError: another process is within it; ``refusal`` is the message.
    """
    try:
        import fcntl
    except ImportError:  # not on Windows
        yield
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # whoever reads or writes in the folder will report it
        yield
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(refusal) from None
        except OSError:
            pass  # a network drive's server without locks
        yield
    finally:
        os.close(descriptor)


def _refuse_constant(name: str) -> None:
    """Python reads NaN, Infinity and -Infinity, and JSON has none of them."""
    raise ValueError(f"{name} is no number of JSON")


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file; raises as `opened`."""
    with opened(path) as stream:
        return hashlib.file_digest(cast(io.BufferedReader, stream), "sha256").hexdigest()


def total_bytes(folder: Path) -> int:
    """Size of all files below a folder, in bytes.

    Raises:
        FileError: the folder cannot be listed.
    """
    with _told(f"{folder}: cannot be listed"):
        return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def check_target(path: Path, *, force: bool) -> None:
    """Refuse before long work a path that could not be written after it.

    Raises:
        InputError: ``path`` is a folder or device, or it exists and ``force`` is off.
        FileError: the nearest folder above ``path`` that is there takes no new file.
    """
    mode = _mode(path)
    if mode is not None and stat.S_ISDIR(mode):
        raise InputError(f"{path} is a folder: an output must be a file; give another path")
    if mode is not None and not stat.S_ISREG(mode):
        raise InputError(f"{path} is no ordinary file, and would be replaced by one; give another path")
    if mode is not None and not force:
        raise InputError(f"{path} exists already: give another path, or `force` to overwrite it")
    folders = absolute(path).parents
    # Permissions do not tell everything: a file system may be read-only, or take no files at all, as /proc.
    trial = temporary_beside(next((folder for folder in folders if exists(folder)), path.parent) / path.name)
    with _told(f"cannot write {path}", joined=": "):
        try:
            open(trial, "xb").close()
        finally:
            remove(trial)


def write_atomically(path: Path, content: bytes) -> None:
    """Write ``content`` to a temporary file beside ``path``, flush it to disk and rename it to ``path``.

    Missing parent folders are made. If anything fails, the temporary file and new folders are removed and an existing
    ``path`` stays unchanged.

    Raises:
        FileError: the file could not be written.
    """
    write_together({path: content})


def write_together(contents: Mapping[Path, bytes]) -> None:
    """Write files that belong together as `write_atomically`: none gets its name before all are on the disk.

    Args:
        contents: path -> content; a kill between two renamings leaves the first ones new and the others old.

    Raises:
        FileError: a file could not be written; none was changed.
    """
    temporaries = {path: temporary_beside(path) for path in contents}
    made: list[Path] = []
    try:
        for path, content in contents.items():
            with _told(f"cannot write {path}", "nothing was changed", joined=": "):
                if is_dir(path):  # else it would be seen at the renaming, when another file may have its name already
                    raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
                _make_folders(path.parent, made)
                write_through(temporaries[path], content)
        for path, temporary in temporaries.items():
            with _told(f"cannot write {path}", "nothing was changed", joined=": "):
                os.replace(temporary, path)
        made.clear()
    finally:
        for temporary in temporaries.values():
            remove(temporary)
        remove_empty(made)


def write_through(path: Path, content: bytes) -> None:
    """Write a new file and flush it to disk; raises OSError, for callers that know what it means."""
    with open(path, "xb") as stream:
        stream.write(content)
        stream.flush()
        _flush(stream.fileno())


def make_folder(folder: Path, made: list[Path]) -> None:
    """Make a folder and those above it, where they are missing, and append each to ``made`` as soon as it is there.

    Raises:
        FileError: it cannot be made.
    """
    with _told(f"cannot make the folder {folder}", joined=": "):
        _make_folders(folder, made)


def remove_empty(made: list[Path]) -> None:
    """Remove the folders that `make_folder` made, unless something is in them; never raises."""
    for folder in reversed(made):
        with suppress(OSError):
            folder.rmdir()


def rename(source: Path, target: Path) -> None:
    """Give a file or folder another name, at once and whole; a file at ``target`` is replaced.

    Raises:
        OccupiedError: ``source`` is a folder, and ``target`` is a file or a folder that holds something.
        FileError: another refusal.
    """
    with _told(f"cannot write {target}", joined=": "):
        try:
            os.replace(source, target)
        except NotADirectoryError:  # a folder is renamed, and a file has the name
            raise OccupiedError(f"cannot write {target}: a file has this name") from None


def flush_folder(folder: Path) -> None:
    """Flush a folder's entries to disk, where the system can; raises OSError if the disk fails."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        if error.errno in _CANNOT_FLUSH:
            return
        raise
    try:
        _flush(descriptor)
    finally:
        os.close(descriptor)


def temporary_beside(path: Path) -> Path:
    """A new path in the folder of ``path``, for a file or folder that is renamed to ``path`` once it is complete."""
    return path.parent / f"{_TEMPORARY}{secrets.token_hex(8)}"


def is_temporary(path: Path) -> bool:
    """Whether a path is from `temporary_beside`; a process that was killed may have left it."""
    return path.name.startswith(_TEMPORARY)


def remove(path: Path) -> None:
    """Remove a file, or a folder with all it holds, as far as the system lets; never raises."""
    with suppress(OSError, ValueError):
        path.unlink()
        return
    shutil.rmtree(path, ignore_errors=True)


def _mode(path: Path) -> int | None:
    """Kind and rights of what is at ``path``; None if there is nothing."""
    try:
        return os.stat(path).st_mode
    except OSError as error:
        if error.errno in _NOTHING_THERE:
            return None
        raise _error(f"{path}: cannot be looked at", error) from error
    except ValueError as error:  # a path with a null byte
        raise _error(f"{path!r}: cannot be a path", error) from error


def _may_be_read(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is an ordinary file, or a link that leads nowhere, of which whoever reads it is told.

    A pipe is neither: reading it would wait for a writer forever.
    """
    try:
        return entry.is_file() or (entry.is_symlink() and not os.path.exists(entry.path))
    except OSError:
        return True


def _make_folders(folder: Path, made: list[Path]) -> None:
    """As `make_folder`; raises OSError."""
    missing = []
    while _mode(folder) is None and folder != folder.parent:
        missing.append(folder)
        folder = folder.parent
    for folder in reversed(missing):
        with suppress(FileExistsError):  # another process made it meanwhile
            folder.mkdir()
            made.append(folder)


def _flush(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _CANNOT_FLUSH:
            raise


@contextmanager
def _told(failure: str, advice: str = "", *, joined: str = "") -> Iterator[None]:
    """Within it, an OSError, or a ValueError of a text that is no path, becomes a FileError about ``failure``."""
    try:
        yield
    except CodedtoolError:
        raise
    except (OSError, ValueError) as error:
        raise _error(failure, error, advice, joined=joined) from error


def _error(failure: str, error: Exception, advice: str = "", *, joined: str = "") -> FileError:
    words = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    number = error.errno if isinstance(error, OSError) else None
    kind = MissingFileError if number in _NOTHING_THERE else OccupiedError if number in _OCCUPIED else FileError
    said = f"{failure}{joined}{words}" if joined else f"{failure} ({words})"
    return kind(f"{said}; {advice}" if advice else said, words)
