"""Floor 4: figures of the analyses' results, and one HTML page with all results of a run."""

from __future__ import annotations

import contextlib
import os
import sys

from codedtool.interrupts import interrupts_held


def _import_matplotlib() -> None:
    """Import matplotlib whatever MPLBACKEND says, before the modules of this package do.

    Jupyter hands its MPLBACKEND to the commands that a notebook starts. Where that backend is not installed, even the
    import of matplotlib fails. The figures of this package are drawn into files, without any backend for windows.
    """
    if "matplotlib" in sys.modules:
        return
    backend = os.environ.pop("MPLBACKEND", None)
    with interrupts_held():
        import matplotlib.figure

    if backend is not None:
        os.environ["MPLBACKEND"] = backend
        # For a notebook that imports this package: its own plots go where it wants them.
        with contextlib.suppress(ValueError):
            matplotlib.rcParams["backend"] = backend


_import_matplotlib()
