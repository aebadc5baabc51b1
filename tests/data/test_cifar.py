"""CIFAR archives are fetched, checked and unpacked, and refused when they are damaged; nothing is downloaded here."""

from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torchvision.datasets import CIFAR10

from codedtool.data import load_dataset
from codedtool.errors import InputError

pytestmark = pytest.mark.quick


@pytest.fixture
def small_cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An archive of CIFAR-10's form with a few images, which torchvision takes for the real one; returns its path."""
    rng = np.random.default_rng(0)

    def images(number: int) -> bytes:
        data = rng.integers(0, 256, size=(number, 3072), dtype=np.uint8)
        return pickle.dumps({"data": data, "labels": [k % 10 for k in range(number)]})

    files = {"data_batch_1": images(20), "test_batch": images(10)}
    files["batches.meta"] = pickle.dumps({"label_names": [f"name {9 - k}" for k in range(10)]})
    md5 = {name: hashlib.md5(content).hexdigest() for name, content in files.items()}
    archive = tmp_path / "server" / CIFAR10.filename
    archive.parent.mkdir()
    with tarfile.open(archive, "w:gz") as stream:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"{CIFAR10.base_folder}/{name}")
            entry.size = len(content)
            stream.addfile(entry, io.BytesIO(content))
    monkeypatch.setattr(CIFAR10, "train_list", [["data_batch_1", md5["data_batch_1"]]])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", md5["test_batch"]]])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": md5["batches.meta"]})
    monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
    monkeypatch.setattr(CIFAR10, "url", archive.as_uri())
    return archive


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Lets the loader open file:// addresses; returns the list of what it opened."""
    opened: list[str] = []
    opener = urllib.request.build_opener(urllib.request.FileHandler)

    def open_it(url: str, timeout: float) -> Any:
        opened.append(url)
        return opener.open(url, timeout=timeout)

    monkeypatch.setattr(urllib.request, "urlopen", open_it)
    return opened


def test_cifar_is_fetched_checked_and_unpacked_once(small_cifar: Path, served: list[str], tmp_path: Path) -> None:
    reports: list[tuple[str, float, float | None]] = []
    for _ in range(2):
        data = load_dataset(
            "cifar10",
            data_dir=tmp_path / "new" / "data",
            progress=lambda phase, done, total, note="": reports.append((phase, done, total)),
        )
        assert data.classes[:2] == ("name 9", "name 8")
        assert data.train.images.shape == (20, 32, 32, 3)
        assert data.val.targets.tolist() == list(range(10))
    assert served == [small_cifar.as_uri()]
    length = small_cifar.stat().st_size
    assert (f"fetching {small_cifar.as_uri()}", length, length) in reports
    assert sorted(path.name for path in (tmp_path / "new" / "data").iterdir()) == [
        CIFAR10.base_folder,
        CIFAR10.filename,
    ]


def test_cifar_is_not_fetched_without_leave_but_an_archive_that_lies_there_is_used(
    small_cifar: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError) as caught:
        load_dataset("cifar10", data_dir=tmp_path / "none", download=False)
    for part in (
        str(tmp_path / "none"),
        CIFAR10.base_folder,
        "allow the download",
        f"curl --create-dirs -o {tmp_path}",
    ):
        assert part in str(caught.value)
    assert not (tmp_path / "none").exists()
    assert len(load_dataset("cifar10", data_dir=small_cifar.parent, download=False).train) == 20


def test_a_damaged_download_is_refused_and_leaves_nothing(small_cifar: Path, served: list[str], tmp_path: Path) -> None:
    small_cifar.write_bytes(small_cifar.read_bytes()[:-1])
    with pytest.raises(InputError, match="does not have the md5 .* and was removed; try again"):
        load_dataset("cifar10", data_dir=tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == []
    small_cifar.unlink()
    with pytest.raises(InputError, match="no cifar10 in .*: looked for .*cannot fetch file:.*: curl --create"):
        load_dataset("cifar10", data_dir=tmp_path / "data")


def test_damaged_cifar_files_are_unpacked_again(small_cifar: Path) -> None:
    load_dataset("cifar10", data_dir=small_cifar.parent, download=False)
    (small_cifar.parent / CIFAR10.base_folder / "test_batch").write_bytes(b"")
    assert len(load_dataset("cifar10", data_dir=small_cifar.parent, download=False).val) == 10
