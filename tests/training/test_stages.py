"""Which scheme a stage gets: siblings of a given file, and permuted schemes."""

from __future__ import annotations

import shutil
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from codedtool.coding.scheme import CodingScheme
from codedtool.deploy.classifier_file import load_binary_classifier, save_binary_classifier
from codedtool.errors import InputError
from codedtool.models import build_network
from codedtool.models.pruning import keep_masks_of_class
from codedtool.training.run import Run
from codedtool.training.stages import assign, find_sibling
from tests.paths import SCHEMES
from tests.subjects import DIGITS, make_subject, noisy_data, randomize, shipped

pytestmark = pytest.mark.quick


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


def _write(path: Path, num_classes: int, length: int, act: int) -> Path:
    rng = np.random.default_rng(act)
    words: set[tuple[int, ...]] = set()
    while len(words) < num_classes:
        words.add(tuple(rng.permutation([1] * act + [0] * (length - act)).tolist()))
    CodingScheme(np.array(sorted(words), dtype=np.uint8)).save(path)
    return path


@pytest.mark.parametrize(
    ("act", "stage", "partner"), [(4, "s3", 8), (8, "s2", 4), (5, "s3", 10), (3, "s3", 6), (7, "s3", 4), (12, "s3", 6)]
)
def test_one_scheme_alone_codes_its_stage_or_the_last_and_names_its_partner(
    act: int, stage: str, partner: int, tmp_path: Path
) -> None:
    path = _write(tmp_path / f"k37_{act}of16_h4.npy", 37, 16, act)
    found = assign([path], image_size=32)
    assert found.preset == "coded_resnext29_16x8d"
    assert list(found.schemes) == [stage]
    assert found.partner is not None
    assert (found.partner.num_classes, found.partner.length, found.partner.act) == (37, 16, partner)
    assert (found.partner.given, found.partner.out) == (path, tmp_path / f"k37_{partner}of16.npy")
    first, *rows, last = found.lines()
    assert first.startswith("coded_resnext29_16x8d, K=37, chosen for images of 32 pixels")
    assert rows[int(stage[1]) - 1] == f"  {stage}  r = {act}/16  {path}"
    assert last == f"  one scheme alone: it codes {stage}; the other stages are plain"


def test_with_its_partner_beside_it_a_scheme_is_not_alone(tmp_path: Path) -> None:
    path = _write(tmp_path / "k37_4of16_h4.npy", 37, 16, 4)
    other = _write(tmp_path / "k37_8of16.npy", 37, 16, 8)
    found = assign([path], image_size=160)
    assert found.preset == "coded_resnext50_16x8d"
    assert found.sources == {"s3": other, "s4": path}
    assert found.partner is None
    assert found.siblings == {"s3"}


def test_the_lines_name_blocks_where_a_stage_has_several_schemes() -> None:
    five, three = SCHEMES / "c10_5of10.npy", SCHEMES / "c10_3of10.npy"
    found = assign([five, three], preset="coded_resnext29_10x11d", stages=["s3.1", "s3.2"], uncoded_stages=["s2"])
    assert found.reason == ""
    assert found.lines() == [
        "coded_resnext29_10x11d, K=10",
        "  s1  r = 1",
        "  s2  r = 1",
        "  s3.1  r = 5/10  c10_5of10",
        "  s3.2  r = 3/10  c10_3of10",
        "  s3.3  r = 1",
    ]


def test_a_run_keeps_the_schemes_of_blocks(tmp_path: Path) -> None:
    five, three = shipped("c10_5of10"), shipped("c10_3of10")
    schemes = {"s2": five, "s3.1": five, "s3.2": three}
    network = randomize(build_network("coded_resnext_tiny", schemes))
    subject = make_subject(tmp_path, network, noisy_data(DIGITS, train=2, val=2), schemes=schemes)
    again = Run.load(subject.run.path)
    assert list(again.schemes) == list(schemes)
    assert (subject.run.path / "schemes" / "s3.2.npy").is_file()
    assert [block.scheme for block in again.build_network().coded_blocks] == [five, five, five, three]
    path = save_binary_classifier(subject, 7, tmp_path / "seven.safetensors", threshold=0.0, metrics={})
    images = torch.randn(3, 3, 8, 8)
    with torch.no_grad():
        expected = network(images, keep_masks=keep_masks_of_class(network, 7)).logits[:, 7]
        found = load_binary_classifier(path).network(images).logits[:, 0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
