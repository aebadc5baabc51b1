"""Scores of binary classifiers: the exact best-F1 threshold, precision, recall, F1 and average precision (section 4.3).

Shape suffixes: n images, c classes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from codedtool.errors import InputError


@dataclass(frozen=True)
class BinaryMetrics:
    """What a binary classifier reaches on some positives and negatives; all from 0 to 1, precision 0 of no positive."""

    precision: float
    recall: float
    f1: float
    average_precision: float
    num_positives: int
    num_negatives: int

    def to_json(self) -> dict[str, float | int]:
        """Plain types."""
        return asdict(self)


def best_f1_thresholds(scores_nc: torch.Tensor, positives_nc: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The threshold of highest F1 of every column, over all thresholds there are, where ``score >= threshold`` is yes.

    Sorted once and counted cumulatively: O(n log n). A threshold lies halfway between the lowest score that it accepts
    and the next lower one; of several best ones the highest is taken.

    Args:
        scores_nc: (n, c) finite scores.
        positives_nc: (n, c) bool.

    Returns:
        (c,) thresholds in the scores' type, and (c,) float64 F1.

    Raises:
        InputError: a column without a positive, or a score that is not finite.
    """
    totals_c = positives_nc.sum(0)
    if not bool(torch.isfinite(scores_nc).all()):
        raise InputError("a binary classifier's score is not finite: the network's weights are damaged or diverged")
    if bool((totals_c == 0).any()):
        raise InputError(f"class {int((totals_c == 0).nonzero()[0])} has no image to choose a threshold with")
    sorted_nc, order_nc = scores_nc.sort(dim=0, descending=True, stable=True)
    hits_nc = positives_nc.gather(0, order_nc).cumsum(0)
    accepted_n1 = torch.arange(1, len(scores_nc) + 1, device=scores_nc.device)[:, None]
    f1_nc = 2 * hits_nc.double() / (accepted_n1 + totals_c)
    # Equal scores are accepted together: only the last of a tie is a place to stop.
    is_tied_nc = torch.zeros_like(f1_nc, dtype=torch.bool)
    is_tied_nc[:-1] = sorted_nc[:-1] == sorted_nc[1:]
    best_c = f1_nc.masked_fill(is_tied_nc, -1.0).argmax(0)
    columns_c = torch.arange(scores_nc.shape[1], device=scores_nc.device)
    accepted_c = sorted_nc[best_c, columns_c]
    below_c = sorted_nc[(best_c + 1).clamp_max(len(scores_nc) - 1), columns_c]
    halfway_c = below_c + (accepted_c - below_c) / 2
    # Halfway between neighbouring floats is one of them, and must not be the lower one; a difference may overflow.
    is_between_c = (halfway_c > below_c) & (halfway_c <= accepted_c)
    thresholds_c = torch.where(is_between_c, halfway_c, accepted_c)
    return thresholds_c, f1_nc[best_c, columns_c]


def measure(scores_n: NDArray[np.float32], positives_n: NDArray[np.bool_], threshold: float) -> BinaryMetrics:
    """Precision, recall and F1 at a threshold, and average precision over all of them.

    Raises:
        InputError: no positive or no negative.
    """
    from sklearn.metrics import average_precision_score

    num_positives, num_images = int(positives_n.sum()), len(positives_n)
    if num_positives in (0, num_images):
        raise InputError(
            f"a binary classifier is measured on positives and negatives; got {num_positives} positives "
            f"among {num_images} images"
        )
    accepted_n = scores_n >= np.float32(threshold)
    hits, accepted = int((accepted_n & positives_n).sum()), int(accepted_n.sum())
    return BinaryMetrics(
        precision=hits / accepted if accepted else 0.0,
        recall=hits / num_positives,
        f1=2 * hits / (accepted + num_positives),
        average_precision=float(average_precision_score(positives_n, scores_n)),
        num_positives=num_positives,
        num_negatives=num_images - num_positives,
    )


def sample_negatives(
    num_positives: int, negatives: NDArray[np.int64], *, per_positive: int | None, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Indices of ``per_positive`` negatives for each positive, drawn without replacement; None or too few: all."""
    if per_positive is None or per_positive * num_positives >= len(negatives):
        return negatives
    return np.sort(rng.choice(negatives, per_positive * num_positives, replace=False))
