"""Metrics of binary classifiers: the threshold of highest F1, precision, recall and average precision (section 4.3).

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
    """Metrics of a binary classifier on some positives and negatives.

    Attributes:
        precision: share of positives among the accepted images, 0..1; 0 if no image is accepted.
        recall: share of the positives that are accepted, 0..1.
        f1: harmonic mean of precision and recall, 0..1.
        average_precision: area under the precision-recall curve as scikit-learn computes it, 0..1.
        num_positives, num_negatives: numbers of images.
    """

    precision: float
    recall: float
    f1: float
    average_precision: float
    num_positives: int
    num_negatives: int

    def to_json(self) -> dict[str, float | int]:
        """The metrics in JSON's types."""
        return asdict(self)


def best_f1_thresholds(scores_nc: torch.Tensor, positives_nc: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """For every column, the threshold with the highest F1 if ``score >= threshold`` means yes (section 4.3).

    All thresholds are compared, in O(n log n) steps for each column. The result lies halfway between the lowest score
    that it accepts and the next lower score. If several thresholds share the highest F1, the highest of them is taken.

    Args:
        scores_nc: (n, c) finite scores.
        positives_nc: (n, c) bool: whether the image is a positive of the column's class.

    Returns:
        (c,) thresholds in the scores' type, and their (c,) float64 F1, 0..1.

    Raises:
        InputError: a column has no positive, or a score is not finite.

    Example:
        >>> scores = torch.tensor([[4.0], [3.0], [1.0], [0.0]])
        >>> positives = torch.tensor([[True], [True], [False], [False]])
        >>> thresholds, f1 = best_f1_thresholds(scores, positives)
        >>> thresholds.tolist(), f1.tolist()
        ([2.0], [1.0])
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
    # A threshold accepts all of several equal scores or none: only the last of them is a candidate.
    is_tied_nc = torch.zeros_like(f1_nc, dtype=torch.bool)
    is_tied_nc[:-1] = sorted_nc[:-1] == sorted_nc[1:]
    best_c = f1_nc.masked_fill(is_tied_nc, -1.0).argmax(0)
    columns_c = torch.arange(scores_nc.shape[1], device=scores_nc.device)
    accepted_c = sorted_nc[best_c, columns_c]
    below_c = sorted_nc[(best_c + 1).clamp_max(len(scores_nc) - 1), columns_c]
    halfway_c = below_c + (accepted_c - below_c) / 2
    # Between neighbouring floats there is no other, and the difference of huge ones overflows: then take the upper one.
    is_between_c = (halfway_c > below_c) & (halfway_c <= accepted_c)
    thresholds_c = torch.where(is_between_c, halfway_c, accepted_c)
    return thresholds_c, f1_nc[best_c, columns_c]


def measure(scores_n: NDArray[np.float32], positives_n: NDArray[np.bool_], threshold: float) -> BinaryMetrics:
    """Precision, recall and F1 at a threshold, and the average precision over all thresholds (section 4.3).

    Args:
        scores_n: (n,) float32 scores.
        positives_n: (n,) bool: whether an image is a positive.
        threshold: a score of at least this means yes.

    Returns:
        The metrics, each 0..1, and the numbers of positives and negatives.

    Raises:
        InputError: there is no positive or no negative.

    Example:
        >>> metrics = measure(np.float32([4, 3, 1, 0]), np.array([True, False, True, False]), threshold=2.0)
        >>> metrics.precision, metrics.recall, metrics.f1
        (0.5, 0.5, 0.5)
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
    """Draw ``per_positive`` negatives for each positive, without replacement.

    Args:
        num_positives: number of positives, at least 1.
        negatives: indices of all negatives.
        per_positive: negatives for each positive; None: all negatives are taken.
        rng: source of the draws.

    Returns:
        Sorted indices of the drawn negatives; ``negatives`` itself if it has no more than the wanted number.
    """
    if per_positive is None or per_positive * num_positives >= len(negatives):
        return negatives
    return np.sort(rng.choice(negatives, per_positive * num_positives, replace=False))


def share_negatives(
    targets_n: NDArray[np.int64], num_classes: int, *, per_positive: int, seed: int
) -> list[NDArray[np.int64]]:
    """Draw ``per_positive`` negatives for each positive of every class, so that all images serve about equally often.

    The images stand in a queue in random order. The classes, in random order too, take the first images that are not
    their own; an image that is left standing is the first to go next time. When the queue is too short, all images
    join its end in a new random order. So if the classes have equal sizes, every image is a negative of
    ``per_positive`` different classes, one more or one less.

    Args:
        targets_n: (n,) classes of the images, 0..K-1.
        num_classes: K.
        per_positive: negatives for each positive of a class.
        seed: seed of the draws, at least 0.

    Returns:
        For every class, the sorted numbers of its negatives, all different: as many as were asked for, or all images of
        other classes if these are fewer.

    Example:
        >>> targets = np.array([0, 0, 1, 1, 2, 2])
        >>> [negatives.tolist() for negatives in share_negatives(targets, 3, per_positive=9, seed=0)]
        [[2, 3, 4, 5], [0, 1, 4, 5], [0, 1, 2, 3]]
    """
    # Class k's own draws (`sample_negatives`) are seeded with (seed, k), and k is below K.
    rng = np.random.default_rng((seed, num_classes))
    sizes_K = np.bincount(targets_n, minlength=num_classes)
    queue = np.empty(0, dtype=np.int64)
    shared = [queue] * num_classes
    for class_index in rng.permutation(num_classes):
        missing = min(per_positive * int(sizes_K[class_index]), len(targets_n) - int(sizes_K[class_index]))
        free_n = targets_n != class_index
        taken = []
        while missing:
            places = np.flatnonzero(free_n[queue])[:missing]
            # The queue may hold an image twice: at the end of one order and at the start of the next.
            found, first = np.unique(queue[places], return_index=True)
            queue = np.delete(queue, places[first])
            free_n[found] = False
            taken.append(found)
            missing -= len(found)
            if missing and not free_n[queue].any():
                queue = np.concatenate([queue, rng.permutation(len(targets_n))])
        shared[class_index] = np.sort(np.concatenate(taken)) if taken else queue[:0]
    return shared
