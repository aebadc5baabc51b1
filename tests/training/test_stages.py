"""Which scheme a stage gets: siblings of a given file, and permuted schemes."""

from __future__ import annotations

import shutil
from fractions import Fraction
from pathlib import Path

import pytest

from codedtool.coding.scheme import CodingScheme
from codedtool.errors import InputError
from codedtool.training.stages import find_sibling
from tests.paths import SCHEMES


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("c10_5of10", "c10_3of10"),
        ("c10_5of10_joint", "c10_3of10"),
        ("in1k_16of32", "in1k_8of32"),
        ("in1k_16of32_h12", "in1k_8of32_h8"),
        ("in1k_8of32_h8", "in1k_16of32_h12"),
        ("in1k_8of32_joint", "in1k_16of32"),
        ("c100_4of20_joint", "c100_8of20"),
    ],
)
def test_the_sibling_is_of_the_same_name_or_the_one_the_rows_were_ordered_for(given: str, expected: str) -> None:
    path = SCHEMES / f"{given}.npy"
    other = CodingScheme.load(SCHEMES / f"{expected}.npy")
    found = find_sibling(CodingScheme.load(path), path, other.ratio)
    assert found is not None
    assert found[1].stem == expected
    assert found[0] == other


def test_schemes_that_fit_equally_well_are_not_guessed_between(tmp_path: Path) -> None:
    shutil.copy(SCHEMES / "c10_5of10.npy", tmp_path / "one.npy")
    for name in ("a", "b"):
        shutil.copy(SCHEMES / "c10_3of10.npy", tmp_path / f"{name}.npy")
    with pytest.raises(InputError, match="several schemes of ratio 3/10"):
        find_sibling(CodingScheme.load(tmp_path / "one.npy"), tmp_path / "one.npy", Fraction(3, 10))
