"""Kernels: a change of the shared bit tricks reaches every importing file, machine code is kept, no file is loose."""

from __future__ import annotations

import ast
import errno
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numba
import pytest
from numba.core import caching

import codedtool.coding
from codedtool.coding import compiled
from codedtool.coding.compiled import checksum_of_bits
from codedtool.errors import InputError
from tests.commands import run

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
        "import sys\n"
        "import numpy as np\n"
        "from codedtool.coding.solvers.balance_kernels import Pool, add_degrees\n"
        "degrees = np.zeros(2, dtype=np.int64)\n"
        "add_degrees(Pool(np.array([3, 5], dtype=np.uint64), 3, 2, 1), np.array([0]), degrees)\n"
        "stats = add_degrees.stats\n"
        "print(*degrees, sum(stats.cache_hits.values()), sum(stats.cache_misses.values()))\n"
        "print(*(name in sys.modules for name in ('numba.np.arraymath', 'scipy.linalg')))"
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
    # The degrees, cache hits and misses: compiled once, then loaded, with a NamedTuple as argument. Loading imports
    # nothing that only compiling needs, and neither imports scipy's linear algebra.
    assert outputs == [["0", "1", "0", "1", "True", "False"], ["0", "1", "1", "0", "False", "False"]]


@pytest.fixture
def fresh_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    """A function that compiles one small kernel as a new process does, with its cache in tmp_path/cache."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "cache"))
    path = tmp_path / "twice_kernels.py"
    path.write_text("def twice(number):\n    return 2 * number\n")

    def compile_again() -> Any:
        monkeypatch.setattr(compiled, "_told", False)
        spec = importlib.util.spec_from_file_location("twice_kernels", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return compiled.kernel(module.twice)

    return compile_again


def hits(kernel: Any) -> int:
    return sum(kernel.stats.cache_hits.values())


def flip_last_byte(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


def test_the_cache_lacks_a_module_until_it_was_compiled(
    fresh_kernel: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def lacks(kernel: Any) -> bool:
        module = ModuleType("twice_kernels")
        vars(module)["twice"] = kernel
        return compiled.cache_lacks(module)

    kernel = fresh_kernel()
    assert lacks(kernel)
    kernel(3)
    assert not lacks(kernel)
    # As the next process finds it; and where there is no cache, none can be filled.
    assert not lacks(fresh_kernel())

    def refuse(_: object) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr(caching._CacheLocator, "ensure_cache_path", refuse)
    with pytest.warns(compiled.CacheIgnored, match="no folder for it can be written"):
        assert not lacks(fresh_kernel())


@pytest.mark.parametrize("suffix", [".nbi", ".nbc"])
@pytest.mark.parametrize(
    "damage",
    [lambda _: b"", lambda content: content[:40], lambda content: bytes(len(content)), flip_last_byte],
    ids=["empty", "cut", "zeros", "one bit"],
)
def test_a_damaged_cache_is_said_and_made_anew(
    fresh_kernel: Callable[[], Any], tmp_path: Path, suffix: str, damage: Callable[[bytes], bytes]
) -> None:
    assert fresh_kernel()(3) == 6
    (file,) = (tmp_path / "cache").rglob(f"*{suffix}")
    file.write_bytes(damage(file.read_bytes()))
    kernel = fresh_kernel()
    with pytest.warns(compiled.CacheIgnored, match="compiled anew") as told:
        assert kernel(3) == 6
    assert len(told) == 1
    again = fresh_kernel()
    assert again(3) == 6
    assert hits(again) == 1


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_cache_that_cannot_be_written_is_said_once(
    fresh_kernel: Callable[[], Any], number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    kernel = fresh_kernel()
    monkeypatch.setattr(compiled._Files, "_save_data", refuse)
    with pytest.warns(compiled.CacheIgnored, match=os.strerror(number)) as told:
        assert (kernel(3), kernel(1.5)) == (6, 3.0)
    assert len(told) == 1


def test_a_kernel_without_any_folder_for_a_cache_is_compiled(
    fresh_kernel: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr(caching._CacheLocator, "ensure_cache_path", refuse)
    with pytest.warns(compiled.CacheIgnored, match="no folder for it can be written"):
        kernel = fresh_kernel()
    assert kernel(3) == 6


def test_a_search_tells_in_one_line_that_the_cache_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "_told", False)

    def search(*_: object, **__: object) -> None:
        compiled._tell_once("no folder for it can be written", PermissionError("read-only"))
        raise InputError("far enough")

    monkeypatch.setattr("codedtool.coding.search.find_scheme", search)
    done = run("scheme", "--K", "3", "--N", "10", "--act", "5", "--hmin", "6", cwd=tmp_path)
    assert done.stderr.startswith("warning: numba's cache: no folder for it can be written (PermissionError")
    assert done.stderr.count("\n") == 2


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
