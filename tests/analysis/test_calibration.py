"""Calibration (appendix C) against its formulas written out: loops over images, fine grids, and scipy's optimiser."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from codedtool.analysis.calibration import (
    CalibrationResult,
    calibrate,
    expected_calibration_error,
    reliability_bins,
    stratified_splits,
)
from codedtool.analysis.temperature import Temperature, fit_temperature
from codedtool.errors import InputError
from codedtool.report.figures_calibration import draw_calibration
from codedtool.training.subject import Outputs
from tests.subjects import (
    made_outputs,
)


def literal_errors(confidences: list[float], correct: list[bool], bins: int) -> tuple[float, float]:
    """ECE and MCE as appendix C writes them, bin by bin and image by image."""
    ece, mce = 0.0, 0.0
    for m in range(1, bins + 1):
        members = [
            i
            for i, p in enumerate(confidences)
            if (m - 1) / bins < p <= m / bins or (m == 1 and p == 0) or (m == bins and p > 1)
        ]
        if members:
            accuracy = sum(correct[i] for i in members) / len(members)
            confidence = sum(confidences[i] for i in members) / len(members)
            ece += len(members) / len(confidences) * abs(accuracy - confidence)
            mce = max(mce, abs(accuracy - confidence))
    return ece, mce


# -- ECE and MCE -------------------------------------------------------------------------------------------------------

CASES = st.lists(
    st.tuples(st.one_of(st.floats(0, 1), st.integers(0, 15).map(lambda m: m / 15)), st.booleans()),
    min_size=1,
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(CASES, st.integers(1, 20))
def test_calibration_errors_are_those_of_the_formulas(cases: list[tuple[float, bool]], bins: int) -> None:
    confidences, correct = [case[0] for case in cases], [case[1] for case in cases]
    found = expected_calibration_error(torch.tensor(confidences, dtype=torch.float64), torch.tensor(correct), bins=bins)
    assert found == pytest.approx(literal_errors(confidences, correct, bins), abs=1e-12)
    assert 0 <= found.ece <= found.mce + 1e-12
    assert found.mce <= 1


def test_bins_are_open_below_and_closed_above() -> None:
    confidence = torch.tensor([1 / 15, 2 / 15, 2 / 15 + 1e-9, 0.0, 1.0], dtype=torch.float64)
    bins = reliability_bins(confidence, torch.ones(5, dtype=torch.bool))
    assert [(part.lower, part.upper, part.count) for part in bins] == [
        (0, 1 / 15, 2),
        (1 / 15, 2 / 15, 1),
        (2 / 15, 3 / 15, 1),
        (14 / 15, 1, 1),
    ]


def test_a_network_as_sure_as_it_is_right_has_no_error_and_a_sure_wrong_one_has_all() -> None:
    confidence = torch.full((10,), 0.7, dtype=torch.float64)
    assert expected_calibration_error(confidence, torch.arange(10) < 7) == pytest.approx((0, 0), abs=1e-12)
    sure = torch.ones(4)
    assert expected_calibration_error(sure, torch.zeros(4, dtype=torch.bool)) == (1, 1)
    assert expected_calibration_error(sure, torch.ones(4, dtype=torch.bool)) == (0, 0)


@pytest.mark.parametrize(
    ("confidence", "correct", "bins", "message"),
    [
        (torch.rand(3), torch.ones(2, dtype=torch.bool), 15, r"shapes \(3,\) and \(2,\)"),
        (torch.rand(0), torch.ones(0, dtype=torch.bool), 15, "at least 1"),
        (torch.tensor([1.2]), torch.ones(1, dtype=torch.bool), 15, "0..1, got 1.2"),
        (torch.tensor([math.nan]), torch.ones(1, dtype=torch.bool), 15, "got nan"),
        (torch.rand(1), torch.ones(1, dtype=torch.bool), 0, "`bins` must be at least 1, got 0"),
    ],
)
def test_confidences_that_are_none_are_refused(
    confidence: torch.Tensor, correct: torch.Tensor, bins: int, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        expected_calibration_error(confidence, correct, bins=bins)


# -- Splits and table 6 ------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(12, 40), min_size=2, max_size=6), st.sampled_from((0.25, 0.5)), st.integers(0, 2**70))
def test_splits_share_out_every_class(counts: list[int], share: float, seed: int) -> None:
    targets = torch.cat([torch.full((count,), k) for k, count in enumerate(counts)])
    for fit, test in stratified_splits(targets, share, repeats=2, seed=seed):
        assert sorted([*fit.tolist(), *test.tolist()]) == list(range(len(targets)))
        assert len(fit) == int(share * len(targets))
        for k, count in enumerate(counts):
            assert abs(int((targets[fit] == k).sum()) - share * count) < 2


def test_splits_repeat_with_their_seed_and_differ_within_it() -> None:
    targets = torch.arange(100) % 5
    first, again, other = (stratified_splits(targets, 0.25, repeats=2, seed=seed) for seed in (1, 1, 2))
    assert all(torch.equal(a[0], b[0]) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0][0], first[1][0])
    assert not torch.equal(first[0][0], other[0][0])


@pytest.mark.parametrize(
    ("targets", "share", "repeats", "message"),
    [
        ([0, 0, 1], 0.5, 1, "class number 1 has 1 image"),
        ([0, 0, 1, 1, 2, 2], 0.25, 1, "leaves a part of 1, fewer than the 3 classes; evaluate on at least 12 images"),
        ([0, 0, 1, 1], 1.0, 1, "fit shares must lie between 0 and 1"),
        ([0, 0, 1, 1], 0.5, 0, "`repeats` must be at least 1, got 0.5 and 0"),
    ],
)
def test_splits_that_cannot_be_are_refused(targets: list[int], share: float, repeats: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        stratified_splits(torch.tensor(targets), share, repeats=repeats)


@pytest.fixture(scope="module")
def result() -> CalibrationResult:
    return calibrate(made_outputs(), seed=3, repeats=3, iterations=120)


def test_table_6_is_what_single_fits_and_loops_give(result: CalibrationResult) -> None:
    outputs = made_outputs()
    assert [(row.fit_share, row.method) for row in result.methods] == [
        (share, method) for share in (0.25, 0.5) for method in ("uncalibrated", "h_T", "h_aug", "h_aug, tau >= 0")
    ]
    correct = (outputs.predictions == outputs.targets).tolist()
    for row in result.methods:
        errors, temperatures = [], []
        for fit, test in stratified_splits(outputs.targets, row.fit_share, repeats=3, seed=3):
            fitted = Temperature()
            if row.method != "uncalibrated":
                part = Outputs(outputs.logits[fit], outputs.targets[fit], (), outputs.decoded[fit])
                fitted = fit_temperature(
                    part,
                    augmented=row.method.startswith("h_aug"),
                    positive_taus=row.method.endswith(">= 0"),
                    iterations=120,
                )
            highest = fitted.probabilities(outputs.logits[test], outputs.decoded[test]).amax(1)
            errors.append(literal_errors(highest.tolist(), [correct[i] for i in test.tolist()], 15))
            temperatures.append((fitted.temperature, *fitted.taus))
        assert (row.ece_mean, row.mce_mean) == pytest.approx(tuple(np.mean(errors, axis=0)), abs=1e-9)
        assert (row.ece_std, row.mce_std) == pytest.approx(tuple(np.std(errors, axis=0, ddof=1)), abs=1e-9)
        assert (row.temperature, *row.taus) == pytest.approx(tuple(np.mean(temperatures, axis=0)))
        assert sum(part.count for part in row.bins) == 3 * (400 - int(400 * row.fit_share))
    uncalibrated, h_T, h_aug = result.methods[:3]
    assert max(h_T.ece_mean, h_aug.ece_mean) < uncalibrated.ece_mean


def test_table_6_repeats_with_its_seed(result: CalibrationResult) -> None:
    assert calibrate(made_outputs(), seed=3, repeats=3, iterations=120) == result
    assert calibrate(made_outputs(), seed=4, repeats=3, iterations=120) != result


def test_table_6_goes_to_files_and_figures(result: CalibrationResult) -> None:
    document = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert document["methods"][2]["taus"] == list(result.methods[2].taus)
    assert document["num_images"] == 400
    rows = result.rows()
    assert len(rows) == 8
    assert rows[2]["tau_3"] == result.methods[2].taus[2]
    assert all(type(value) in (str, float) for row in rows for value in row.values())
    figure = draw_calibration(result)
    assert [axes.get_ylabel() for axes in figure.axes] == ["accuracy (%)", "ECE (%)", "MCE (%)"]
    assert len(figure.axes[1].containers) == 2 * 8  # bars and their deviations
    heights = [patch.get_height() for patch in figure.axes[1].patches]
    assert heights == pytest.approx([100 * row.ece_mean for row in result.methods])


def test_without_coded_blocks_h_aug_is_left_out_and_one_repeat_has_no_deviation() -> None:
    outputs = made_outputs(100, 2, 0)
    result = calibrate(outputs, repeats=1, iterations=50)
    assert [row.method for row in result.methods] == ["uncalibrated", "h_T"] * 2
    assert result.skipped == ("h_aug: without coded blocks there is no early decoder",)
    assert all(row.ece_std == row.mce_std == 0 for row in result.methods)
    assert fit_temperature(outputs) == fit_temperature(outputs, augmented=False)
    draw_calibration(result)


def test_progress_goes_forward() -> None:
    seen: list[tuple[str, float, float | None]] = []

    def progress(phase: str, done: float, total: float | None, note: str = "") -> None:
        seen.append((phase, done, total))

    calibrate(made_outputs(60), repeats=2, iterations=5, progress=progress)
    assert {phase for phase, *_ in seen} >= {"tabulating likelihoods", "h_aug, 25% to fit"}
    assert all(total is not None and 0 <= done <= total for _, done, total in seen)
