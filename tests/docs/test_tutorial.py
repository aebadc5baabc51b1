"""The tutorial runs from its first cell to its last, and was saved with its outputs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.docs.blocks import codedtool_arguments, parse, parts
from tests.docs.notebook import NOTEBOOK, executed

CELLS = [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]
MAGIC = "%%bash\n"


@pytest.mark.quick
def test_every_command_line_is_one_that_the_program_accepts() -> None:
    lines = [
        line
        for cell in CELLS
        if (source := "".join(cell["source"])).startswith(MAGIC)
        for line in source.removeprefix(MAGIC).replace("\\\n", " ").splitlines()
    ]
    assert len(lines) > 5
    for line in lines:
        for words in parts(line):
            arguments = codedtool_arguments(words)
            assert arguments is not None, line
            parse(arguments)


@pytest.mark.quick
def test_the_tutorial_was_saved_with_the_outputs_of_one_run() -> None:
    assert [cell["execution_count"] for cell in CELLS] == list(range(1, len(CELLS) + 1))
    pictures = [output for cell in CELLS for output in cell["outputs"] if "image/png" in output.get("data", {})]
    assert len(pictures) == 3
    printed = "".join("".join(output.get("text", "")) for cell in CELLS for output in cell["outputs"])
    assert "column sums [3 3 3 3 3 3 3 3 3 3]" in printed


@pytest.mark.slow
def test_the_tutorial_runs(tmp_path: Path) -> None:
    notebook = executed(tmp_path)
    assert (tmp_path / "runs" / "digits-1" / "report.html").is_file()
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            assert output.get("name") != "stderr", output
