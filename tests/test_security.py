"""Nothing that is loaded can execute: pickles planted in every file that a run, classifier, scheme or --init reads."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import pickle
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from codedtool.coding.orders.assignment import load_similarity
from codedtool.coding.scheme import CodingScheme
from codedtool.coding.verify import verify_scheme
from codedtool.data import load_dataset
from codedtool.data.split import read_classes
from codedtool.deploy.classifier_file import load_binary_classifier
from codedtool.errors import CodedtoolError
from codedtool.training.pretrained import read_source
from codedtool.training.recipe import settings
from codedtool.training.run import Run
from codedtool.training.settings import read_config
from codedtool.training.train import resume


class Bomb:
    """What, unpickled, makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (self.path, "w"))


Planted = Callable[[Path, Path], None]


def plain_pickle(file: Path, witness: Path) -> None:
    file.write_bytes(pickle.dumps(Bomb(witness)))


def object_array(file: Path, witness: Path) -> None:
    with file.open("wb") as stream:
        np.save(stream, np.array([Bomb(witness)], dtype=object), allow_pickle=True)


def torch_file(file: Path, witness: Path) -> None:
    torch.save({"epoch": Bomb(witness)}, file)


def old_torch_file(file: Path, witness: Path) -> None:
    torch.save({"epoch": Bomb(witness)}, file, _use_new_zipfile_serialization=False)


def archive(file: Path, witness: Path) -> None:
    with zipfile.ZipFile(file, "w") as stream:
        stream.writestr("archive/data.pkl", pickle.dumps(Bomb(witness)))
        stream.writestr("archive/version", "3\n")
        stream.writestr("a.npy", pickle.dumps(Bomb(witness)))


ALL: tuple[Planted, ...] = (plain_pickle, object_array, torch_file, old_torch_file, archive)


@pytest.fixture
def witness(tmp_path: Path) -> Path:
    return tmp_path / "executed"


def test_the_pickles_would_execute(tmp_path: Path, witness: Path) -> None:
    for plant, load in (
        (plain_pickle, lambda path: pickle.loads(path.read_bytes())),
        (object_array, lambda path: np.load(path, allow_pickle=True)),
        (torch_file, lambda path: torch.load(path, weights_only=False)),
        (old_torch_file, lambda path: torch.load(path, weights_only=False)),
    ):
        plant(tmp_path / "file", witness)
        load(tmp_path / "file")
        assert witness.exists()
        witness.unlink()


def refused(work: Callable[[], object], witness: Path) -> None:
    with contextlib.suppress(CodedtoolError):
        work()
    assert not witness.exists()


@pytest.mark.parametrize("plant", ALL)
def test_schemes_matrices_configurations_and_lists(plant: Planted, tmp_path: Path, witness: Path) -> None:
    for name in ("a.npy", "a.json", "a.toml", "a.txt"):
        plant(tmp_path / name, witness)
    with pytest.raises(CodedtoolError):
        CodingScheme.load(tmp_path / "a.npy")
    assert not verify_scheme(tmp_path / "a.npy").passed
    with pytest.raises(CodedtoolError):
        load_similarity(tmp_path / "a.npy", 3)
    with pytest.raises(CodedtoolError):
        read_config(tmp_path / "a.toml", settings())
    for name in ("a.json", "a.txt"):
        refused(lambda name=name: read_classes(tmp_path / name), witness)  # type: ignore[misc]
    assert not witness.exists()


@pytest.mark.parametrize("plant", ALL)
def test_every_file_of_a_run(plant: Planted, trained: Path, tmp_path: Path, witness: Path) -> None:
    whole = trained / "runs" / "coded"
    for file in sorted(path.relative_to(whole) for path in whole.rglob("*") if path.is_file()):
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        shutil.copytree(whole, tmp_path / "run")
        plant(tmp_path / "run" / file, witness)
        _trust_again((tmp_path / "run" / file).parent)

        def load() -> None:
            run = Run.load(tmp_path / "run")
            run.metrics()
            run.origin()
            run.load_network("last")
            run.checkpoints.load("last")

        refused(load, witness)
    # A pickle in the state must be refused where only the training reads it, too.
    state = Run.load(_planted_state(plant, whole, tmp_path, witness))
    with pytest.raises(CodedtoolError, match=r"state\.pt"):
        resume(state)
    assert not witness.exists()


def _planted_state(plant: Planted, whole: Path, tmp_path: Path, witness: Path) -> Path:
    shutil.rmtree(tmp_path / "run")
    shutil.copytree(whole, tmp_path / "run")
    for state in (tmp_path / "run").rglob("state.pt"):
        plant(state, witness)
        _trust_again(state.parent)
    return tmp_path / "run"


def _trust_again(folder: Path) -> None:
    """Write the manifest of a checkpoint anew, as an attacker would who changes its files."""
    manifest = folder / "manifest.json"
    with contextlib.suppress(ValueError, OSError):
        document = json.loads(manifest.read_text())
        for name in document["files"]:
            data = (folder / name).read_bytes()
            document["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        manifest.write_text(json.dumps(document))


@pytest.mark.parametrize("plant", ALL)
def test_every_file_of_a_classifier(plant: Planted, tmp_path: Path, witness: Path) -> None:
    for planted in ("a.safetensors", "a.json"):
        (tmp_path / "a.json").write_text("{}")
        (tmp_path / "a.safetensors").write_bytes(b"")
        plant(tmp_path / planted, witness)
        content = (tmp_path / "a.safetensors").read_bytes()
        if planted != "a.json":
            document = {"format": 1, "weights_sha256": hashlib.sha256(content).hexdigest()}
            (tmp_path / "a.json").write_text(json.dumps(document))
        with pytest.raises(CodedtoolError):
            load_binary_classifier(tmp_path / "a.safetensors")
    assert not witness.exists()


@pytest.mark.parametrize("ending", [".safetensors", ".pt", ".pth", ".bin", ""])
@pytest.mark.parametrize("plant", ALL)
def test_initial_weights(plant: Planted, ending: str, tmp_path: Path, witness: Path) -> None:
    plant(tmp_path / f"weights{ending}", witness)
    with pytest.raises(CodedtoolError):
        read_source(str(tmp_path / f"weights{ending}"), None)  # type: ignore[arg-type]  # refused before it is looked at
    assert not witness.exists()


def test_no_member_of_an_archive_leaves_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.datasets import CIFAR10

    data = tmp_path / "data"
    data.mkdir()
    with tarfile.open(data / CIFAR10.filename, "w:gz") as stream:
        for name in ("../outside", str(tmp_path / "outside"), "link"):
            entry = tarfile.TarInfo(name)
            if name == "link":
                entry.type, entry.linkname = tarfile.SYMTYPE, "../../"
            else:
                entry.size = 1
            stream.addfile(entry, io.BytesIO(b"x"))
    # Another archive than the known one is not unpacked at all.
    with pytest.raises(CodedtoolError, match=r"no cifar10 in"):
        load_dataset("cifar10", data_dir=data, download=False)
    assert [path.name for path in data.iterdir()] == [CIFAR10.filename]
    monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5((data / CIFAR10.filename).read_bytes()).hexdigest())
    with pytest.raises(CodedtoolError, match="cannot unpack"):
        load_dataset("cifar10", data_dir=data, download=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]
