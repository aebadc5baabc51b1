"""A run on a read-only file system: what is asked for is printed or written elsewhere, with one warning."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from codedtool import files
from tests import commands
from tests.hostile import files_of
from tests.runs import copy_of

VERBS = (
    ("predict", "image.png"),
    ("eval",),
    ("cost",),
    ("export", "--format", "torch", "--out", "model.pt2"),
)
LONGER = (
    ("decode",),
    ("calibrate",),
    ("specialize",),
    ("activations",),
    ("bc", "--class", "3", "--out", "three.safetensors"),
    ("report", "--out", "page.html"),
    ("scheme", "assign", "--scheme", "c10_3of10", "--out", "ordered.npy"),
)


@pytest.fixture
def house(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a run that cannot be written to, also by root, who may write anywhere but on read-only disks."""
    copy_of(trained, tmp_path)
    Image.fromarray(np.full((8, 8, 3), 90, np.uint8)).save(tmp_path / "image.png")
    runs = (tmp_path / "runs").resolve()
    write, make = files.write_through, os.mkdir

    def refuse(path: Path) -> None:
        if Path(path).absolute().resolve().is_relative_to(runs):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    def write_through(path: Path, content: bytes) -> None:
        refuse(path)
        write(path, content)

    def mkdir(path: Path, *args: int, **kwargs: int) -> None:
        refuse(path)
        make(path, *args, **kwargs)

    monkeypatch.setattr(files, "write_through", write_through)
    monkeypatch.setattr(os, "mkdir", mkdir)
    return tmp_path


def check(house: Path, verb: tuple[str, ...]) -> None:
    before = files_of(house / "runs")
    of = ("--similarity", "coded") if verb[0] == "scheme" else ("--run", "coded")
    done = commands.run(*verb, *of, cwd=house)
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert done.stderr.count("Read-only file system") <= 1, done.stderr
    assert files_of(house / "runs") == before
    if "--out" in verb:
        assert (house / verb[verb.index("--out") + 1]).stat().st_size
    else:
        assert verb[0] == "predict" or "stored" in done.stderr


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb[0])
def test_a_result_is_printed_though_it_cannot_be_stored(house: Path, verb: tuple[str, ...]) -> None:
    check(house, verb)


@pytest.mark.slow
@pytest.mark.parametrize("verb", LONGER, ids=lambda verb: verb[0])
def test_longer_analyses_are_printed_too(house: Path, verb: tuple[str, ...]) -> None:
    check(house, verb)


def test_a_file_that_belongs_into_the_run_is_said_to_be_impossible(house: Path) -> None:
    done = commands.run("export", "--format", "torch", "--run", "coded", cwd=house)
    assert done.returncode == 2
    assert "runs/coded/export/model.pt2: Read-only file system; nothing was changed" in done.stderr
