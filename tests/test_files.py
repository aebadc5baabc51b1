"""File work: refusals of the system are one clear error, writing is whole or not at all, clean-up hides nothing."""

from __future__ import annotations

import ast
import errno
import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import codedtool
from codedtool import files
from codedtool.errors import InputError
from codedtool.files import FileError, MissingFileError, OccupiedError

pytestmark = pytest.mark.quick

LONG = Path("x" * 300)


def refusing(monkeypatch: pytest.MonkeyPatch, name: str, number: int, *, at: Callable[..., bool] | None = None) -> None:
    """Let a function of ``os`` answer with an error: root, who runs many tests, may do everything."""
    real = getattr(os, name)

    def refuse(*args: Any, **kwargs: Any) -> Any:
        if at is None or at(*args):
            raise OSError(number, os.strerror(number), str(args[0]))
        return real(*args, **kwargs)

    monkeypatch.setattr(os, name, refuse)


@pytest.mark.parametrize("look", [files.exists, files.is_dir, files.is_file])
def test_a_path_that_cannot_be_looked_at_is_said_with_its_name_and_the_reason(
    look: Callable[[Path], bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not look(tmp_path / "none")
    (tmp_path / "file").touch()
    assert not look(tmp_path / "file" / "below")
    with pytest.raises(FileError, match=r"^x{300}: cannot be looked at \(File name too long\)$"):
        look(LONG)
    with pytest.raises(FileError, match="null"):
        look(Path("a\0b"))
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(FileError, match="Too many levels of symbolic links"):
        look(tmp_path / "loop")
    refusing(monkeypatch, "stat", errno.EACCES)
    with pytest.raises(FileError, match=r"locked: cannot be looked at \(Permission denied\)$"):
        look(Path("locked"))


def test_reading_says_path_reason_and_advice(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"none: cannot be read \(No such file or directory\); give another$"):
        files.read_bytes(tmp_path / "none", "give another")
    for read in (files.read_bytes, files.read_text, files.read_json, files.sha256):
        with pytest.raises(FileError, match=r"cannot be read \(Is a directory\)"):
            read(tmp_path)  # type: ignore[operator]
        with pytest.raises(FileError, match=r"cannot be read \(File name too long\)"):
            read(LONG)  # type: ignore[operator]
        with pytest.raises(FileError, match=r"cannot be read \(embedded null byte\)"):
            read(Path("a\0b"))  # type: ignore[operator]
    path = tmp_path / "file"
    path.write_bytes(b"\xff")
    with pytest.raises(FileError, match="cannot be read as text"):
        files.read_text(path)
    for content in (b"{", b"[" * 100_000, b""):
        path.write_bytes(content)
        with pytest.raises(FileError, match="cannot be read as JSON"):
            files.read_json(path)
    path.write_bytes(b"\xef\xbb\xbf[1]")
    assert files.read_json(path) == [1]
    assert files.sha256(path) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_an_error_of_the_reader_is_not_told_as_one_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="^mine$") as caught, files.opened(tmp_path / "file"):
        raise ValueError("mine")
    assert not isinstance(caught.value, FileError)


def test_listing_is_sorted_and_leaves_out_hidden_files_and_folders(tmp_path: Path) -> None:
    for name in ("b.npy", "a.npy", "._a.npy", "c.txt"):
        (tmp_path / name).touch()
    (tmp_path / "folder.npy").mkdir()
    (tmp_path / "nowhere.npy").symlink_to(tmp_path / "gone")
    assert [path.name for path in files.files_ending(tmp_path, ".npy")] == ["a.npy", "b.npy", "nowhere.npy"]
    assert [path.name for path in files.listed(tmp_path)] == sorted(os.listdir(tmp_path))
    for folder in (tmp_path / "none", tmp_path / "a.npy", LONG):
        with pytest.raises(FileError, match="cannot be listed"):
            files.listed(folder)
        with pytest.raises(FileError, match="cannot be listed"):
            files.files_ending(folder, ".npy")


# The calls of a write that the system can refuse: the write itself, both flushes' kinds, the renaming, a new folder.
STEPS = ("open", "fsync", "replace", "mkdir")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS])
@pytest.mark.parametrize("step", STEPS)
def test_a_write_that_fails_leaves_everything_as_it_was(
    step: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / ("new/folder/file" if step == "mkdir" else "file")
    if step != "mkdir":
        target.write_bytes(b"old")
    before = sorted(tmp_path.rglob("*"))
    if step == "open":
        monkeypatch.setattr(files, "open", _refuse(number), raising=False)
    else:
        refusing(monkeypatch, step, number)
    with pytest.raises(FileError) as caught:
        files.write_atomically(target, b"new")
    assert str(caught.value) == f"cannot write {target}: {os.strerror(number)}; nothing was changed"
    assert caught.value.reason == os.strerror(number)
    monkeypatch.undo()
    assert sorted(tmp_path.rglob("*")) == before
    assert step == "mkdir" or target.read_bytes() == b"old"


def _refuse(number: int) -> Callable[..., Any]:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise OSError(number, os.strerror(number))

    return refuse


def test_a_failed_clean_up_does_not_hide_the_first_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refusing(monkeypatch, "replace", errno.ENOSPC)
    for name in ("unlink", "rmdir"):
        refusing(monkeypatch, name, errno.EACCES)
    with pytest.raises(FileError, match="No space left on device; nothing was changed"):
        files.write_atomically(tmp_path / "new" / "file", b"new")
    files.remove(tmp_path / "new")  # never raises


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF, errno.EACCES, errno.EPERM])
def test_a_file_system_that_cannot_flush_is_written_to_all_the_same(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusing(monkeypatch, "fsync", number)
    files.write_atomically(tmp_path / "file", b"new")
    files.flush_folder(tmp_path)
    refusing(monkeypatch, "open", number)
    files.flush_folder(tmp_path)
    assert (tmp_path / "file").read_bytes() == b"new"


def test_a_disk_that_fails_while_it_flushes_a_folder_is_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusing(monkeypatch, "fsync", errno.EIO)
    with pytest.raises(OSError, match="Input/output error"):
        files.flush_folder(tmp_path)


def test_a_name_that_is_just_short_enough_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("x" * os.pathconf(tmp_path, "PC_NAME_MAX"))
    files.write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert len(list(tmp_path.iterdir())) == 1


def test_writers_of_one_file_at_once_leave_one_whole_file(tmp_path: Path) -> None:
    contents = [bytes([number]) * 100_000 for number in range(8)]
    errors: list[Exception] = []

    def write(content: bytes) -> None:
        try:
            for _ in range(5):
                files.write_atomically(tmp_path / "folder" / "file", content)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["file"]
    assert (tmp_path / "folder" / "file").read_bytes() in contents


def test_a_written_file_has_the_rights_of_any_new_file(tmp_path: Path) -> None:
    files.write_atomically(tmp_path / "ours", b"")
    (tmp_path / "any").touch()
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "any").stat().st_mode


def test_what_is_no_file_is_not_replaced_by_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder"):
        files.check_target(tmp_path, force=True)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="no ordinary file"):
        files.check_target(tmp_path / "pipe", force=True)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="exists already"):
        files.check_target(tmp_path / "file", force=False)
    files.check_target(tmp_path / "file", force=True)
    files.check_target(tmp_path / "none", force=False)


def test_a_path_that_cannot_be_written_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "below", tmp_path / ("x" * 300), Path("/proc/none/x")):
        with pytest.raises(files.FileError, match="cannot|too long|Not a directory"):
            files.check_target(path, force=True)
    files.check_target(tmp_path / "new" / "folder" / "x", force=False)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_takes_no_name_that_is_taken(tmp_path: Path) -> None:
    for name in ("new", "taken", "empty"):
        (tmp_path / name).mkdir()
    (tmp_path / "taken" / "something").touch()
    (tmp_path / "file").touch()
    for taken in ("taken", "file"):
        with pytest.raises(OccupiedError):
            files.rename(tmp_path / "new", tmp_path / taken)
    files.rename(tmp_path / "new", tmp_path / "free")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file", "free", "taken"]


def test_without_a_home_folder_a_path_stays_as_it_is() -> None:
    # A user whom the system does not know, in an environment without HOME.
    probe = (
        "import pwd\n"
        "def unknown(uid): raise KeyError('uid not found')\n"
        "pwd.getpwuid = unknown\n"
        "from codedtool import files; print(files.expanded('~/a'))"
    )
    environment = {key: value for key, value in os.environ.items() if key != "HOME"}
    done = subprocess.run(
        [sys.executable, "-c", probe], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.stderr) == ("~/a\n", "")
    assert files.expanded("a/~b") == Path("a/~b")


def test_a_working_folder_that_is_gone_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert files.absolute(Path("a")) == Path("a")
    with pytest.raises(FileError, match="cannot write new/a: No such file or directory; nothing was changed"):
        files.write_atomically(Path("new/a"), b"")


# Names of methods and functions that ask the system about a path.
TOUCHING = {
    *(
        "exists",
        "is_dir",
        "is_file",
        "iterdir",
        "glob",
        "rglob",
        "read_text",
        "read_bytes",
        "write_text",
        "write_bytes",
    ),
    *("open", "mkdir", "unlink", "rmtree", "expanduser", "stat", "fsync", "listdir", "scandir"),
}
# What is not the user's: the package's own files, /proc, /dev/null, a cache of others. A folder of images is listed by
# the million, with what the listing itself tells of every entry.
OWN = {
    "cli/ranks.py": {"open"},
    "cli/streams.py": {"open"},
    "coding/compiled.py": {"read_bytes", "expanduser"},
    "data/cifar.py": {"open"},
    "data/listing.py": {"scandir", "is_dir", "is_file", "exists", "stat"},
    "training/inductor.py": {"rmtree"},
    "training/memory.py": {"read_text"},
    "training/precision.py": {"read_text"},
}
OTHER = {"Image", "tarfile"}


def test_file_work_goes_through_the_one_module() -> None:
    package = Path(codedtool.__file__).parent
    found = []
    for path in sorted(package.rglob("*.py")):
        name = path.relative_to(package).as_posix()
        if name == "files.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute | ast.Name):
                continue
            method = node.func if isinstance(node.func, ast.Attribute) else None
            called = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
            of = method.value.id if method is not None and isinstance(method.value, ast.Name) else ""
            is_ours = method is None and called != "open"
            if called in TOUCHING - OWN.get(name, set()) and not is_ours and of not in OTHER:
                found.append(f"{name}:{node.lineno} {called}")
    assert found == []
