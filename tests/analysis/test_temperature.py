"""Temperatures (appendix C) against their formulas written out, fine grids, and scipy's optimiser."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import optimize

from codedtool.analysis.temperature import Likelihood, Temperature, agreement, fit_temperature
from codedtool.errors import InputError
from codedtool.training.subject import Outputs
from tests.subjects import (
    made_outputs,
)


def literal_nll(outputs: Outputs, temperature: float, taus: tuple[float, ...]) -> float:
    """The mean NLL under eq. 11, image by image."""
    total = 0.0
    for z, y, decoded in zip(outputs.logits.tolist(), outputs.targets.tolist(), outputs.decoded.tolist(), strict=True):
        prediction = z.index(max(z))
        t = temperature * (1 + sum(tau for e, tau in zip(decoded, taus, strict=False) if e == prediction))
        top = max(value / t for value in z)
        total += top + math.log(sum(math.exp(value / t - top) for value in z)) - z[y] / t
    return total / len(outputs.targets)


def test_augmented_temperature_is_eq_11_image_by_image() -> None:
    outputs = made_outputs(60)
    fitted = Temperature(1.7, (-0.3, 0.2, -0.1))
    probabilities = fitted.probabilities(outputs.logits, outputs.decoded)
    temperatures = fitted.of_images(outputs.logits, outputs.decoded)
    for i in range(60):
        z = outputs.logits[i].tolist()
        prediction = max(range(5), key=z.__getitem__)
        expected = 1.7
        for e, tau in zip(outputs.decoded[i].tolist(), fitted.taus, strict=True):
            expected += 1.7 * tau * (e == prediction)
        assert float(temperatures[i]) == pytest.approx(expected)
        exponentials = [math.exp(value / expected) for value in z]
        assert probabilities[i].tolist() == pytest.approx([value / sum(exponentials) for value in exponentials])
    assert torch.equal(probabilities.argmax(1), outputs.predictions)
    torch.testing.assert_close(fitted.confidence(outputs.logits, outputs.decoded), probabilities.amax(1))


def test_confidence_is_the_same_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    outputs = made_outputs(50)
    fitted = Temperature(0.8, (0.1, 0.2, -0.4))
    whole = fitted.confidence(outputs.logits, outputs.decoded)
    monkeypatch.setattr("codedtool.analysis.temperature._CHUNK", 35)
    torch.testing.assert_close(fitted.confidence(outputs.logits, outputs.decoded), whole, rtol=0, atol=0)


def test_temperature_1_is_the_softmax_and_taus_need_their_decoders() -> None:
    outputs = made_outputs(20)
    torch.testing.assert_close(Temperature().probabilities(outputs.logits), outputs.logits.double().softmax(1))
    for decoded in (None, outputs.decoded[:, :2]):
        with pytest.raises(InputError, match="fitted with 3 early decoders"):
            Temperature(1.0, (0.1, 0.1, 0.1)).confidence(outputs.logits, decoded)


@pytest.mark.parametrize("scale", [0.5, 1.0, 8.0])
def test_tabulated_likelihood_is_that_of_the_formula_between_its_nodes(scale: float) -> None:
    from codedtool.analysis.temperature import _interpolate

    outputs = made_outputs(40, scale=scale)
    table = Likelihood(outputs)
    for temperature in (0.051, 0.3337, 1.0, 2.71828, 19.0):
        log = torch.full((1, 1), math.log(temperature), dtype=torch.float64)
        value, slope = _interpolate(table.values_nG.mean(0)[None, None], table.slopes_nG.mean(0)[None, None], log)
        t = torch.tensor(temperature, dtype=torch.float64, requires_grad=True)
        exact = torch.nn.functional.cross_entropy(outputs.logits.double() / t, outputs.targets)
        exact.backward()
        assert float(value) == pytest.approx(exact.item(), rel=1e-6, abs=1e-8)
        assert float(slope) == pytest.approx(float(t.grad) * temperature, rel=1e-4, abs=1e-5)


def test_each_iteration_is_plain_gradient_descent_where_that_goes_down() -> None:
    outputs = made_outputs(300, scale=1.5)
    agreeing = agreement(outputs.logits, outputs.decoded).double()
    temperature = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    taus = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    losses = []
    for _ in range(25):
        t = temperature * (1 + agreeing @ taus)
        loss = torch.nn.functional.cross_entropy(outputs.logits.double() / t[:, None], outputs.targets)
        losses.append(loss.item())
        gradients = torch.autograd.grad(loss, (temperature, taus))
        with torch.no_grad():
            temperature -= 0.1 * gradients[0]
            taus -= 0.1 * gradients[1]
    assert losses == sorted(losses, reverse=True)
    fitted = fit_temperature(outputs, iterations=25)
    assert (fitted.temperature, *fitted.taus) == pytest.approx((temperature.item(), *taus.tolist()), abs=1e-6)


def test_the_fit_of_h_t_is_the_best_of_a_fine_grid() -> None:
    outputs = made_outputs(100)
    fitted = fit_temperature(outputs, augmented=False, iterations=4000)
    assert fitted.taus == ()
    grid = [1 + 0.02 * i for i in range(300)]
    best = min(grid, key=lambda t: literal_nll(outputs, t, ()))
    assert best == pytest.approx(fitted.temperature, abs=0.021)
    assert grid[0] < best < grid[-1]


def test_the_fit_of_h_aug_is_that_of_scipy() -> None:
    outputs = made_outputs(300, 4, 2, scale=1.0)

    def nll(parameters: np.ndarray) -> float:
        return literal_nll(outputs, float(parameters[0]), (float(parameters[1]), float(parameters[2])))

    best = optimize.minimize(nll, [1.0, 0.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-4, "fatol": 1e-9})
    fitted = fit_temperature(outputs, iterations=5000)
    assert nll(np.array([fitted.temperature, *fitted.taus])) == pytest.approx(best.fun, abs=1e-6)
    assert (fitted.temperature, *fitted.taus) == pytest.approx(tuple(best.x), abs=0.01)
    assert min(fitted.taus) < 0  # decoders that agree vouch for the prediction


@pytest.mark.parametrize("scale", [0.02, 1.0, 30.0])
def test_the_fit_never_ends_above_the_uncalibrated_likelihood(scale: float) -> None:
    outputs = made_outputs(150, scale=scale)
    start = literal_nll(outputs, 1.0, (0.0, 0.0, 0.0))
    for augmented in (False, True):
        fitted = fit_temperature(outputs, augmented=augmented)
        assert literal_nll(outputs, fitted.temperature, fitted.taus) <= start + 1e-6


def test_any_agreement_keeps_the_temperature_positive() -> None:
    """Where agreement is always right, tau falls as far as it may."""
    outputs = made_outputs(400, agree=1.0, scale=1.0)
    outputs.decoded[outputs.predictions != outputs.targets] = (
        outputs.predictions[outputs.predictions != outputs.targets, None] + 1
    ) % 5
    outputs.decoded[outputs.predictions == outputs.targets] = outputs.targets[
        outputs.predictions == outputs.targets, None
    ]
    fitted = fit_temperature(outputs, iterations=3000)
    assert sum(tau for tau in fitted.taus if tau < 0) == pytest.approx(-0.95)
    assert float(fitted.of_images(outputs.logits, outputs.decoded).min()) > 0


def test_positive_taus_stay_at_0_or_above() -> None:
    outputs = made_outputs(300)
    free, kept = fit_temperature(outputs), fit_temperature(outputs, positive_taus=True)
    assert min(free.taus) < 0
    assert all(tau >= 0 for tau in kept.taus)
    vouching_for_wrong = Outputs(
        outputs.logits,
        outputs.targets,
        (),
        torch.where((outputs.predictions == outputs.targets)[:, None], 9, outputs.predictions[:, None]).expand(-1, 3),
    )
    assert min(fit_temperature(vouching_for_wrong, positive_taus=True).taus) > 0.01


@pytest.mark.parametrize("num_classes", [2, 5])
@pytest.mark.parametrize("right", [True, False])
def test_all_right_and_all_wrong_stay_within_bounds(num_classes: int, right: bool) -> None:
    outputs = made_outputs(100, num_classes, 2)
    targets = outputs.predictions if right else (outputs.predictions + 1) % num_classes
    fitted = fit_temperature(Outputs(outputs.logits, targets, (), outputs.decoded), iterations=2000)
    assert 0.05 <= fitted.temperature <= 20
    assert (fitted.temperature < 1) == right
    assert torch.isfinite(fitted.probabilities(outputs.logits, outputs.decoded)).all()


@pytest.mark.parametrize("bad", [{"iterations": 0}, {"lr": 0.0}, {"lr": math.nan}])
def test_a_descent_that_cannot_go_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="`iterations` must be at least 1 and `lr` a positive number"):
        fit_temperature(made_outputs(20), **bad)
