"""Tables of binary classifiers against loops over classes and images."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, precision_score, recall_score

from codedtool.analysis import classifier_scores
from codedtool.analysis.classifier_metrics import CODED, FULL, PLAIN, PLAIN_FULL, evaluate_classifiers
from codedtool.data import normalize
from codedtool.errors import InputError
from codedtool.models import CodedNetwork
from codedtool.models.network import Stage
from codedtool.models.pruning import keep_masks_of_class
from codedtool.training.subject import NotApplicableError, Subject
from tests.analysis.test_binary import brute_force_f1
from tests.subjects import (
    DIGITS,
    make_subject,
    noisy_data,
    randomize,
    shipped,
    tiny_coded,
    tiny_plain,
    tiny_schemes,
    tiny_subjects,
    with_batches_of,
    zeroed_logits,
)


@pytest.fixture(scope="module")
def coded() -> CodedNetwork:
    """The coded tiny network."""
    return tiny_coded()


@pytest.fixture(scope="module")
def plain() -> CodedNetwork:
    """Its plain control."""
    return tiny_plain()


@pytest.fixture
def subjects(tmp_path: Path, coded: CodedNetwork, plain: CodedNetwork) -> tuple[Subject, Subject]:
    """A coded and a plain run on the same noise."""
    return tiny_subjects(tmp_path, coded, plain)


def test_a_table_is_what_a_literal_loop_measures(subjects: tuple[Subject, Subject]) -> None:
    subject, plain = subjects
    ood = noisy_data(("x", "y"), train=1, val=7, name="other", seed=3)
    result = evaluate_classifiers(subject, [7, 2], plain=plain, ood=ood)
    assert result.sources == (CODED, FULL, PLAIN, PLAIN_FULL)
    assert [(one.source, one.class_index) for one in result.classifiers] == [
        (source, k) for source in result.sources for k in (7, 2)
    ]
    pixels = {
        "train": subject.data.train.images,
        "val": subject.data.val.images,
        "ood": ood.val.images,
    }
    inputs = {
        name: normalize(torch.from_numpy(array).permute(0, 3, 1, 2), subject.run.normalization)  # type: ignore[arg-type]
        for name, array in pixels.items()
    }
    for one in result.classifiers:
        k = one.class_index
        with torch.no_grad():
            scores = {
                name: {
                    CODED: lambda x, k=k: subject.network(x, keep_masks=keep_masks_of_class(subject.network, k)).logits,
                    FULL: lambda x: subject.network(x).logits,
                    PLAIN: lambda x, k=k: zeroed_logits(plain.network, tiny_schemes(), k, x)[:, None].expand(-1, 10),
                    PLAIN_FULL: lambda x: plain.network(x).logits,
                }[one.source](x)[:, k].numpy()
                for name, x in inputs.items()
            }
        assert one.train_f1 == pytest.approx(brute_force_f1(scores["train"], subject.data.train.targets == k))
        val_positive = subject.data.val.targets == k
        accepted = scores["val"] >= one.threshold
        assert one.val.recall == pytest.approx(recall_score(val_positive, accepted))
        assert one.val.precision == pytest.approx(precision_score(val_positive, accepted, zero_division=0))
        assert one.val.average_precision == pytest.approx(average_precision_score(val_positive, scores["val"]))
        assert (one.val.num_positives, one.val.num_negatives) == (4, 36)
        assert one.ood is not None
        assert one.ood.recall == one.val.recall, "the same positives"
        false = int((scores["ood"] >= one.threshold).sum())
        hits = int((accepted & val_positive).sum())
        assert one.ood.precision == pytest.approx(hits / (hits + false) if hits + false else 0)
        assert one.ood.num_negatives == 14
    for row in result.means():
        mine = result.of(row["source"])
        assert row["val_f1"] == pytest.approx(sum(one.val.f1 for one in mine) / 2)
        assert row["ood_precision"] == pytest.approx(sum(one.ood.precision for one in mine if one.ood) / 2)
    assert json.loads(json.dumps(result.to_json(), allow_nan=False))["ood"] == "other"


def test_groups_of_classes_and_batches_decide_nothing(
    subjects: tuple[Subject, Subject], monkeypatch: pytest.MonkeyPatch
) -> None:
    subject, plain = subjects
    whole = evaluate_classifiers(subject, range(10), plain=plain)
    passes = []
    # Two scorers of 60 training images: three classes a group, so four groups.
    monkeypatch.setattr(classifier_scores, "_SCORE_BYTES", 3 * 4 * 2 * 60)

    def progress(phase: str, done: float, total: float | None, note: str = "") -> None:
        if phase not in passes:
            passes.append(phase)

    smaller = with_batches_of(subject, 7)
    grouped = evaluate_classifiers(smaller, range(10), plain=plain, progress=progress)
    assert "scoring train images, 3 classes" in passes
    assert "scoring train images, 1 classes" in passes
    assert [one.class_name for one in grouped.histograms] == list(DIGITS)
    assert [one.row().keys() for one in grouped.classifiers] == [one.row().keys() for one in whole.classifiers]
    for one, other in zip(whole.classifiers, grouped.classifiers, strict=True):
        for key, value in one.row().items():
            found = other.row()[key]
            assert found == (value if isinstance(value, str) else pytest.approx(value, abs=1e-5)), key


def test_histograms_are_densities_of_the_scores(subjects: tuple[Subject, Subject]) -> None:
    subject, _ = subjects
    (histogram,) = evaluate_classifiers(subject, [4]).histograms
    assert (len(histogram.edges), len(histogram.positives), histogram.ood) == (41, 40, None)
    width = histogram.edges[1] - histogram.edges[0]
    assert sum(histogram.positives) * width == pytest.approx(1, abs=1e-4)
    assert sum(histogram.negatives) * width == pytest.approx(1, abs=1e-4)
    counts = np.array(histogram.positives) * width * 4
    assert np.allclose(counts, np.round(counts), atol=1e-3), "of four positives"


def test_a_run_that_cannot_be_compared_is_refused_before_the_work(
    subjects: tuple[Subject, Subject], tmp_path: Path
) -> None:
    subject, plain = subjects

    def never(*_: object) -> None:
        raise AssertionError("the work began")

    with pytest.raises(InputError, match="was trained with schemes: name a run of the plain control"):
        evaluate_classifiers(subject, [0], plain=subject, progress=never)
    with pytest.raises(NotApplicableError, match="trained without schemes"):
        evaluate_classifiers(plain, [0], progress=never)
    renamed = replace(plain, run=replace(plain.run, classes=tuple(reversed(DIGITS))))
    with pytest.raises(InputError, match="has other classes"):
        evaluate_classifiers(subject, [0], plain=renamed, progress=never)
    wider = CodedNetwork({"s2": Stage(32, 2, 1, 1)}, 20, {}, num_classes=10, stem_channels=8)
    other = replace(plain, network=wider.eval())
    with pytest.raises(InputError, match="N=20"):
        evaluate_classifiers(subject, [0], plain=other, progress=never)


def test_from_100_classes_on_there_are_9_negatives_for_each_positive(tmp_path: Path) -> None:
    classes = tuple(f"class {number}" for number in range(100))
    schemes = {"s2": shipped("c100_8of20"), "s3": shipped("c100_4of20")}
    stages = {"s2": Stage(16, 2, 1, 2), "s3": Stage(16, 2, 1, 1)}
    network = randomize(CodedNetwork(stages, 20, schemes, num_classes=100, stem_channels=8))
    data = noisy_data(classes, train=2, val=3)
    subject = make_subject(tmp_path, network, data, schemes=schemes, batch_size=100)
    ood = noisy_data(("x",), train=1, val=40, name="other", seed=2)
    results = [evaluate_classifiers(subject, indices, ood=ood, seed=4) for indices in (range(100), [5, 98], range(100))]
    assert results[0].negatives_per_positive == 9
    for one in results[0].classifiers:
        assert one.ood is not None
        assert (one.val.num_positives, one.val.num_negatives, one.ood.num_negatives) == (3, 27, 27)
    # A class's draw is its own, and the seed's.
    assert results[0] == results[2]
    for one in results[1].classifiers:
        (same,) = [other for other in results[0].of(one.source) if other.class_index == one.class_index]
        assert one.val.average_precision == pytest.approx(same.val.average_precision)
    others = evaluate_classifiers(subject, range(100), seed=5)
    assert others.means()[0]["val_average_precision"] != results[0].means()[0]["val_average_precision"]
    assert len(results[0].histograms) == 10
