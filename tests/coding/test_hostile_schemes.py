"""A thousand hostile scheme files: a scheme or one clear error, nothing written, nothing lost."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from codedtool.coding.scheme import CodingScheme
from codedtool.coding.verify import find_scheme_files, verify_scheme
from codedtool.errors import InputError
from tests.hostile import files_of, mutated

NUMBER = 1000


def bases(folder: Path) -> list[bytes]:
    """Files of good schemes, and of arrays that are none."""
    tables = [np.eye(8, 12, dtype=np.uint8), np.eye(64, dtype=np.uint8)]
    CodingScheme(tables[0]).save(folder / "good.npy", provenance={"method": "by hand", "upper_bound": 3})
    arrays = [*tables, tables[0].astype(float), np.asfortranarray(tables[0]), np.zeros((0, 5), np.uint8), np.uint8(1)]
    found = [(folder / "good.npy").read_bytes()]
    for number, array in enumerate(arrays):
        np.save(folder / f"base{number}.npy", array)
        found.append((folder / f"base{number}.npy").read_bytes())
    return found


def check(folder: Path, seeds: range) -> int:
    """Read one hostile scheme per seed; returns how many were schemes all the same."""
    folder.mkdir()
    good = bases(folder)
    record = (folder / "good.json").read_bytes()
    whole = 0
    for seed in seeds:
        chance = random.Random(seed)
        path = folder / "hostile.npy"
        path.write_bytes(mutated(chance.choice(good), good, chance))
        path.with_suffix(".json").write_bytes(mutated(record, [*good, record], chance))
        before, said = files_of(folder), "hostile.npy"
        try:
            scheme = CodingScheme.load(path)
            whole += 1
            assert scheme.to_npy()[-scheme.table.size :] == path.read_bytes()[-scheme.table.size :]
        except InputError as error:
            said = str(error)
        assert "hostile.npy" in said, seed
        assert "\n" not in said, seed
        report = verify_scheme(path)
        assert report.scheme is not None or not report.passed
        report.to_json()
        assert path in find_scheme_files([folder])
        assert files_of(folder) == before, seed
    return whole


def test_hostile_schemes_are_schemes_or_clear_errors(tmp_path: Path) -> None:
    assert check(tmp_path / "few", range(60)) < 60


def test_a_header_of_a_huge_empty_array_is_a_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "empty.npy"
    for shape in ((10**30, 0), (0, 10**30), (0, 0)):
        header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}}}\n".encode()
        path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
        with pytest.raises(InputError, match=r"empty\.npy: .*its shape is"):
            CodingScheme.load(path)
        assert not verify_scheme(path).passed


@pytest.mark.slow
def test_a_thousand_hostile_schemes(tmp_path: Path) -> None:
    assert 0 < check(tmp_path / "many", range(NUMBER)) < NUMBER // 2
