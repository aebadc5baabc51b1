"""Trainings that a benchmark starts: several at once, again, and one that fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.commands import train_at_once

SMALL = ["--preset", "resnext_tiny", "--data", "synthetic:3", "--images-per-class", "8", "--epochs", "1"]


def test_trainings_at_once_become_runs_and_are_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    trainings = {"one": [*SMALL, "--seed", "1"], "two": [*SMALL, "--seed", "2"]}
    runs = train_at_once(trainings)
    assert [(run.name, run.recipe.seed, len(run.metrics())) for run in runs] == [("one", 1, 1), ("two", 2, 1)]
    printed = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("$ OMP_NUM_THREADS=") for line in printed) == 2
    assert {line.split(":")[0] for line in printed if not line.startswith("$")} == {"one", "two"}
    assert [run.name for run in train_at_once(trainings)] == ["one", "two"]
    assert not capsys.readouterr().out


def test_a_training_that_fails_is_named_when_all_have_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="trainings that failed: wrong"):
        train_at_once({"wrong": ["--preset", "resnet", "--data", "synthetic:3"]})
    assert "wrong: " in capsys.readouterr().out
