"""Commands and ranks that are ended from outside, at moments drawn at random: nothing that was whole is spoiled."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.transforms import Affine2DBase
from numpy.typing import NDArray
from PIL import Image
from safetensors.numpy import load_file

from codedtool.__main__ import main
from codedtool.analysis.artifacts import figure_bytes
from codedtool.budget import Budget
from codedtool.cli.runs import finishing_the_step
from codedtool.interrupts import interrupts_held
from codedtool.report.style import new_figure
from tests.paths import SCHEMES
from tests.runs import copy_of

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}

SCHEME = ("--scheme", str(SCHEMES / "c10_3of10.npy"), "--preset", "coded_resnext_tiny")
SHORT = ("--data", "digits", "--batch-size", "120", "--precision", "fp32", "--device", "cpu", "--num-workers", "0")

# Files that show measured times with few digits, in which two runs agree by chance.
TIMED = ("parts/bc.json", "parts/cost.json", "parts/decode.json", "report.html")

# Moments at which each command is killed, and interrupted.
KILLS = 10
INTERRUPTIONS = 3

TRAIN = ("train", *SCHEME, *SHORT, "--epochs", "3", "--run-name", "new", "--checkpoint-minutes", "0")
GRID = ("sweep", "--vary", "mu=0,2", "--name", "grid", *SCHEME, *SHORT, "--epochs", "1")
CLASSIFIER = ("bc", "--run", "coded", "--class", "3", "--force")
PAGE = ("report", "--run", "coded", "--compare", "plain", "--force")

# Each verb with arguments that give it something to do; they work again where they have worked before.
VERBS = {
    "train": TRAIN,
    "sweep": GRID,
    "bc": CLASSIFIER,
    "report": PAGE,
    "scheme": ("scheme", "--K", "50", "--N", "20", "--act", "8", "--hmin", "8", "--force"),
    "assign": ("scheme", "assign", "--scheme", "c10_5of10", "--similarity", "coded", "--out", "new.npy", "--force"),
    "verify": ("verify", str(SCHEMES)),
    "bounds": ("bounds", "--K", "1000", "--N", "64", "--act", "20"),
    "plan": ("plan", "--K", "10", "--write", "--force"),
    "export": ("export", "--run", "coded", "--force"),
    "predict": ("predict", "digit.png", "--run", "coded"),
    "ood": ("ood", "--run", "coded", "--ood", "synthetic:4"),
    "networks": ("networks",),
    "schemes": ("schemes",),
    **{name: (name, "--run", "coded") for name in ("eval", "calibrate", "decode", "specialize", "activations", "cost")},
}


@pytest.fixture
def house(trained: Path, tmp_path: Path) -> Path:
    """The trained runs and an image, to be copied."""
    copy_of(trained, tmp_path / "house")
    Image.new("RGB", (8, 8)).save(tmp_path / "house" / "digit.png")
    return tmp_path / "house"


def start(arguments: tuple[str, ...], cwd: Path, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "codedtool", *arguments, "--quiet"],
        cwd=cwd,
        env=ENVIRONMENT | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(arguments: tuple[str, ...], cwd: Path) -> float:
    """Let the command do its work; returns its seconds."""
    begin = time.monotonic()
    process = start(arguments, cwd)
    errors = process.communicate()[1]
    assert process.returncode == 0, errors
    return time.monotonic() - begin


def files(folder: Path) -> dict[str, bytes]:
    """Name and content of every file that is no leftover of a write that was killed."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    }


def check_whole(folder: Path) -> None:
    """Read every file that a reader expects to be whole."""
    for name, content in files(folder).items():
        path = folder / name
        if path.suffix == ".json":
            json.loads(content)
        elif path.suffix == ".npy":
            np.load(path)
        elif path.suffix == ".safetensors":
            load_file(path)
        elif path.suffix == ".png":
            Image.open(path).load()
        elif path.suffix == ".html":
            assert content.rstrip().endswith(b"</html>"), name


@contextlib.contextmanager
def running(arguments: tuple[str, ...], cwd: Path, **environment: str) -> Iterator[subprocess.Popen[str]]:
    process = start(arguments, cwd, **environment)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_before_the_first_step_ctrl_c_stops_at_once_and_then_after_the_step() -> None:
    budget = Budget()
    with finishing_the_step(budget):
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        assert budget.stop_reason() is None
        with budget.watched():
            os.kill(os.getpid(), signal.SIGINT)
            assert budget.stop_reason() == "interrupted"
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)


def test_a_held_ctrl_c_comes_at_the_end() -> None:
    reached = []

    @interrupts_held()
    def work() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        reached.append("the end of the work")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert reached
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_in_a_drawing_is_not_lost_in_matplotlibs_c_code(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    usual = Affine2DBase.__array__

    def interrupted(transform: Affine2DBase, *arguments: Any, **settings: Any) -> NDArray[np.float64]:
        if not asked:
            asked.append(transform)
            os.kill(os.getpid(), signal.SIGINT)
        return usual(transform, *arguments, **settings)

    figure, (axes,) = new_figure()
    axes.plot([0, 1], marker="o")
    # The C code asks for a transform's matrix in this way.
    monkeypatch.setattr(Affine2DBase, "__array__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        figure_bytes(figure, "svg")
    assert asked


def lost(*_: Any, **__: Any) -> Any:
    """As C code does it: Ctrl-C becomes an error of another kind."""
    with contextlib.suppress(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
    raise ImportError("initialization failed")


@pytest.mark.parametrize(
    ("place", "arguments"),
    [
        ("codedtool.cli.main", ("bounds", "--K", "10", "--N", "10", "--act", "5")),
        ("codedtool.coding.bounds.bounds_table", ("bounds", "--K", "10", "--N", "10", "--act", "5")),
        ("codedtool.training.subject.collect_outputs", ("calibrate", "--run", "coded")),
        ("codedtool.report.page._made", ("report", "--run", "coded", "--force")),
        ("codedtool.analysis.sweep._trained", GRID),
    ],
)
def test_ctrl_c_that_a_library_turns_into_another_error_ends_in_130(
    place: str,
    arguments: tuple[str, ...],
    house: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(house)
    for name in ("sys.stdout", "sys.stderr"):
        monkeypatch.setattr(name, getattr(sys, name.removeprefix("sys.")))  # the program replaces them
    monkeypatch.setattr("sys.argv", ["codedtool", *arguments, "--quiet"])
    monkeypatch.setattr(place, lost)
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 130
    assert capfd.readouterr().err.splitlines()[-1] == "interrupted"
    if place != "codedtool.cli.main":
        # The next command does not take its own error for the Ctrl-C of this one.
        monkeypatch.setattr("sys.argv", ["codedtool", "verify", "missing.npy"])
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code == 2


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["train", "sweep", "bc", "report"])
def test_kill_9_at_random_moments_spoils_nothing_and_the_end_is_the_same(
    verb: str, house: Path, tmp_path: Path
) -> None:
    chance = random.Random(verb)
    arguments = VERBS[verb]
    # What differs between two undisturbed runs (seconds, images per second) is not compared.
    one, other, killed = (Path(shutil.copytree(house, tmp_path / name)) for name in ("one", "other", "killed"))
    seconds = finish(arguments, one)
    finish(arguments, other)
    ended = 0
    while ended < KILLS:
        begun = (killed / "runs" / "new").exists()
        again = ("train", "--resume", "--run-name", "new", "--checkpoint-minutes", "0")
        process = start(again if verb == "train" and begun else arguments, killed)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(chance.uniform(0.3, 1.0) * seconds)
        if process.poll() is None:
            process.kill()
            ended += 1
        errors = process.communicate()[1]
        assert process.returncode in (0, -signal.SIGKILL), errors
        check_whole(killed)
        if process.returncode == 0 and ended < KILLS:
            shutil.rmtree(killed)
            shutil.copytree(house, killed)
    finish(again if verb == "train" and (killed / "runs" / "new").exists() else arguments, killed)
    first, second, last = files(one), files(other), files(killed)
    assert first.keys() == second.keys() == last.keys()
    same = {name for name, content in first.items() if second[name] == content and not name.endswith(TIMED)}
    assert any(name.endswith(".safetensors") and name not in files(house) for name in same) or verb == "report"
    assert len(same) > len(first) / 2
    assert {name for name in same if last[name] != first[name]} == set()


@pytest.mark.slow
@pytest.mark.parametrize("verb", VERBS)
def test_ctrl_c_ends_every_verb_with_130_and_nothing_half_written(verb: str, house: Path, tmp_path: Path) -> None:
    chance = random.Random(verb)
    seconds = finish(VERBS[verb], Path(shutil.copytree(house, tmp_path / "whole")))
    for number in range(INTERRUPTIONS):
        folder = Path(shutil.copytree(house, tmp_path / str(number)))
        with running(VERBS[verb], folder) as process:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(chance.uniform(0.1, 0.9) * seconds)
            # A terminal sends it to the command's other processes too.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT)
            begin = time.monotonic()
            errors = process.communicate(timeout=60)[1]
        print(f"{verb}: {time.monotonic() - begin:.2f} s")
        # The command may have ended already, or the interpreter may still have been at its own imports. To a shell, the
        # end by SIGINT is 130 too.
        was_starting = process.returncode == 1 and "codedtool" not in errors
        assert process.returncode in (130, 0, -signal.SIGINT) or was_starting, errors
        if process.returncode == 130:
            # While the arguments are parsed, typer ends the command with 130 and says nothing.
            assert "interrupted" in errors or not errors
            assert "Traceback" not in errors
            assert not list(folder.rglob("*.tmp"))
        check_whole(folder)


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_a_rank_whose_peer_is_killed_ends_with_one_message(killed: int, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    place = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    train = ("train", *SCHEME, *SHORT, "--epochs", "3000", "--run-name", "pair")
    with (
        running(train, tmp_path, RANK="0", LOCAL_RANK="0", **place) as first,
        running(train, tmp_path, RANK="1", LOCAL_RANK="1", **place) as second,
    ):
        ranks = (first, second)
        while not (tmp_path / "runs" / "pair" / "checkpoints" / "index.json").exists():
            for rank in ranks:
                assert rank.poll() is None, rank.communicate()[1]
            time.sleep(0.1)
        ranks[killed].kill()
        left = ranks[1 - killed]
        errors = left.communicate(timeout=60)[1]
    assert left.returncode == 3, errors
    assert errors.count("error: ") == 1, errors
    assert f"rank {1 - killed}: another rank ended" in errors
    assert "Traceback" not in errors
    check_whole(tmp_path)
