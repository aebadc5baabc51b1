"""Checkpoints: what is saved comes back, damage is refused, and a failed or killed save spoils nothing."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import json
import multiprocessing
import os
import random
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch

from codedtool.errors import InputError
from codedtool.training.checkpoint import CheckpointStore

STATE = {"epoch": 3, "optimizer": {"state": {0: {"momentum_buffer": torch.arange(3.0)}}}, "history": [{"a": 1.5}]}


def weights(value: float) -> dict[str, torch.Tensor]:
    return {"w": torch.full((4, 4), value)}


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    """Three saves: the first is the best, the second the previous, the third the last."""
    store = CheckpointStore(tmp_path / "checkpoints")
    for number in (1, 2, 3):
        store.save(f"e{number}", weights(number), STATE, metadata={"scheme.s2": "abc"}, best=number == 1)
    return store


def test_last_previous_and_best_come_back_and_older_ones_go(store: CheckpointStore) -> None:
    assert store.index() == {"last": "e3", "previous": "e2", "best": "e1"}
    for which, value in (("last", 3), ("previous", 2), ("best", 1)):
        found = store.load(which)  # type: ignore[arg-type]  # the three literals
        assert torch.equal(found.weights["w"], weights(value)["w"])
        assert found.metadata == {"scheme.s2": "abc"}
        assert found.state["history"] == [{"a": 1.5}]
        assert torch.equal(found.state["optimizer"]["state"][0]["momentum_buffer"], torch.arange(3.0))
    store.save("e4", weights(4), STATE, metadata={}, best=False)
    assert sorted(path.name for path in store.folder.iterdir()) == ["e1", "e3", "e4", "index.json"]


@pytest.mark.parametrize("file", ["weights.safetensors", "state.pt", "manifest.json"])
@pytest.mark.parametrize("how", ["flip", "cut", "gone"])
def test_damage_is_refused_and_a_whole_checkpoint_offered(store: CheckpointStore, file: str, how: str) -> None:
    path = store.folder / "e3" / file
    data = bytearray(path.read_bytes())
    if how == "flip":
        data[len(data) // 2] ^= 0xFF
        path.write_bytes(data)
    elif how == "cut":
        path.write_bytes(data[: len(data) // 2])
    else:
        path.unlink()
    with pytest.raises(InputError) as caught:
        store.load("last")
    assert "e3 is damaged" in str(caught.value)
    assert "the previous one, e2, is intact: use `checkpoint` previous" in str(caught.value)


def test_going_back_drops_what_came_after(store: CheckpointStore) -> None:
    store.rewind("previous")
    assert store.index() == {"last": "e2", "best": "e1"}
    store.save("e3", weights(7), STATE, metadata={}, best=False)
    assert torch.equal(store.load("last").weights["w"], weights(7)["w"])


def test_going_back_leaves_a_best_checkpoint_that_ends_an_epoch(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    for number, (epoch, step) in enumerate(((1, 0), (1, 5), (2, 0))):
        store.save(f"e{epoch:04d}s{step:06d}", weights(number), STATE, metadata={}, best=step == 0)
    store.rewind("previous")
    assert store.index() == {"last": "e0001s000005"}
    store.save("e0002s000000", weights(3), STATE, metadata={}, best=True)
    store.save("e0003s000000", weights(4), STATE, metadata={}, best=True)
    store.rewind("previous")
    assert store.index() == {"last": "e0002s000000", "best": "e0002s000000"}


@pytest.mark.parametrize("call", range(1, 6))
def test_a_full_disk_loses_nothing(store: CheckpointStore, call: int, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = os.fsync, 0

    def full(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls == call:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="No space left on device"):
        store.save("e4", weights(4), STATE, metadata={}, best=True)
    monkeypatch.undo()
    assert store.index() == {"last": "e3", "previous": "e2", "best": "e1"}
    assert torch.equal(store.load("last").weights["w"], weights(3)["w"])
    store.save("e4", weights(4), STATE, metadata={}, best=True)
    assert store.index() == {"last": "e4", "previous": "e3", "best": "e4"}


def test_weights_that_are_none_are_told_with_their_checkpoint_though_the_manifest_fits(store: CheckpointStore) -> None:
    path, manifest = store.folder / "e3" / "weights.safetensors", store.folder / "e3" / "manifest.json"
    path.write_bytes(b"no weights")
    document = json.loads(manifest.read_text())
    document["files"][path.name] = {"bytes": 10, "sha256": hashlib.sha256(b"no weights").hexdigest()}
    manifest.write_text(json.dumps(document))
    with pytest.raises(InputError, match=r"checkpoint .*e3 is damaged: no intact safetensors file .*use `checkpoint`"):
        store.load("last")


def save_for_ever(folder: Path, promises: Connection) -> None:
    """Save one checkpoint after the other, and promise each once its save has returned."""
    store = CheckpointStore(folder)
    for number in itertools.count():
        value = torch.full((300, 300), float(number))
        store.save(f"e{number}", {"w": value}, {"epoch": number}, metadata={}, best=False)
        promises.send(number)


def test_a_kill_at_any_moment_leaves_the_checkpoint_that_was_promised(tmp_path: Path) -> None:
    chance = random.Random(5)
    # Forked off a server that has imported torch once; a fork of this process would take its threads along.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["codedtool.training.checkpoint"])
    for trial in range(8):
        folder = tmp_path / str(trial)
        promises, sender = context.Pipe(duplex=False)
        process = context.Process(target=save_for_ever, args=(folder, sender))
        process.start()
        sender.close()
        promised = promises.recv()
        time.sleep(chance.uniform(0, 0.2))
        process.kill()
        process.join()
        with contextlib.suppress(EOFError):
            while True:
                promised = promises.recv()
        found = CheckpointStore(folder).load("last")
        assert found.state["epoch"] in (promised, promised + 1)
        assert (found.weights["w"] == found.state["epoch"]).all()
        CheckpointStore(folder).save("next", weights(1), STATE, metadata={}, best=False)
        assert len(list(folder.iterdir())) == 3


def test_the_next_save_clears_what_a_killed_one_left(store: CheckpointStore) -> None:
    (store.folder / ".index.json.4711.tmp").write_text("{")
    (store.folder / ".e4.tmp").mkdir()
    store.save("e4", weights(4), STATE, metadata={}, best=False)
    assert sorted(entry.name for entry in store.folder.iterdir()) == ["e1", "e3", "e4", "index.json"]


def test_none_yet_and_a_broken_index_are_said(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    with pytest.raises(InputError, match="there is no best checkpoint"):
        store.load("best")
    (tmp_path / "index.json").write_text("{")
    with pytest.raises(InputError, match=r"index\.json: cannot be read"):
        store.index()
