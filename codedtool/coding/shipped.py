"""The schemes that belong to the installation: their folder, their names, and the file that a name or path means."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

import codedtool
from codedtool.errors import InputError
from codedtool.files import files_ending, is_dir, is_file


def shipped_folder() -> Path:
    """The folder of the shipped schemes.

    A wheel holds them inside the package; in a checkout, also an editable one, they lie beside it.
    """
    package = Path(codedtool.__file__).parent
    inside = package / "schemes"
    return inside if is_dir(inside) else package.parent / "schemes"


def shipped_names() -> tuple[str, ...]:
    """The names of the shipped schemes, sorted.

    >>> "c100_4of20" in shipped_names()
    True
    """
    return tuple(path.stem for path in files_ending(shipped_folder(), ".npy"))


def shipped_path(name: str) -> Path:
    """The ``.npy`` of the shipped scheme called ``name``.

    Raises:
        InputError: no shipped scheme has this name; the message names the nearest one.
    """
    names = shipped_names()
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise InputError(
            f"{name}: there is no such file, and no shipped scheme has this name; {hint}"
            "`codedtool schemes` lists the shipped ones"
        )
    return shipped_folder() / f"{name}.npy"


def scheme_path(name_or_path: str | os.PathLike[str]) -> Path:
    """The file of a scheme that is given by the name of a shipped one or by a path.

    A path that exists wins. A name has neither a folder nor the ending ``.npy``.

    >>> scheme_path("schemes/mine.npy").as_posix(), scheme_path("c100_4of20").name
    ('schemes/mine.npy', 'c100_4of20.npy')

    Raises:
        InputError: it is a name, and no shipped scheme has it.
    """
    path = Path(name_or_path)
    is_name = path.name == os.fspath(name_or_path) and path.suffix != ".npy"
    return shipped_path(path.name) if is_name and not is_file(path) else path


def shown_path(path: Path) -> str:
    """``path`` for people and records: the name alone of a shipped scheme, which is the same on every machine."""
    return path.stem if path.parent == shipped_folder() else str(path)
