"""The shipped schemes: what they promise, and that the command in each JSON makes the file again, byte for byte."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from codedtool.coding.scheme import CodingScheme
from codedtool.coding.verify import verify_scheme
from tests.paths import ROOT, SCHEMES

# name -> (K, N, act, H_min): SPEC section 1.
SHIPPED = {
    "c10_5of10": (10, 10, 5, 4),
    "c10_3of10": (10, 10, 3, 4),
    "c100_8of20": (100, 20, 8, 8),
    "c100_4of20": (100, 20, 4, 4),
    "in1k_16of32": (1000, 32, 16, 10),
    "in1k_8of32": (1000, 32, 8, 6),
    "c10_5of10_joint": (10, 10, 5, 4),
    "c100_4of20_joint": (100, 20, 4, 4),
    "in1k_8of32_joint": (1000, 32, 8, 6),
    "in1k_16of32_h12": (1000, 32, 16, 12),
    "in1k_8of32_h8": (1000, 32, 8, 8),
}

# name -> (the scheme whose rows it is ordered for, joint minimum distance); the paper's pairs have 8, 12 and 16.
JOINT = {
    "c10_5of10_joint": ("c10_3of10", 10),
    "c100_4of20_joint": ("c100_8of20", 12),
    "in1k_8of32_joint": ("in1k_16of32", 20),
    "in1k_8of32_h8": ("in1k_16of32_h12", 20),
}

# Half a minute and more each: the annealing of a thousand rows.
LONG = {"in1k_8of32_joint", "in1k_8of32_h8"}

# Table 4 of the paper, airplane to truck.
TABLE4 = {
    "c10_5of10": "1010100011 0101010101 1101100010 0011001101 1010010101 "
    "1001001110 1011101000 0100011110 0110111000 0100110011",
    "c10_3of10": "1001001000 0110001000 1010000001 0000001110 0001010100 "
    "0010100100 0000110010 0100010001 0001100001 1100000010",
}


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_scheme_keeps_its_promise(name: str) -> None:
    K, N, act, distance = SHIPPED[name]
    report = verify_scheme(
        SCHEMES / f"{name}.npy", num_classes=K, length=N, act=act, min_distance=distance, max_spread=0
    )
    assert report.passed, report.failures
    assert report.record is not None


@pytest.mark.parametrize("name", TABLE4)
def test_cifar10_schemes_are_table_4_word_for_word(name: str) -> None:
    table = CodingScheme.load(SCHEMES / f"{name}.npy").table
    assert ["".join(map(str, row)) for row in table] == TABLE4[name].split()


@pytest.mark.parametrize("name", JOINT)
def test_rows_are_ordered_jointly(name: str) -> None:
    companion, distance = JOINT[name]
    one, other = (CodingScheme.load(SCHEMES / f"{file}.npy").table for file in (name, companion))
    both = np.hstack([one, other]).astype(np.int64)
    inner = both @ both.T
    weight = int(both[0].sum())
    np.fill_diagonal(inner, -weight)
    assert 2 * (weight - inner.max()) == distance


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in LONG)) for name in SHIPPED])
def test_command_in_the_record_makes_the_file_again(name: str, tmp_path: Path) -> None:
    record = json.loads((SCHEMES / f"{name}.json").read_text())
    command = shlex.split(record["command"])
    assert command[0] == "codedtool"
    for flag, path in pairwise(command):
        if flag == "--with":
            (tmp_path / "schemes").mkdir(exist_ok=True)
            shutil.copy(ROOT / path, tmp_path / path)
    done = subprocess.run(
        [sys.executable, "-m", *command, "--quiet"],
        cwd=tmp_path,
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "schemes" / f"{name}.npy").read_bytes() == (SCHEMES / f"{name}.npy").read_bytes()


def test_the_page_of_schemes_gives_every_command_of_a_shipped_scheme() -> None:
    page = (ROOT / "docs" / "schemes.md").read_text()
    for name in SHIPPED:
        assert json.loads((SCHEMES / f"{name}.json").read_text())["command"] in page
