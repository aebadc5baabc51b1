"""The page of a run with 100 classes: what its parts leave out so that its time does not grow with their number."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from codedtool.models import CodedNetwork
from codedtool.models.network import Stage
from codedtool.report import page
from codedtool.report.page import write_report
from codedtool.training.subject import Subject
from tests.subjects import make_subject, noisy_data, randomize, shipped, tiny_coded, tiny_plain, tiny_subjects


@pytest.fixture
def subject(tmp_path: Path) -> Subject:
    """A run with one coded block and 100 classes: 2 images of each for training, 2 for validation."""
    schemes = {"s3": shipped("c100_4of20")}
    network = randomize(CodedNetwork({"s3": Stage(8, 1, 1, 2)}, 20, schemes, num_classes=100, stem_channels=8))
    data = noisy_data(tuple(f"class {number}" for number in range(100)), train=2, val=2)
    return make_subject(tmp_path, network, data, schemes=schemes, batch_size=100)


def document(subject: Subject, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((subject.run.path / "analysis" / f"{name}.json").read_text())
    return found


@pytest.mark.slow
def test_thresholds_have_nine_negatives_a_positive_unless_all_are_asked_for(subject: Subject, tmp_path: Path) -> None:
    first = write_report(subject, tmp_path / "page.html", only=["bc"])
    assert first.failed == ()
    assert document(subject, "bc")["threshold_negatives_per_positive"] == 9
    again = write_report(subject, tmp_path / "page.html", only=["bc"], force=True)
    every = write_report(subject, tmp_path / "page.html", only=["bc"], all_negatives=True, force=True)
    assert (again.reused, every.reused) == (("bc",), ())
    assert document(subject, "bc")["threshold_negatives_per_positive"] is None
    assert "thresholds: from all training images" in (tmp_path / "page.html").read_text()


def test_specialization_is_measured_on_some_images_of_many_classes_alone(
    subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "_MANY_IMAGES", 30)
    few, _ = tiny_subjects(tmp_path / "few", tiny_coded(), tiny_plain())
    for one, measured, available in ((subject, 30, 200), (few, 40, 40)):
        write_report(one, tmp_path / "page.html", only=["specialize"], force=True)
        found = document(one, "specialize")
        assert (found["num_images"], found["num_available"]) == (measured, available)
        assert (f"{measured} of {available} images" in (tmp_path / "page.html").read_text()) == (measured < available)
