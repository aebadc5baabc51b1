"""The statistics that predictions rest on: confidences that need enough images, and thresholds that are shared."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from codedtool.data import load_dataset
from codedtool.deploy.prediction import predict_sample
from codedtool.errors import InputError
from codedtool.training.evidence import EVIDENCE_FILE, Evidence, parse_evidence, shared_thresholds
from codedtool.training.run import Run
from codedtool.training.subject import opened_run
from tests.runs import copy_of

ROWS = st.lists(
    st.integers(0, 300).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))), min_size=2, max_size=12
)


def evidence(*agreement: tuple[int, int], num_classes: int = 10) -> Evidence:
    return Evidence(8, num_classes, agreement, {})


@given(ROWS, st.integers(2, 1000))
def test_the_confidence_rises_with_agreement_and_is_never_certain(rows: list[tuple[int, int]], k: int) -> None:
    found = evidence(*rows, num_classes=k).confidence()
    values = [one.value for one in found]
    assert values == sorted(values)
    assert all(0 < value < 1 for value in values)
    # The pooled rows together are as right as their images and the prior say.
    weight = sum(number + 1 for number, _ in rows)
    accuracy = (sum(right for _, right in rows) + 0.5) / (weight - len(rows) + 1)
    prior = sum(np.linspace(1 / k, max(1 / k, accuracy), len(rows)))
    mean = sum(value * (number + 1) for value, (number, _) in zip(values, rows, strict=True)) / weight
    assert mean == pytest.approx((sum(right for _, right in rows) + prior) / weight)
    for one, (number, _) in zip(found, rows, strict=True):
        assert number <= one.num_images <= sum(number for number, _ in rows)


def test_a_row_without_images_does_not_borrow_its_neighbour_s() -> None:
    """The table of a good network on few images: nothing is known of answers that no decoder agrees with."""
    found = evidence((0, 0), (0, 0), (2, 2), (10, 10), (352, 347)).confidence()
    assert (found[0].value, found[0].num_images) == (pytest.approx(0.1), 0)
    assert (found[1].value, found[1].num_images) == (pytest.approx(0.32, abs=0.01), 0)
    assert found[2].value < 0.9
    assert 0.9 < found[3].value <= found[4].value < 347.5 / 352


def test_a_handful_of_images_gives_neither_0_nor_100_per_cent() -> None:
    found = evidence((0, 0), (2, 0), (3, 3), (80, 79)).confidence()
    assert 0.05 < found[1].value < 0.2
    assert 0.5 < found[2].value < 0.95
    # Rows that contradict the order are pooled, and rest on their images together.
    pooled = evidence((10, 9), (10, 5), (50, 49)).confidence()
    assert pooled[0] == pooled[1]
    assert pooled[0].num_images == 20


@given(st.integers(1, 120), st.integers(1, 6), st.integers(0, 2**32 - 1), st.booleans())
def test_shared_thresholds_are_the_lowest_that_keep_the_promise(n: int, s: int, seed: int, ties: bool) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 9, (n, s)).astype(float) if ties else rng.standard_normal((n, s))
    thresholds = shared_thresholds(scores, 0.1)
    assert (scores > thresholds).any(axis=1).sum() <= 0.1 * n
    ordered = np.sort(scores, axis=0)[::-1]
    levels = [(scores > ordered[k]).any(axis=1).sum() for k in range(n)]
    (k,) = {max(k for k in range(n) if levels[k] <= 0.1 * n)}
    assert thresholds == ordered[k].tolist()


def test_training_stores_the_evidence_of_every_checkpoint(trained: Path) -> None:
    for name in ("coded", "plain"):
        run = Run.load(trained / "runs" / name)
        for which in ("best", "last", "previous"):
            with opened_run(run, checkpoint=which) as subject:
                stored, measured = subject.evidence(), subject.measure_evidence()
                assert stored is not None
                assert stored.agreement == measured.agreement
                assert stored.thresholds == pytest.approx(measured.thresholds, rel=1e-4)
                outputs = subject.outputs()
                right = int((outputs.predictions == outputs.targets).sum())
                if name == "coded":
                    assert tuple(map(sum, zip(*stored.agreement, strict=True))) == (len(outputs.targets), right)
                else:
                    assert stored.agreement == ()
    # Another size of the images, or a damaged file, has none.
    with opened_run(run, changes={"eval_size": 16}) as subject:
        assert subject.evidence() is None


def test_damaged_evidence_is_as_if_there_were_none(trained: Path, tmp_path: Path) -> None:
    run = Run.load(copy_of(trained, tmp_path) / "runs" / "coded")
    with opened_run(run) as subject:
        path = run.checkpoints.folder / subject.checkpoint / EVIDENCE_FILE
        document = json.loads(path.read_text())
        for change in (
            {"format": 2},
            {"num_classes": 11},
            {"agreement": document["agreement"][1:]},
            {"agreement": [{"num_images": 1, "right": 2}] * 5},
            {"agreement": 3},
            {"unlike": []},
            {"image_size": "x"},
        ):
            assert parse_evidence(json.dumps(document | change).encode(), subject.network, 8) is None, change
        assert parse_evidence(b"\xff", subject.network, 8) is None
        # The manifest tells that the file was changed.
        path.write_text(json.dumps(document | {"agreement": [{"num_images": 10, "right": 10}] * 5}))
        assert subject.evidence() is None


def test_a_sample_is_of_the_validation_images_and_the_same_every_time(trained: Path) -> None:
    with opened_run(Run.load(trained / "runs" / "coded")) as subject:
        found = predict_sample(subject, 8, evidence=subject.evidence())
        again = predict_sample(subject, 8, evidence=subject.evidence())
        other = predict_sample(subject, 8, evidence=None, seed=1)
        everything = predict_sample(subject, 10_000, evidence=None)
        with pytest.raises(InputError, match="`sample` must be at least 1, got 0"):
            predict_sample(subject, 0, evidence=None)
    assert found == again
    assert [one.image for one in found] != [one.image for one in other]
    val = load_dataset("digits").val
    assert len(everything) == len(val)
    for one in found:
        data, _, number = one.image.rpartition(" ")
        assert data == "digits, validation image"
        assert one.actual == str(val.targets[int(number)])
        assert one.class_name == everything[int(number)].class_name
    outputs = subject.outputs()
    assert [one.class_name for one in everything] == [str(k) for k in outputs.predictions.tolist()]
    assert torch.equal(outputs.targets, torch.from_numpy(val.targets))
