"""Temperatures of the softmax, with and without early decoders, and their fit (appendix C, eq. 10 and 11).

Shape suffixes: n images, B of a chunk, K classes, L coded blocks (early decoders), R repeats, P patterns of agreement,
G grid nodes.

The fit is fast because the negative log-likelihood (NLL) of an image depends only on the image's temperature, and
because images that agree with the same early decoders have the same temperature (eq. 11). First, the NLL of every image
and its derivative are tabulated at fixed temperatures. Then the tables are averaged over the images to fit on, for each
pattern of agreement. An iteration of gradient descent only looks up these averages, by cubic Hermite interpolation
(error below 1e-6 nats), for all repeats at once. Its cost does not depend on the number of images or classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from codedtool.budget import Progress, silent
from codedtool.errors import InputError
from codedtool.training.subject import Outputs

# Bounds of T and of T_aug / T, for every pattern of agreement. So T_aug lies between the products of the bounds.
_TEMPERATURES = (0.05, 20.0)
_FACTORS = (0.05, 20.0)
_LOG_LOWEST = math.log(_TEMPERATURES[0] * _FACTORS[0])
_LOG_HIGHEST = math.log(_TEMPERATURES[1] * _FACTORS[1])
_NODES = 257
_SPACING = (_LOG_HIGHEST - _LOG_LOWEST) / (_NODES - 1)

# Number of logits in a chunk: as float64 they take 2 MB, which stay in a core's cache for all nodes of the grid.
_CHUNK = 1 << 18


def agreement(logits_nK: torch.Tensor, decoded_nL: torch.Tensor) -> torch.Tensor:
    """(n, L) bool: whether early decoder i predicts the same class as the network, 1[e_i = yhat] in eq. 11."""
    return decoded_nL == logits_nK.argmax(1, keepdim=True)


@dataclass(frozen=True)
class Temperature:
    """A fitted temperature: h_T of eq. 10, or h_aug of eq. 11 with one tau for each early decoder.

    Attributes:
        temperature: T, above 0. With 1 the softmax is unchanged; a larger value makes it less confident.
        taus: tau of every early decoder; empty for h_T. A negative tau makes the network more confident if this decoder
            agrees.
    """

    temperature: float = 1.0
    taus: tuple[float, ...] = ()

    def of_images(self, logits_nK: torch.Tensor, decoded_nL: torch.Tensor | None = None) -> torch.Tensor:
        """(n,) float64 temperatures, T_aug = T * (1 + sum_i 1[e_i = yhat] * tau_i) for every image (eq. 11).

        Args:
            logits_nK: (n, K) logits.
            decoded_nL: (n, L) int64 classes that the early decoders predict; unused, and may be None, without ``taus``.

        Raises:
            InputError: the number of early decoders is not that of the taus.
        """
        if not self.taus:
            return torch.full((len(logits_nK),), self.temperature, dtype=torch.float64)
        if decoded_nL is None or decoded_nL.shape != (len(logits_nK), len(self.taus)):
            shape = None if decoded_nL is None else tuple(decoded_nL.shape)
            raise InputError(
                f"a temperature fitted with {len(self.taus)} early decoders needs their classes for each of the "
                f"{len(logits_nK)} images, got {shape}; fit a temperature for this network with fit_temperature"
            )
        taus = torch.tensor(self.taus, dtype=torch.float64)
        return self.temperature * (1 + agreement(logits_nK, decoded_nL).double() @ taus)

    def probabilities(self, logits_nK: torch.Tensor, decoded_nL: torch.Tensor | None = None) -> torch.Tensor:
        """(n, K) float64 probabilities, softmax(z / T_aug). The predicted class stays that of the highest logit.

        Args and Raises: as for `of_images`.
        """
        return torch.softmax(logits_nK.double() / self.of_images(logits_nK, decoded_nL)[:, None], dim=1)

    def confidence(self, logits_nK: torch.Tensor, decoded_nL: torch.Tensor | None = None) -> torch.Tensor:
        """(n,) float64, each image's highest probability, computed in chunks of bounded memory.

        Args and Raises: as for `of_images`.
        """
        temperature_n = self.of_images(logits_nK, decoded_nL)
        rows = max(1, _CHUNK // logits_nK.shape[1])
        parts = []
        for logits_BK, temperature_B in zip(logits_nK.split(rows), temperature_n.split(rows), strict=True):
            below_BK = logits_BK.double() - logits_BK.double().amax(1, keepdim=True)
            parts.append(1 / below_BK.div_(temperature_B[:, None]).exp_().sum(1))
        return torch.cat(parts)


class Likelihood:
    """Table of the negative log-likelihood of every image as a function of log T, at the nodes of a grid.

    Attributes:
        values_nG: (n, G) float64 values, in nats.
        slopes_nG: (n, G) float64 derivatives with respect to log T.
        agreement_PL: (P, L) float64 of 0 and 1: the patterns of agreement that occur.
        pattern_n: (n,) the row of ``agreement_PL`` that each image has.
    """

    def __init__(self, outputs: Outputs, progress: Progress = silent) -> None:
        n, num_classes = outputs.logits.shape
        inverse_G = torch.exp(-(_LOG_LOWEST + _SPACING * torch.arange(_NODES, dtype=torch.float64)))
        self.values_nG = torch.empty(n, _NODES, dtype=torch.float64)
        self.slopes_nG = torch.empty(n, _NODES, dtype=torch.float64)
        rows = max(1, _CHUNK // num_classes)
        for start in range(0, n, rows):
            progress("tabulating likelihoods", start, n)
            logits_BK = outputs.logits[start : start + rows].double()
            # The NLL is the log-sum-exp of the logits after the right class's logit is subtracted from them.
            logits_BK = logits_BK - logits_BK.gather(1, outputs.targets[start : start + rows, None])
            highest_B = logits_BK.amax(1)
            below_BK = logits_BK - highest_B[:, None]
            for node, inverse in enumerate(inverse_G.tolist()):
                weights_BK = (below_BK * inverse).exp_()
                sums_B = weights_BK.sum(1)
                mean_B = highest_B + weights_BK.mul_(below_BK).sum(1) / sums_B
                self.values_nG[start : start + rows, node] = highest_B * inverse + sums_B.log()
                self.slopes_nG[start : start + rows, node] = -inverse * mean_B
        agree_nL = agreement(outputs.logits, outputs.decoded)
        # torch.unique refuses empty rows, which networks without coded blocks have: add a column of ones.
        rows_n1L = torch.cat([torch.ones(n, 1, dtype=torch.bool), agree_nL], dim=1)
        patterns_P1L, self.pattern_n = torch.unique(rows_n1L, dim=0, return_inverse=True)
        self.agreement_PL = patterns_P1L[:, 1:].double()

    def fit(
        self, parts: Sequence[torch.Tensor], *, augmented: bool, positive_taus: bool, iterations: int, lr: float
    ) -> list[Temperature]:
        """Fit h_aug (if ``augmented``) or h_T to each part. Parts are indices of images, all of the same length."""
        agreement_PL = self.agreement_PL if augmented else torch.zeros(1, 0, dtype=torch.float64)
        pattern_n = self.pattern_n if augmented else torch.zeros_like(self.pattern_n)
        # The mean over a part's images is a sparse matrix times the table, which is faster than index_add_ by rows.
        rows = torch.cat([repeat * len(agreement_PL) + pattern_n[part] for repeat, part in enumerate(parts)])
        weights = torch.full((len(rows),), 1 / len(parts[0]), dtype=torch.float64)
        shape = (len(parts) * len(agreement_PL), len(pattern_n))
        members = torch.sparse_coo_tensor(
            torch.stack([rows, torch.cat(list(parts))]), weights, shape, check_invariants=True
        )
        values_RPG, slopes_RPG = (
            torch.sparse.mm(members, table_nG).view(len(parts), len(agreement_PL), _NODES)
            for table_nG in (self.values_nG, self.slopes_nG)
        )
        return _descend(values_RPG, slopes_RPG, agreement_PL, positive_taus=positive_taus, iterations=iterations, lr=lr)


def _interpolate(
    values_RPG: torch.Tensor, slopes_RPG: torch.Tensor, log_RP: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """(R, P) values and derivatives at log T_aug, by the cubics that match value and derivative at both nodes."""
    position_RP = (log_RP - _LOG_LOWEST) / _SPACING
    left_RP1 = position_RP.floor().long().clamp(0, _NODES - 2)[..., None]
    t = position_RP - left_RP1[..., 0]
    start, end = (values_RPG.gather(2, left_RP1 + side)[..., 0] for side in (0, 1))
    rise_start, rise_end = (slopes_RPG.gather(2, left_RP1 + side)[..., 0] * _SPACING for side in (0, 1))
    # start + rise_start t + square t^2 + cube t^3
    square = 3 * (end - start) - 2 * rise_start - rise_end
    cube = 2 * (start - end) + rise_start + rise_end
    value_RP = start + t * (rise_start + t * (square + t * cube))
    slope_RP = (rise_start + t * (2 * square + t * 3 * cube)) / _SPACING
    return value_RP, slope_RP


def _descend(
    values_RPG: torch.Tensor,
    slopes_RPG: torch.Tensor,
    agreement_PL: torch.Tensor,
    *,
    positive_taus: bool,
    iterations: int,
    lr: float,
) -> list[Temperature]:
    """Projected gradient descent on T and tau, from T = 1 and tau = 0, for all repeats side by side.

    A step that would raise the NLL is not taken, and the repeat's step size is halved. Without this, lr = 0.1 is too
    large for sharp likelihoods (small temperatures, many decoders that agree together): the iteration oscillates, or
    throws T so high that its gradient vanishes. As long as the NLL falls, every step is that of plain gradient descent.
    """
    repeats, num_decoders = len(values_RPG), agreement_PL.shape[1]

    def evaluate(parameters_R: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(R,) NLL and (R, 1 + L) gradient."""
        temperature_R1, factor_RP = parameters_R[:, :1], 1 + parameters_R[:, 1:] @ agreement_PL.T
        value_RP, slope_RP = _interpolate(values_RPG, slopes_RPG, (temperature_R1 * factor_RP).log())
        for_temperature_R1 = slope_RP.sum(1, keepdim=True) / temperature_R1
        return value_RP.sum(1), torch.cat([for_temperature_R1, (slope_RP / factor_RP) @ agreement_PL], dim=1)

    parameters_R = torch.zeros(repeats, 1 + num_decoders, dtype=torch.float64)
    parameters_R[:, 0] = 1
    step_R = torch.full((repeats,), lr, dtype=torch.float64)
    loss_R, gradient_R = evaluate(parameters_R)
    for _ in range(iterations):
        candidate_R = _project(parameters_R - step_R[:, None] * gradient_R, positive_taus=positive_taus)
        new_loss_R, new_gradient_R = evaluate(candidate_R)
        taken_R = new_loss_R <= loss_R
        step_R = torch.where(taken_R, step_R, step_R / 2)
        loss_R = torch.where(taken_R, new_loss_R, loss_R)
        parameters_R = torch.where(taken_R[:, None], candidate_R, parameters_R)
        gradient_R = torch.where(taken_R[:, None], new_gradient_R, gradient_R)
    return [Temperature(temperature, tuple(taus)) for temperature, *taus in parameters_R.tolist()]


def _project(parameters_R: torch.Tensor, *, positive_taus: bool) -> torch.Tensor:
    """Clamp T to its bounds, and shrink the taus so that T_aug / T keeps its bounds for every pattern of agreement."""
    taus = parameters_R[:, 1:]
    above = taus.clamp(min=0)
    above = above / (above.sum(1, keepdim=True) / (_FACTORS[1] - 1)).clamp(min=1)
    below = torch.zeros_like(taus) if positive_taus else taus.clamp(max=0)
    below = below / (below.sum(1, keepdim=True) / (_FACTORS[0] - 1)).clamp(min=1)
    return torch.cat([parameters_R[:, :1].clamp(*_TEMPERATURES), above + below], dim=1)


def fit_temperature(
    outputs: Outputs,
    *,
    augmented: bool = True,
    positive_taus: bool = False,
    iterations: int = 600,
    lr: float = 0.1,
) -> Temperature:
    """Fit h_aug (eq. 11) or h_T (eq. 10; Guo et al. 2017) by gradient descent on the mean NLL of all images.

    A step that would raise the NLL is not taken, and halves the step size; the paper does not say so.

    T stays in 0.05..20. Taus may be negative, because eq. 11 does not forbid it: the more decoders agree, the likelier
    the prediction is right (table 3), and a negative tau turns agreement into more confidence. With tau >= 0, agreement
    could only lower the confidence. T_aug must stay positive for every pattern of agreement, also an unseen one: so
    1 + (sum of all negative taus) is kept at 0.05 or above, and 1 + (sum of all positive taus) at 20 or below.

    Args:
        outputs: outputs for images that the network was not trained on. Do not measure the calibration on them.
        augmented: whether to fit h_aug instead of h_T. Without coded blocks, both are h_T.
        positive_taus: whether every tau is kept at 0 or above.
        iterations: iterations of gradient descent, at least 1 (appendix C: 600).
        lr: step size, above 0 (appendix C: 0.1).

    Returns:
        The fitted temperature; its ``taus`` are empty for h_T.

    Raises:
        InputError: ``iterations`` or ``lr`` is out of range.
    """
    check_descent(iterations, lr)
    likelihood = Likelihood(outputs)
    everything = torch.arange(len(outputs.targets))
    (fitted,) = likelihood.fit(
        [everything], augmented=augmented, positive_taus=positive_taus, iterations=iterations, lr=lr
    )
    return fitted


def check_descent(iterations: int, lr: float) -> None:
    """Raise InputError if ``iterations`` is below 1 or ``lr`` is not a positive number."""
    if iterations < 1 or not 0 < lr < math.inf:
        raise InputError(f"`iterations` must be at least 1 and `lr` a positive number, got {iterations} and {lr}")
