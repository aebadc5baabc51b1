"""Modules of another version of this project, to be measured beside this one in one process."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType


def import_before(folder: Path, name: str) -> ModuleType:
    """The module ``name`` of the version in ``folder`` (`git worktree add FOLDER COMMIT`); this version's stay."""
    kept = {known: sys.modules.pop(known) for known in list(sys.modules) if known.partition(".")[0] == "codedtool"}
    sys.path.insert(0, str(folder))
    try:
        before = importlib.import_module(name)
    finally:
        sys.path.remove(str(folder))
        for known in [known for known in sys.modules if known.partition(".")[0] == "codedtool"]:
            del sys.modules[known]
        sys.modules.update(kept)
    assert Path(before.__file__ or "").is_relative_to(folder.resolve()), "another version was imported"
    return before
