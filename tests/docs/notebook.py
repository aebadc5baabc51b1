"""Executes the tutorial; ``python -m tests.docs.notebook`` writes its outputs back."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.paths import ROOT

NOTEBOOK = ROOT / "docs" / "tutorial.ipynb"


def executed(folder: Path) -> Any:
    """The tutorial with the outputs of its cells, executed from the first to the last in an empty folder.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed.
    """
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    # The cells call codedtool by its name: that of this interpreter's environment, and of this working tree.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    os.environ["CLONE"] = str(ROOT)
    client = NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(folder)}}, record_timing=False
    )
    client.execute()
    return notebook


def _joined(outputs: list[Any]) -> list[Any]:
    """The outputs with the parts in which a command's text arrived made one, and without a terminal's colours."""
    joined: list[Any] = []
    for output in outputs:
        previous = joined[-1] if joined else None
        if previous and output.output_type == previous.output_type == "stream" and output.name == previous.name:
            previous.text += output.text
        else:
            joined.append(output)
    for output in joined:
        if output.output_type == "stream":  # whole now: a colour's code may have come in two parts
            output.text = re.sub(r"\x1b\[[0-9;]*m", "", output.text)
    return joined


def main() -> None:
    """Execute the tutorial and save it with its outputs."""
    import nbformat

    with tempfile.TemporaryDirectory() as folder:
        notebook = executed(Path(folder))
    for cell in notebook.cells:
        cell.metadata = {}
        if cell.cell_type == "code":
            cell.outputs = _joined(cell.outputs)
    nbformat.write(notebook, NOTEBOOK)


if __name__ == "__main__":
    main()
