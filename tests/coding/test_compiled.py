"""Kernels: a change of the shared bit tricks reaches every importing file, machine code is kept, no file is loose."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import codedtool.coding
from codedtool.coding.compiled import checksum_of_bits

pytestmark = pytest.mark.quick

FOLDER = Path(codedtool.coding.__file__).parent
KERNELS = sorted(FOLDER.rglob("*_kernels.py"))


def imports(path: Path) -> set[str]:
    """The modules of this project that a file imports."""
    nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
    return {str(node.module) for node in nodes if str(node.module).startswith("codedtool")}


@pytest.mark.parametrize("path", KERNELS, ids=lambda path: path.name)
def test_a_kernel_file_imports_only_the_shared_bits_and_records_their_checksum(path: Path) -> None:
    # numba does not see that an imported kernel changed: only a changed importing file makes it compile anew.
    assert imports(path) <= {"codedtool.coding.bits", "codedtool.coding.compiled"}
    recorded = re.search(r'^BITS = "(\w+)"', path.read_text(), re.MULTILINE)
    assert recorded is not None
    assert recorded[1] == checksum_of_bits(), f"write BITS = {checksum_of_bits()!r} into {path.name}"


def test_bits_imports_no_other_kernel() -> None:
    assert imports(FOLDER / "bits.py") == {"codedtool.coding.compiled"}


def test_machine_code_is_kept_for_the_next_process(tmp_path: Path) -> None:
    program = (
        "import numpy as np\n"
        "from codedtool.coding.solvers.balance_kernels import Pool, add_degrees\n"
        "degrees = np.zeros(2, dtype=np.int64)\n"
        "add_degrees(Pool(np.array([3, 5], dtype=np.uint64), 3, 2, 1), np.array([0]), degrees)\n"
        "stats = add_degrees.stats\n"
        "print(*degrees, sum(stats.cache_hits.values()), sum(stats.cache_misses.values()))"
    )
    outputs = [
        subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        for _ in range(2)
    ]
    # The degrees, then cache hits and misses: compiled once, then loaded, with a NamedTuple as argument.
    assert outputs == [["0", "1", "0", "1"], ["0", "1", "1", "0"]]


def test_only_one_file_imports_numba() -> None:
    loose = [
        path for path in FOLDER.rglob("*.py") if re.search(r"^(import|from) numba", path.read_text(), re.MULTILINE)
    ]
    assert [path.name for path in loose] == ["compiled.py"]


def test_no_message_below_the_command_line_spells_a_flag() -> None:
    for path in FOLDER.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert not re.search(r"(?<![-\w`])--[a-zA-Z]", node.value), (path.name, node.lineno, node.value)
