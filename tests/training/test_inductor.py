"""torch.compile and torch.export without a user name, a compiler or a folder that can be written."""

from __future__ import annotations

import getpass
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from torch._dynamo.exc import BackendCompilerFailed

from codedtool.training import inductor
from tests.paths import ROOT
from tests.runs import copy_of

NAMES = ("LOGNAME", "USER", "LNAME", "USERNAME")


@pytest.fixture(autouse=True)
def _as_in_a_new_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    inductor.prepare_inductor.cache_clear()
    # Set, so that monkeypatch restores them.
    for name in (*NAMES, "TORCHINDUCTOR_CACHE_DIR"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))


def test_a_user_without_a_name_gets_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(number: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {number}")

    monkeypatch.setattr("pwd.getpwuid", unknown)
    for name in NAMES:
        monkeypatch.delenv(name)
    with pytest.raises((KeyError, OSError)):
        getpass.getuser()
    inductor.prepare_inductor()
    assert getpass.getuser() == f"uid{os.getuid()}"


def test_a_cache_folder_that_cannot_be_written_is_replaced_and_said_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "file" / "cache"))
    with pytest.warns(UserWarning, match="cannot be written") as told:
        [inductor.prepare_inductor() for _ in range(2)]
    assert len(told) == 1
    assert os.access(os.environ["TORCHINDUCTOR_CACHE_DIR"], os.W_OK)


def test_a_network_that_cannot_be_compiled_runs_as_it_is_and_that_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def compiled(network: torch.nn.Module) -> object:
        def fail(*_: object) -> None:
            raise BackendCompilerFailed(compiled, RuntimeError("No working C++ compiler"), None)

        return fail

    monkeypatch.setattr(torch, "compile", compiled)
    network = torch.nn.Linear(3, 2)
    images = torch.ones(2, 3)
    tried = inductor.Compiled(network, is_main=True)
    with pytest.warns(UserWarning, match="^`compile` has no effect: torch.compile failed .*No working") as told:
        outputs = [tried(images), tried(images)]
    assert len(told) == 1
    assert all(torch.equal(output, network(images)) for output in outputs)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        inductor.Compiled(network, is_main=False)(images)


@pytest.mark.slow
def test_export_and_train_compile_for_a_user_without_a_name_or_a_compiler(trained: Path, tmp_path: Path) -> None:
    copy_of(trained, tmp_path)
    shim = tmp_path / "shim" / "sitecustomize.py"
    shim.parent.mkdir()
    shim.write_text("import pwd\ndef unknown(number):\n    raise KeyError(number)\npwd.getpwuid = unknown\n")
    environment = {key: value for key, value in os.environ.items() if key not in NAMES}
    environment |= {"PYTHONPATH": f"{shim.parent}:{ROOT}", "CXX": "/nonexistent", "TORCHINDUCTOR_CACHE_DIR": "/proc/no"}

    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", "codedtool", *arguments, "--quiet"]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stderr

    for kind in ("torch", "onnx"):
        assert run("export", "--run", "coded", "--format", kind).count("warning: ") == 1
    train = ("train", "--preset", "resnext_tiny", "--data", "digits", "--epochs", "1", "--device", "cpu")
    told = run(*train, "--compile", "--run-name", "compiled")
    assert told.count("--compile has no effect: torch.compile failed") == 1
    assert (tmp_path / "runs" / "compiled" / "metrics.csv").exists()


def test_every_network_of_a_long_sweep_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """All networks have the same code, which torch compiles a few times only."""
    compile_with = torch.compile
    graphs: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, _: object) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    monkeypatch.setattr(torch, "compile", lambda network: compile_with(network, backend=backend))
    count = torch._dynamo.config.recompile_limit + 2
    images = torch.ones(2, 3)
    for width in range(1, 1 + count):
        network = torch.nn.Sequential(torch.nn.Linear(3, width))
        torch.testing.assert_close(inductor.Compiled(network, is_main=True)(images), network(images))
    assert len(graphs) == count
