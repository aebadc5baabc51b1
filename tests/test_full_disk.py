"""A disk that is full at the n-th write, for every n: the old files stay, and work goes on once there is space."""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from codedtool import files
from codedtool.coding.scheme import CodingScheme
from codedtool.errors import CodedtoolError
from codedtool.training.recipes import recipe_for
from codedtool.training.run import Run
from codedtool.training.train import resume, train
from tests.hostile import files_of
from tests.subjects import tiny_schemes


def fill_at(monkeypatch: pytest.MonkeyPatch, number: int) -> Callable[[], bool]:
    """Let the disk be full at the n-th write, which gets half of its bytes; returns whether it was reached."""
    real = files.write_through
    written = 0

    def write_through(path: Path, content: bytes) -> None:
        nonlocal written
        written += 1
        if written == number:
            real(path, content[: len(content) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(path, content)

    monkeypatch.setattr(files, "write_through", write_through)
    monkeypatch.setattr("codedtool.training.checkpoint.write_through", write_through)
    return lambda: written >= number


def test_scheme_and_record_are_both_old_or_both_new(
    tmp_path: Path, scheme: CodingScheme, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "scheme.npy"
    CodingScheme(scheme.table[::-1]).save(path, provenance={"seed": 1})
    old = files_of(tmp_path)
    for number in itertools.count(1):
        with monkeypatch.context() as patch:
            reached = fill_at(patch, number)
            try:
                scheme.save(path, provenance={"seed": 2}, force=True)
            except CodedtoolError as error:
                said = str(error)
                assert "No space left on device; nothing was changed" in said  # until there is space
                assert files_of(tmp_path) == old
                continue
        assert not reached()
        break
    assert number == 3
    assert CodingScheme.load(path) == scheme


@pytest.mark.slow
def test_training_on_a_full_disk_keeps_every_checkpoint_and_goes_on_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_num_threads(1)
    recipe = recipe_for("digits").with_values(
        {"preset": "coded_resnext_tiny", "epochs": 2, "images_per_class": 12, "batch_size": 60, "device": "cpu"}
        | {"warmup_epochs": 0, "cooldown_epochs": 0, "precision": "fp32"}
    )
    folder = tmp_path / "runs"
    whole = train(recipe, tiny_schemes(), run_name="whole", folder=folder).run
    weights = whole.load_network("last").state_dict()
    old = files_of(folder)
    saved = 0
    for number in itertools.count(1):
        name = f"run{number}"
        with monkeypatch.context() as patch:
            reached = fill_at(patch, number)
            try:
                train(recipe, tiny_schemes(), run_name=name, folder=folder)
            except CodedtoolError as error:
                said = str(error)
            else:
                assert not reached()
                break
        assert "No space left on device" in said
        now = files_of(folder)
        assert {key: value for key, value in now.items() if key in old and key != "latest"} == {
            key: value for key, value in old.items() if key != "latest"
        }
        if not (folder / name).exists():
            # It failed before its first checkpoint: as if it had never begun.
            assert now == old, number
            continue
        saved += 1
        assert not [key for key in now if files.is_temporary(Path(key))]
        run = Run.load(name, folder=folder)
        assert run.checkpoints.load("last").weights
        found = resume(run).run.load_network("last").state_dict()
        assert all(torch.equal(found[key], weights[key]) for key in weights)
        files.remove(folder / name)
        (folder / "latest").write_text("whole\n")
    assert number > 15
    assert saved >= 5
