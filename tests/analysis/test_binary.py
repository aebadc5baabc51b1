"""Thresholds and metrics of binary classifiers, against brute force and scikit-learn."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score, precision_score, recall_score

from codedtool.analysis.binary import best_f1_thresholds, measure, sample_negatives, share_negatives
from codedtool.errors import InputError

pytestmark = pytest.mark.quick

# Few values, so that ties are common; neighbours in float32, between which there is no threshold.
ONE = float(np.float32(1))
NEXT = float(np.nextafter(np.float32(1), np.float32(2)))
HUGE = float(np.finfo(np.float32).max)
scores_lists = st.lists(
    st.tuples(st.sampled_from([-HUGE, -2.5, -0.0, 0.0, 0.5, ONE, NEXT, 3.0, HUGE]), st.booleans()),
    min_size=1,
    max_size=12,
).filter(lambda rows: any(positive for _, positive in rows))


def brute_force_f1(scores: np.ndarray, positives: np.ndarray) -> float:
    """The highest F1 over every set that some threshold accepts, and none."""
    best = 0.0
    for threshold in np.unique(scores):
        accepted = scores >= threshold
        hits = int((accepted & positives).sum())
        best = max(best, 2 * hits / int(accepted.sum() + positives.sum()))
    return best


@given(scores_lists)
def test_no_threshold_has_a_higher_f1_and_the_rule_reproduces_it(rows: list[tuple[float, bool]]) -> None:
    scores = np.array([score for score, _ in rows], dtype=np.float32)
    positives = np.array([positive for _, positive in rows])
    thresholds, f1 = best_f1_thresholds(torch.from_numpy(scores)[:, None], torch.from_numpy(positives)[:, None])
    assert float(f1[0]) == pytest.approx(brute_force_f1(scores, positives), abs=1e-12)
    assert thresholds.dtype == torch.float32
    accepted = scores >= thresholds[0].numpy()
    assert 2 * (accepted & positives).sum() / (accepted.sum() + positives.sum()) == pytest.approx(float(f1[0]))
    # And so through JSON, as the classifier's file keeps it.
    threshold = json.loads(json.dumps(float(thresholds[0])))
    assert (torch.from_numpy(scores) >= threshold).tolist() == accepted.tolist()


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 5), st.integers(1, 6))
def test_every_column_has_its_own_threshold(seed: int, images: int, columns: int, levels: int) -> None:
    rng = np.random.default_rng(seed)
    scores = torch.from_numpy(rng.integers(0, levels, (images, columns)).astype(np.float32))
    positives = torch.from_numpy(rng.random((images, columns)) < 0.4)
    positives[rng.integers(images)] = True
    thresholds, f1 = best_f1_thresholds(scores, positives)
    for column in range(columns):
        alone = best_f1_thresholds(scores[:, [column]], positives[:, [column]])
        assert (float(thresholds[column]), float(f1[column])) == (float(alone[0]), float(alone[1]))
        assert float(f1[column]) == pytest.approx(
            brute_force_f1(scores[:, column].numpy(), positives[:, column].numpy())
        )


def test_a_threshold_lies_halfway_below_the_lowest_accepted_score() -> None:
    scores = torch.tensor([[4.0], [3.0], [1.0], [0.0]])
    positives = torch.tensor([[True], [True], [False], [False]])
    thresholds, f1 = best_f1_thresholds(scores, positives)
    assert (float(thresholds[0]), float(f1[0])) == (2.0, 1.0)
    neighbours, _ = best_f1_thresholds(torch.tensor([[NEXT], [ONE]]), torch.tensor([[True], [False]]))
    assert float(neighbours[0]) == NEXT


def test_of_equally_good_thresholds_the_highest_is_taken() -> None:
    # Accepting one or all three gives F1 = 2/3 or 4/5; accepting one, or one and two negatives more, would tie.
    scores = torch.tensor([[5.0], [4.0], [3.0], [2.0]])
    positives = torch.tensor([[True], [False], [False], [True]])
    _, f1 = best_f1_thresholds(scores, positives)
    assert float(f1[0]) == pytest.approx(2 / 3)
    assert float(best_f1_thresholds(scores, positives)[0][0]) == 4.5


def test_a_class_without_a_positive_and_a_score_that_is_not_finite_are_refused() -> None:
    positives = torch.tensor([[True, False], [False, False]])
    with pytest.raises(InputError, match="class 1 has no image"):
        best_f1_thresholds(torch.zeros(2, 2), positives)
    for value in (float("nan"), float("inf")):
        with pytest.raises(InputError, match="not finite"):
            best_f1_thresholds(torch.tensor([[value], [0.0]]), positives[:, :1])


@given(scores_lists, st.sampled_from([-HUGE, -1.0, 0.0, ONE, NEXT, HUGE]))
def test_metrics_are_those_of_sklearn(rows: list[tuple[float, bool]], threshold: float) -> None:
    scores = np.array([score for score, _ in rows], dtype=np.float32)
    positives = np.array([positive for _, positive in rows])
    if positives.all():
        with pytest.raises(InputError, match="positives and negatives"):
            measure(scores, positives, threshold)
        return
    metrics = measure(scores, positives, threshold)
    accepted = scores >= np.float32(threshold)
    assert metrics.precision == pytest.approx(precision_score(positives, accepted, zero_division=0))
    assert metrics.recall == pytest.approx(recall_score(positives, accepted))
    assert metrics.f1 == pytest.approx(f1_score(positives, accepted))
    assert metrics.average_precision == pytest.approx(average_precision_score(positives, scores))
    assert (metrics.num_positives, metrics.num_negatives) == (positives.sum(), (~positives).sum())


def test_precision_is_zero_where_nothing_is_accepted() -> None:
    metrics = measure(np.array([0.0, 1.0], np.float32), np.array([True, False]), 2.0)
    assert (metrics.precision, metrics.recall, metrics.f1) == (0.0, 0.0, 0.0)


@given(st.integers(1, 8), st.integers(0, 100), st.sampled_from([None, 1, 9]), st.integers(0, 9))
def test_negatives_are_distinct_and_the_seed_repeats_them(
    positives: int, num_negatives: int, per_positive: int | None, seed: int
) -> None:
    negatives = np.arange(num_negatives) * 3 + 1
    first, second = (
        sample_negatives(positives, negatives, per_positive=per_positive, rng=np.random.default_rng(seed))
        for _ in range(2)
    )
    assert np.array_equal(first, second)
    assert set(first.tolist()) <= set(negatives.tolist())
    assert len(set(first.tolist())) == len(first)
    size = num_negatives if per_positive is None else min(num_negatives, per_positive * positives)
    assert len(first) == size


def test_another_seed_draws_other_negatives() -> None:
    draws = [
        sample_negatives(2, np.arange(1000), per_positive=9, rng=np.random.default_rng(seed)).tolist()
        for seed in range(2)
    ]
    assert draws[0] != draws[1]


@given(st.lists(st.integers(0, 5), max_size=60), st.integers(1, 9), st.integers(0, 2**31))
def test_every_class_gets_its_negatives_or_all_there_are(targets: list[int], per_positive: int, seed: int) -> None:
    targets_n = np.array(targets, dtype=np.int64)
    shared = share_negatives(targets_n, 6, per_positive=per_positive, seed=seed)
    assert len(shared) == 6
    for k, negatives in enumerate(shared):
        others = int((targets_n != k).sum())
        assert len(negatives) == min(per_positive * targets.count(k), others)
        assert not (targets_n[negatives] == k).any(), "a positive"
        assert negatives.tolist() == sorted(set(negatives.tolist())), "a number twice, or out of order"
    again = share_negatives(targets_n, 6, per_positive=per_positive, seed=seed)
    assert [one.tolist() for one in shared] == [one.tolist() for one in again]


@given(st.integers(20, 60), st.integers(1, 12), st.integers(1, 9), st.integers(0, 2**31), st.booleans())
def test_images_serve_equally_often_give_or_take_one(
    num_classes: int, size: int, per_positive: int, seed: int, is_mixed: bool
) -> None:
    targets_n = np.repeat(np.arange(num_classes), size)
    if is_mixed:
        targets_n = np.random.default_rng(seed).permutation(targets_n)
    shared = share_negatives(targets_n, num_classes, per_positive=per_positive, seed=seed)
    counts = np.bincount(np.concatenate(shared), minlength=len(targets_n))
    assert counts.mean() == per_positive
    assert counts.min() >= per_positive - 1
    assert counts.max() <= per_positive + 1


@given(st.lists(st.integers(1, 30), min_size=20, max_size=40), st.integers(0, 2**31))
def test_classes_of_unequal_sizes_share_as_well(sizes: list[int], seed: int) -> None:
    # No class is so large that its images cannot serve often enough.
    targets_n = np.repeat(np.arange(len(sizes)), sizes)
    shared = share_negatives(targets_n, len(sizes), per_positive=2, seed=seed)
    counts = np.bincount(np.concatenate(shared), minlength=len(targets_n))
    assert counts.max() - counts.min() <= 3


def test_shared_negatives_are_spread_over_the_classes_and_follow_the_seed() -> None:
    targets_n = np.repeat(np.arange(100), 20)
    first, second = (share_negatives(targets_n, 100, per_positive=9, seed=seed) for seed in range(2))
    assert [one.tolist() for one in first] != [one.tolist() for one in second]
    # 180 negatives of 99 classes: about two of each, as drawn by chance.
    spread = np.array([np.bincount(targets_n[negatives], minlength=100) for negatives in first])
    assert spread.max() <= 12
    assert (spread > 0).sum(1).min() >= 60
