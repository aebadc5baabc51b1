"""Selective prediction against its definition: every order of tied images, and images left out one by one."""

from __future__ import annotations

import itertools
import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from codedtool.analysis.calibration import stratified_splits
from codedtool.analysis.selective import COVERAGES, RiskCoverage, SelectiveResult, risk_coverage, selective
from codedtool.analysis.temperature import fit_temperature
from codedtool.errors import InputError
from codedtool.report.figures_calibration import draw_risk_coverage
from codedtool.training.subject import Outputs
from tests.subjects import made_outputs

pytestmark = pytest.mark.quick


def brute_force(correct: list[bool], scores: list[tuple[float, ...]]) -> list[float]:
    """Mean over all orders that fall in the score of the share of wrong answers among the first k, for each k."""
    n = len(correct)
    totals, orders = [0.0] * n, 0
    for order in itertools.permutations(range(n)):
        if any(scores[a] < scores[b] for a, b in itertools.pairwise(order)):
            continue
        orders += 1
        for k in range(1, n + 1):
            totals[k - 1] += sum(not correct[i] for i in order[:k]) / k
    return [total / orders for total in totals]


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 2), st.integers(0, 1)), min_size=1, max_size=6))
def test_curve_is_the_mean_over_all_orders_of_ties(cases: list[tuple[bool, int, int]]) -> None:
    correct = [case[0] for case in cases]
    first, second = (torch.tensor([case[i] for case in cases]) for i in (1, 2))
    one = risk_coverage(torch.tensor(correct), first)
    assert one.risk_n.tolist() == pytest.approx(brute_force(correct, [(case[1],) for case in cases]))
    two = risk_coverage(torch.tensor(correct), first, second)
    expected = brute_force(correct, [case[1:] for case in cases])
    assert two.risk_n.tolist() == pytest.approx(expected)
    assert two.aurc == pytest.approx(sum(expected) / len(expected))


def test_risk_of_distinct_scores_is_that_of_the_images_above_a_threshold() -> None:
    generator = torch.Generator().manual_seed(0)
    score = torch.randperm(97, generator=generator).double()
    correct = torch.rand(97, generator=generator) < 0.7
    curve = risk_coverage(correct, score)
    for threshold in score.tolist():
        answered = score >= threshold
        k = int(answered.sum())
        assert float(curve.risk_n[k - 1]) == pytest.approx(float((~correct[answered]).double().mean()))
    for coverage in COVERAGES:
        k = next(k for k in range(1, 98) if k / 97 >= coverage)
        assert curve.risk_at(coverage) == float(curve.risk_n[k - 1])
    shuffled = torch.randperm(97, generator=generator)
    assert torch.equal(risk_coverage(correct[shuffled], score[shuffled]).risk_n, curve.risk_n)


@pytest.mark.parametrize("right", [True, False])
def test_all_right_and_all_wrong(right: bool) -> None:
    curve = risk_coverage(torch.full((30,), right), torch.rand(30))
    assert curve.aurc == pytest.approx(float(not right))
    assert {curve.risk_at(coverage) for coverage in COVERAGES} == {float(not right)}


def test_coverage_of_whole_numbers_of_images_is_exact() -> None:
    for n in range(1, 200):
        curve = RiskCoverage("k", torch.arange(1, n + 1, dtype=torch.float64))
        for percent in (1, 10, 50, 80, 90, 95, 100):
            assert curve.risk_at(percent / 100) == math.ceil(percent * n / 100) or percent * n % 100
            assert curve.risk_at(percent / 100) == max(1, -(-percent * n // 100))


def test_bad_curves_are_refused() -> None:
    correct = torch.ones(3, dtype=torch.bool)
    for scores in ((), (torch.rand(2),)):
        with pytest.raises(InputError, match="scores must be vectors as long as the answers'"):
            risk_coverage(correct, *scores)
    with pytest.raises(InputError, match="`coverage` must be above 0 and at most 1, got 0"):
        risk_coverage(correct, torch.rand(3)).risk_at(0)


def test_scores_are_compared_on_the_half_that_h_aug_was_not_fitted_on() -> None:
    outputs = made_outputs(600)
    result = selective(outputs, seed=5)
    ((fit, test),) = stratified_splits(outputs.targets, 0.5, seed=5)
    fitted = fit_temperature(Outputs(outputs.logits[fit], outputs.targets[fit], (), outputs.decoded[fit]))
    assert result.temperature == fitted
    assert (result.num_fit, result.num_images) == (300, 300)
    logits, decoded = outputs.logits[test], outputs.decoded[test]
    correct = logits.argmax(1) == outputs.targets[test]
    # The scores written out anew, as one number each.
    softmax = logits.double().softmax(1).amax(1)
    agreeing = torch.tensor(
        [sum(e == int(z.argmax()) for e in d) for z, d in zip(logits, decoded.tolist(), strict=True)]
    )
    expected = {
        "softmax": softmax,
        "h_aug": fitted.probabilities(logits, decoded).amax(1),
        "decoder agreement": agreeing + softmax / 2,
    }
    assert [curve.score for curve in result.curves] == list(expected)
    for curve in result.curves:
        torch.testing.assert_close(curve.risk_n, risk_coverage(correct, expected[curve.score]).risk_n)
        assert curve.risk_at(1.0) == pytest.approx(1 - float(correct.double().mean()))
    by_name = {curve.score: curve for curve in result.curves}
    assert by_name["h_aug"].aurc < by_name["softmax"].aurc  # these decoders know better


def test_several_splits_give_the_mean_of_their_curves() -> None:
    outputs = made_outputs(300)
    result = selective(outputs, seed=3, repeats=4)
    splits = stratified_splits(outputs.targets, 0.5, repeats=4, seed=3)
    correct = outputs.predictions == outputs.targets
    softmax = outputs.logits.double().softmax(1).amax(1)
    risks = torch.stack([risk_coverage(correct[test], softmax[test]).risk_n for _, test in splits])
    (curve, *_) = result.curves
    torch.testing.assert_close(curve.risk_n, risks.mean(0))
    assert curve.aurc == pytest.approx(float(risks.mean()))
    assert curve.aurc_deviation == pytest.approx(float(risks.mean(1).std()))
    assert curve.deviation_at(0.5) == pytest.approx(float(risks[:, 74].std()))
    document = result.to_json()
    assert document["repeats"] == 4
    assert document["scores"][0]["std_at_coverage"]["1"] == pytest.approx(float(risks[:, -1].std()))
    assert "mean ± standard deviation of 4 splits, 150 images" in result.table().caption
    assert all("±" in cell for row in result.table().rows for cell in row[1:])
    assert len(draw_risk_coverage(result).axes[0].collections) == 3


def test_a_figure_without_wrong_answers_says_so() -> None:
    curve = risk_coverage(torch.ones(20, dtype=torch.bool), torch.rand(20), name="softmax")
    (axes,) = draw_risk_coverage(SelectiveResult((curve,), 20, 20, None, 0, ())).axes
    assert axes.get_ylim() == (0, 1)
    assert [text.get_text() for text in axes.texts] == ["all 20 images are answered rightly"]


def test_it_repeats_with_its_seed() -> None:
    outputs = made_outputs(200)
    assert selective(outputs, seed=1).to_json() == selective(outputs, seed=1).to_json()
    assert selective(outputs, seed=1).to_json() != selective(outputs, seed=2).to_json()


def test_files_hold_thinned_curves_that_end_at_full_coverage() -> None:
    result = selective(made_outputs(1000))
    document = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert document["temperature"]["taus"]
    for score, curve in zip(document["scores"], result.curves, strict=True):
        assert len(score["curve"]) == 200
        assert score["curve"][0]["coverage"] == 1 / 500
        assert score["curve"][-1] == {"coverage": 1.0, "risk": curve.risk_at(1.0)}
        assert list(score["risk_at_coverage"]) == ["0.5", "0.8", "0.9", "0.95", "1"]
        coverages = [point["coverage"] for point in score["curve"]]
        assert coverages == sorted(set(coverages))
    assert len(result.rows()) == 600
    figure = draw_risk_coverage(result)
    assert [line.get_ydata()[-1] for line in figure.axes[0].lines] == pytest.approx(
        [100 * curve.risk_at(1.0) for curve in result.curves]
    )


def test_short_curves_are_kept_whole() -> None:
    assert len(risk_coverage(torch.ones(7, dtype=torch.bool), torch.rand(7)).points()) == 7


def test_without_coded_blocks_softmax_is_left() -> None:
    result = selective(made_outputs(100, 2, 0))
    assert [curve.score for curve in result.curves] == ["softmax"]
    assert [reason.split(":")[0] for reason in result.skipped] == ["h_aug", "decoder agreement"]
    assert result.to_json()["temperature"] is None
    draw_risk_coverage(result)
