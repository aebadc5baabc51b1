"""Three hundred hostile configuration files: values that can be trained with or one clear error."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from codedtool.cli.runs import resolve
from codedtool.errors import CodedtoolError
from tests.hostile import files_of, mutated

NUMBER = 300

GOOD = (
    b'preset = "coded_resnext_tiny"\nscheme = ["c10_5of10", "c10_3of10"]\ndata = "digits"\nepochs = 3\nlr = 0.1\n'
    b'batch-size = 64\nmu = 2.0\nbalanced = true\nrandaugment = "rand-m2-n1"\n',
    b'# from Notepad\r\npreset = "resnext_tiny"\r\ndata = "synthetic:5"\r\nwarmup_epochs = 1\r\nprecision = "fp32"\r\n'
    b"seed = 7\r\np_drop = 0.1\r\nmin_lr = 1e-5\r\nsplit = 0.0\r\n",
    b'stages = "s2,s3"\nuncoded_stages = "s4"\nscheme = []\nrecipe = "small"\n[table]\nx = 1979-05-27T07:32:00Z\n',
)
# Values that every key is given in turn.
VALUES = ("0", "-1", "1e999", "nan", "true", '""', '"\\u0000"', "[]", "{}", "9" * 400, "1979-05-27", '"x"', "0x10")


@pytest.mark.filterwarnings("ignore")
def check(folder: Path, seeds: range) -> int:
    """Read one hostile file per seed; returns how many can be trained with."""
    folder.mkdir()
    path = folder / "hostile.toml"
    taken = 0
    for seed in seeds:
        chance = random.Random(seed)
        content = chance.choice(GOOD)
        if chance.random() < 0.5:
            lines = content.splitlines(keepends=True)
            number = chance.randrange(len(lines))
            key = lines[number].split(b"=")[0]
            lines[number] = key + b"= " + chance.choice(VALUES).encode() + b"\n"
            content = b"".join(lines)
        else:
            content = mutated(content, list(GOOD), chance)
        path.write_bytes(content)
        before, said = files_of(folder), "taken"
        try:
            resolved = resolve(None, None, None, path, {})
            assert resolved.recipe.to_json()
            taken += 1
        except CodedtoolError as error:
            said = str(error)
        assert said, seed
        assert files_of(folder) == before, seed
    return taken


@pytest.mark.filterwarnings("ignore")
def test_hostile_configurations_are_taken_or_clear_errors(tmp_path: Path) -> None:
    check(tmp_path / "few", range(30))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_three_hundred_hostile_configurations(tmp_path: Path) -> None:
    assert 0 < check(tmp_path / "many", range(NUMBER)) < NUMBER
