"""Shell completion of the values of options, without heavy imports."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from codedtool.files import FileError, exists, expanded, is_dir, listed

# The endings of a data set's name that the user goes on typing.
_DATA = ("cifar10", "cifar100", "digits", "folder:", "synthetic:10")


def complete_preset(incomplete: str) -> list[str]:
    """Names of architectures."""
    from codedtool.models.families import EXAMPLES

    return [name for name in EXAMPLES if name.startswith(incomplete)]


def complete_run(incomplete: str) -> list[str]:
    """Names of the runs in runs/, or folders where a path is typed."""
    # `codedtool.training.run` imports torch.
    names = [path.name for path in _listed("runs") if _there(path / "config.json", exists)]
    found = [name for name in names if name.startswith(incomplete)]
    return found or _paths(incomplete, None)


def complete_data(incomplete: str) -> list[str]:
    """Names of data sets; after folder: the folders."""
    kind, colon, path = incomplete.partition(":")
    if kind == "folder" and colon:
        return [f"folder:{found}" for found in _paths(path, None)]
    return [name for name in _DATA if name.startswith(incomplete)]


def complete_scheme(incomplete: str) -> list[str]:
    """Names of shipped schemes, and .npy files."""
    from codedtool.coding.shipped import shipped_names

    shipped = [name for name in shipped_names() if name.startswith(incomplete)]
    return [*shipped, *_paths(incomplete, ".npy")]


def _paths(incomplete: str, ending: str | None) -> list[str]:
    """Folders, with a slash at the end, and files with the given ending, whose paths begin with ``incomplete``."""
    folder, name = os.path.split(incomplete)
    found = []
    for entry in _listed(folder or "."):
        if not entry.name.startswith(name) or (entry.name.startswith(".") and not name.startswith(".")):
            continue
        if _there(entry, is_dir):
            found.append(os.path.join(folder, entry.name) + "/")
        elif ending is not None and entry.name.endswith(ending):
            found.append(os.path.join(folder, entry.name))
    return found


def _listed(folder: str) -> list[Path]:
    """What is in a folder; nothing if it cannot be listed."""
    try:
        return listed(expanded(folder))
    except FileError:
        return []


def _there(path: Path, check: Callable[[Path], bool]) -> bool:
    """Whether a check of `codedtool.files` holds; not for a path that the system does not let be looked at."""
    try:
        return check(path)
    except FileError:
        return False


# The recipe's values whose flags complete.
OF_RECIPE = {"preset": complete_preset, "data": complete_data}
