"""The directory of a run: its name is free, however many begin at once, and what cannot be read is said."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from codedtool import files
from codedtool.data import load_dataset
from codedtool.errors import InputError
from codedtool.training.recipes import recipe_for
from codedtool.training.run import Run, latest_name


def begin(folder: Path, name: str | None = None) -> Run:
    data = load_dataset("digits")
    recipe = recipe_for("digits").with_values({"preset": "resnext_tiny"})
    return Run.create(recipe, {}, data.classes, data.normalization, name=name, folder=folder)


def test_twenty_that_begin_at_once_without_a_name_are_twenty_runs(tmp_path: Path) -> None:
    with ThreadPoolExecutor(20) as pool:
        runs = list(pool.map(lambda _: begin(tmp_path / "runs"), range(20)))
    assert {run.name for run in runs} == {f"digits-{number}" for number in range(1, 21)}
    assert sorted(os.listdir(tmp_path / "runs")) == sorted([*(run.name for run in runs), "latest"])
    assert latest_name(tmp_path / "runs") in {run.name for run in runs}
    for run in runs:
        assert Run.load(run.path).classes == run.classes


@pytest.mark.slow
def test_twenty_processes_that_begin_at_once_are_twenty_runs(tmp_path: Path) -> None:
    program = "from pathlib import Path; from tests.training.test_run import begin; print(begin(Path('runs')).name)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(20)
    ]
    told = [process.communicate(timeout=600) for process in started]
    assert [error for _, error in told if error] == []
    assert {out.strip() for out, _ in told} == {f"digits-{number}" for number in range(1, 21)}


def test_a_name_that_is_taken_or_no_name_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    begin(tmp_path, "mine")
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    before = sorted(os.listdir(tmp_path))
    for taken in ("mine", "file", "empty"):
        with pytest.raises(InputError, match=f"{taken} exists already: continue it with `resume`"):
            begin(tmp_path, taken)
    for wrong in ("", ".", "..", "a/b", "/a", ".hidden", "latest", "a ", " a", "a\nb", "a\0b", "\udcff"):
        with pytest.raises(InputError, match="must be the name of one folder"):
            begin(tmp_path, wrong)
    with pytest.raises(InputError, match="File name too long"):
        begin(tmp_path, "x" * 300)
    assert sorted(os.listdir(tmp_path)) == before


def test_a_name_that_is_taken_while_the_run_is_made_is_said_or_the_next_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("mine", "digits-1"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "something").touch()
    # As if the other process were a moment later: nobody sees its folder before the renaming.
    monkeypatch.setattr("codedtool.training.run.exists", lambda path: False)
    with pytest.raises(InputError, match="mine exists already"):
        begin(tmp_path, "mine")
    assert begin(tmp_path).name == "digits-2"


def test_a_run_that_cannot_be_begun_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files, "write_through", full)
    with pytest.raises(InputError, match=r"cannot begin the run .*runs/mine: No space left on device$"):
        begin(tmp_path / "runs", "mine")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def coded(trained: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained / "runs" / "coded", tmp_path / "coded")
    return tmp_path / "coded"


def changed(run: Path, **changes: Any) -> None:
    document = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(document | changes))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"format": 2}, "has format 2"),
        ({"recipe": []}, "describes no run"),
        ({"recipe": {"data": 3}}, "describes no run|`data`"),
        ({"schemes": [1]}, "describes no run"),
        ({"schemes": {"s2": {"file": "schemes/s2.npy"}}}, "describes no run"),
        ({"normalization": {"mean": [1, 2], "std": [1, 2, 3]}}, "describes no run"),
        ({"normalization": {"mean": ["a", 2, 3], "std": [1, 2, 3]}}, "describes no run"),
        ({"normalization": {"mean": [1e999, 2, 3], "std": [1, 2, 3]}}, "Infinity is no number of JSON"),
        ({"adjusted": 3}, "describes no run"),
    ],
)
def test_a_description_with_wrong_values_is_refused(coded: Path, changes: dict[str, Any], match: str) -> None:
    changed(coded, **changes)
    with pytest.raises(InputError, match=match):
        Run.load(coded)


@pytest.mark.parametrize("classes", [[], [1] * 10, ["a"] * 10, [f"{n}" for n in range(9)], {}])
def test_classes_that_do_not_fit_are_refused(coded: Path, classes: Any) -> None:
    (coded / "classes.json").write_text(json.dumps(classes))
    with pytest.raises(InputError, match="classes.json"):
        Run.load(coded)


def test_metrics_that_are_no_epochs_are_refused(coded: Path) -> None:
    path = coded / "metrics.jsonl"
    whole = path.read_text()
    run = Run.load(coded)
    assert [row["epoch"] for row in run.metrics()] == [1, 2, 3]
    for damaged in (whole[:-10], "[]\n", '{"epoch": 1}\n', whole.replace('"epoch": 2', '"epoch": "two"'), "\x00"):
        path.write_text(damaged)
        with pytest.raises(InputError, match="metrics.jsonl"):
            run.metrics()


def test_a_lost_index_does_not_begin_the_training_anew(coded: Path) -> None:
    store = Run.load(coded).checkpoints
    (store.folder / "index.json").unlink()
    assert len(list(store.folder.iterdir())) > 1
    with pytest.raises(InputError, match=r"index\.json is missing, and checkpoints are there"):
        store.index()
    assert store.newest() is None


@pytest.mark.parametrize("name", ["../../other", "/etc", "..", "", 3, None, "a\0"])
def test_an_index_names_folders_of_this_run_only(coded: Path, name: Any) -> None:
    store = Run.load(coded).checkpoints
    (store.folder / "index.json").write_text(json.dumps({"last": name}))
    with pytest.raises(InputError, match="is no name of a checkpoint"):
        store.load("last")


def test_a_hostile_file_latest_leads_nowhere(tmp_path: Path) -> None:
    for content in (b"../elsewhere\n", b"\x00\n", b"", b"/etc\n"):
        (tmp_path / "latest").write_bytes(content)
        with pytest.raises(InputError, match="holds no name of a run"):
            Run.load(None, folder=tmp_path)
