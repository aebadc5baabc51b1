"""Out-of-distribution detection against counting by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from codedtool.analysis.ood import OodResult, detect, ood, scores_of
from codedtool.errors import InputError
from codedtool.models.energy import codeword_distance
from codedtool.training.subject import NotApplicableError, Subject
from tests.subjects import noisy_data, settle, tiny_coded, tiny_plain, tiny_subjects

pytestmark = pytest.mark.quick

SCORES = st.lists(st.sampled_from([-2.0, -0.5, 0.0, 0.25, 3.0, 7.5]), min_size=1, max_size=30)


@given(SCORES, SCORES)
def test_auroc_and_false_positives_are_those_of_counted_pairs(own: list[float], other: list[float]) -> None:
    found = detect("coded", "some score", np.array(own), np.array(other))
    pairs = [1.0 if a > b else 0.5 if a == b else 0.0 for a in own for b in other]
    assert found.auroc == pytest.approx(sum(pairs) / len(pairs))
    # The threshold is the largest score that at least 95% of the run's own images reach.
    reached = [value for value in own if sum(one >= value for one in own) >= 0.95 * len(own)]
    assert found.threshold == max(reached)
    assert found.fpr95 == pytest.approx(sum(value >= found.threshold for value in other) / len(other))
    assert (found.curve[0], found.curve[-1]) == ((0.0, 0.0), (1.0, 1.0))


def test_a_score_that_is_not_finite_is_refused() -> None:
    with pytest.raises(InputError, match="softmax is not finite"):
        detect("coded", "softmax", np.array([0.1, np.nan]), np.array([0.2]))


def test_the_distance_is_that_of_the_literal_formula() -> None:
    energies = np.array([[2.0, 0.0, 1.0, 1.0], [1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    codewords = np.array([[1, 0, 1, 0], [1, 1, 0, 0], [1, 1, 0, 0]])
    found = codeword_distance(torch.from_numpy(energies), torch.from_numpy(codewords))
    # The first row scales by 2/4 to (1, 0, 0.5, 0.5); without any energy the distance is that of zeros.
    expected = [(0.0 + 0.0 + 0.25 + 0.25) / 2, 0.0, 2 / 2]
    assert found.tolist() == pytest.approx(expected)


@pytest.fixture(scope="module")
def subjects(tmp_path_factory: pytest.TempPathFactory) -> tuple[Subject, Subject]:
    subjects = tiny_subjects(tmp_path_factory.mktemp("runs"), tiny_coded(), tiny_plain())
    for subject in subjects:
        images, _ = next(iter(subject.batches(subject.data.val, lambda *_: None, "")))
        settle(subject.network, images)
    return subjects


@pytest.fixture(scope="module")
def result(subjects: tuple[Subject, Subject]) -> OodResult:
    other = noisy_data(("x", "y"), train=1, val=9, name="other", seed=3)
    return ood(subjects[0], plain=subjects[1], ood=other)


def test_every_score_of_both_networks_is_measured(result: OodResult) -> None:
    blocks = [f"codeword, {name}" for name in ("s2.1", "s2.2", "s3.1", "s3.2")]
    coded = ["softmax", "energy score", "agreeing decoders", *blocks, "codeword, all blocks"]
    assert [(one.network, one.score) for one in result.detections] == [
        *(("coded", score) for score in coded),
        *(("plain control", score) for score in ("softmax", "energy score")),
    ]
    assert (result.num_ood, result.skipped) == (18, ())
    own = [one for one in result.detections if one.network == "coded"]
    assert result.best.auroc == max(one.auroc for one in own)
    assert result.best.network == "coded"


def test_scores_are_those_of_their_formulas(subjects: tuple[Subject, Subject]) -> None:
    subject, _ = subjects
    outputs = subject.outputs()
    scores = scores_of(outputs, subject.network)
    for row in (0, 3):
        logits = [float(value) for value in outputs.logits[row]]
        exponents = np.exp(np.array(logits, dtype=np.float64))
        assert float(scores["softmax"][row]) == pytest.approx(exponents.max() / exponents.sum())
        assert float(scores["energy score"][row]) == pytest.approx(np.log(exponents.sum()))
        best = int(np.argmax(logits))
        assert float(scores["agreeing decoders"][row]) == outputs.decoded[row].tolist().count(best)
        distances = []
        for block, energies in zip(subject.network.coded_blocks, outputs.energies, strict=True):
            word = block.scheme.table[best].astype(np.float64)
            scaled = energies[row].double().numpy()
            scaled = scaled * word.sum() / scaled.sum()
            distances.append(((scaled - word) ** 2).sum() / word.sum())
            assert float(scores[f"codeword, {block.name}"][row]) == pytest.approx(-distances[-1])
        assert float(scores["codeword, all blocks"][row]) == pytest.approx(-np.mean(distances))


def test_a_plain_run_by_itself_leaves_nothing_out(subjects: tuple[Subject, Subject]) -> None:
    coded, plain = subjects
    other = noisy_data(("x", "y"), train=1, val=9, name="other", seed=3)
    found = ood(plain, ood=other)
    assert ([one.network for one in found.detections], found.skipped) == (["plain", "plain"], ())
    (reason,) = ood(coded, ood=other).skipped
    assert "no run `plain`" in reason
    with pytest.raises(InputError, match="name a run of the plain control"):
        ood(coded, plain=coded, ood=other)


def test_both_networks_see_the_same_images(subjects: tuple[Subject, Subject]) -> None:
    coded, plain = subjects
    other = noisy_data(("x", "y"), train=1, val=9, name="other", seed=3)
    elsewhere = replace(plain, find_data=lambda: noisy_data(plain.classes, train=4, val=2, seed=9))
    wanted, found = (ood(coded, plain=one, ood=other).detections for one in (plain, elsewhere))
    assert found == wanted


def test_without_other_images_it_does_not_apply(subjects: tuple[Subject, Subject], tmp_path: Path) -> None:
    with pytest.raises(NotApplicableError, match="images of other classes"):
        ood(subjects[0])
