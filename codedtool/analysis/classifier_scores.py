"""Scores of a run's binary classifiers and their baselines, class by class, with the thresholds (section 4.3).

Shape suffixes: n images of a split, c classes of one pass, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from codedtool.analysis.binary import best_f1_thresholds, sample_negatives, share_negatives
from codedtool.analysis.classifier_pairs import Pairs, score_pairs
from codedtool.analysis.classifiers import BinaryClassifiers
from codedtool.budget import Progress
from codedtool.data import Split
from codedtool.errors import InputError
from codedtool.training.subject import Subject

# The sources of a class's scores: the binary classifier or the whole network's logit, of the coded or the plain run.
CODED, FULL, PLAIN, PLAIN_FULL = "coded BC", "coded network's logit", "plain BC", "plain network's logit"

# Limit of the memory for the scores of one pass over the images (4 bytes for each image, class and scorer). If the
# classes need more, they take several passes.
_SCORE_BYTES = 1 << 28

Scorer = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, eq=False)
class ClassScores:
    """A class's threshold from one source, and its scores on the other splits (float32).

    Attributes:
        class_index: number of the class, 0..K-1.
        source: `CODED`, `FULL`, `PLAIN` or `PLAIN_FULL`.
        threshold: the threshold with the highest F1 on the training images, or on those drawn for the class.
        train_f1: F1 on these images at this threshold, 0..1.
        positives, negatives: scores of the validation images that the class is measured on.
        ood: scores of the out-of-distribution negatives that it is measured on; None without them.
        shown: scores for the histograms: "positives", "negatives" and, with out-of-distribution negatives, "ood".
    """

    class_index: int
    source: str
    threshold: float
    train_f1: float
    positives: NDArray[np.float32]
    negatives: NDArray[np.float32]
    ood: NDArray[np.float32] | None
    shown: Mapping[str, NDArray[np.float32]]


def scores_of_all(
    subject: Subject,
    plain: Subject | None,
    class_indices: Sequence[int],
    splits: Mapping[str, Split],
    per_positive: int | None,
    seed: int,
    progress: Progress,
) -> Iterator[ClassScores]:
    """Score every image for every class; the metrics' negatives are drawn among them.

    The memory for scores is bounded for any number of classes: classes are taken in groups. Within a group, the part of
    the network that all classes share runs once per batch (`BinaryClassifiers`).

    Args:
        subject, plain, class_indices, seed, progress: as for `evaluate_classifiers`.
        splits: the images by name: "train", "val" and perhaps "ood".
        per_positive: negatives for each positive in the metrics; None: all.

    Yields:
        The scores of every source and class.

    Raises:
        InputError: a class has no training image, or no image of a split can be read.
    """
    largest = max(len(split) for split in splits.values())
    group = max(1, _SCORE_BYTES // (4 * 2 * largest))
    for start in range(0, len(class_indices), group):
        classes = tuple(class_indices[start : start + group])
        for one, sources in _scorers(subject, plain, classes):
            tables = {
                name: _score(one, split, sources, progress, f"scoring {name} images, {len(classes)} classes")
                for name, split in splits.items()
            }
            for source in sources:
                scores = {name: (table[source], targets) for name, (table, targets) in tables.items()}
                yield from _columns(source, classes, scores, per_positive, seed)


def scores_of_drawn(
    subject: Subject,
    plain: Subject | None,
    class_indices: Sequence[int],
    splits: Mapping[str, Split],
    per_positive: int,
    seed: int,
    progress: Progress,
) -> Iterator[ClassScores]:
    """Score every image for its own class and for the classes that it was drawn for as a negative.

    Args:
        subject, plain, class_indices, splits, seed, progress: as for `scores_of_all`.
        per_positive: negatives for each positive, in the thresholds and in the metrics.

    Yields:
        The scores of every source and class.

    Raises:
        InputError: a class has no training image, or no image of a split can be read.
    """
    pairs = _drawn_pairs(subject, class_indices, splits, per_positive, seed)
    runs: list[tuple[Subject, BinaryClassifiers, tuple[str, str]]] = [
        (subject, BinaryClassifiers(subject.network, class_indices), (CODED, FULL))
    ]
    if plain is not None:
        likewise = BinaryClassifiers(plain.network, class_indices, schemes=subject.run.schemes)
        runs.append((plain, likewise, (PLAIN, PLAIN_FULL)))
    for one, together, sources in runs:
        tables = {
            name: score_pairs(
                one,
                together,
                split,
                pairs[name],
                # An analysis before this one may have had the whole network's outputs for the validation images.
                known=subject.known_outputs() if one is subject and name == "val" else None,
                progress=progress,
                phase=f"scoring {name} images, {len(class_indices)} classes",
            )
            for name, split in splits.items()
        }
        for class_index in class_indices:
            for column, source in enumerate(sources):
                yield _class_scores(
                    class_index, source, {name: table.of(class_index, column) for name, table in tables.items()}, splits
                )


def _drawn_pairs(
    subject: Subject, class_indices: Sequence[int], splits: Mapping[str, Split], per_positive: int, seed: int
) -> dict[str, Pairs]:
    """The pairs of an image and a class that each split is scored for."""
    train, val = splits["train"].targets, splits["val"].targets
    shared = share_negatives(train, len(subject.classes), per_positive=per_positive, seed=seed)
    num_ood = len(splits["ood"]) if "ood" in splits else None
    wanted: dict[str, dict[int, NDArray[np.int64]]] = {name: {} for name in splits}
    for class_index in class_indices:
        positives = np.flatnonzero(train == class_index)
        if not len(positives):
            raise _no_positive(class_index)
        wanted["train"][class_index] = np.concatenate([positives, shared[class_index]])
        negatives, foreign = _draw(class_index, val == class_index, num_ood, per_positive, seed)
        wanted["val"][class_index] = np.concatenate([np.flatnonzero(val == class_index), negatives])
        if num_ood is not None:
            wanted["ood"][class_index] = foreign
    return {name: Pairs.of(images) for name, images in wanted.items()}


def _class_scores(
    class_index: int,
    source: str,
    scores: Mapping[str, tuple[NDArray[np.int64], NDArray[np.float32]]],
    splits: Mapping[str, Split],
) -> ClassScores:
    """The scores of one class; of every split, ``scores`` has the numbers of the class's images and their scores."""
    (train_numbers, train), (val_numbers, val) = scores["train"], scores["val"]
    train_n = splits["train"].targets[train_numbers] == class_index
    val_n = splits["val"].targets[val_numbers] == class_index
    if not train_n.any():
        raise _no_positive(class_index)
    thresholds, f1 = best_f1_thresholds(torch.from_numpy(train)[:, None], torch.from_numpy(train_n)[:, None])
    shown = {"positives": val[val_n], "negatives": val[~val_n]}
    shown |= {"ood": scores["ood"][1]} if "ood" in scores else {}
    return ClassScores(
        class_index,
        source,
        float(thresholds[0]),
        float(f1[0]),
        shown["positives"],
        shown["negatives"],
        shown.get("ood"),
        shown,
    )


def _no_positive(class_index: int) -> InputError:
    return InputError(f"class {class_index} has no training image to choose a threshold with")


def _columns(
    source: str,
    classes: tuple[int, ...],
    scores: Mapping[str, tuple[torch.Tensor, torch.Tensor]],
    per_positive: int | None,
    seed: int,
) -> Iterator[ClassScores]:
    """The classes of a table of scores; a split has its (n, c) scores and its (n,) targets."""
    train_nc, train_n = scores["train"]
    for class_index in classes:
        if not bool((train_n == class_index).any()):
            raise _no_positive(class_index)
    thresholds_c, f1_c = best_f1_thresholds(train_nc, train_n[:, None] == torch.tensor(classes))
    val_nc, val_n = scores["val"]
    for column, class_index in enumerate(classes):
        val_scores, is_positive = val_nc[:, column].numpy(), (val_n == class_index).numpy()
        ood_scores = scores["ood"][0][:, column].numpy() if "ood" in scores else None
        num_ood = None if ood_scores is None else len(ood_scores)
        negatives, chosen = _draw(class_index, is_positive, num_ood, per_positive, seed)
        shown = {"positives": val_scores[is_positive], "negatives": val_scores[~is_positive]}
        yield ClassScores(
            class_index,
            source,
            float(thresholds_c[column]),
            float(f1_c[column]),
            val_scores[is_positive],
            val_scores[negatives],
            None if ood_scores is None else ood_scores[chosen],
            shown | ({} if ood_scores is None else {"ood": ood_scores}),
        )


def _draw(
    class_index: int, is_positive_n: NDArray[np.bool_], num_ood: int | None, per_positive: int | None, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The numbers of the validation images, and of the out-of-distribution images, that are a class's negatives."""
    # Every class has its own generator, so its draws do not depend on the group that it is in.
    rng = np.random.default_rng((seed, class_index))
    positives = int(is_positive_n.sum())
    negatives = sample_negatives(positives, np.flatnonzero(~is_positive_n), per_positive=per_positive, rng=rng)
    return negatives, sample_negatives(positives, np.arange(num_ood or 0), per_positive=per_positive, rng=rng)


def _scorers(
    subject: Subject, plain: Subject | None, classes: tuple[int, ...]
) -> Iterable[tuple[Subject, dict[str, Scorer]]]:
    """For each run: the functions that give its classes' scores for a batch, by source."""
    columns = list(classes)

    def alone(images: torch.Tensor) -> torch.Tensor:
        # One class, one cut: the same smaller network is timed, and written to a file.
        return subject.binary_classifier(classes[0])(images).logits.float()

    scores: Scorer = alone if len(classes) == 1 else BinaryClassifiers(subject.network, classes).scores
    yield subject, {CODED: scores, FULL: lambda images: subject.network(images).logits[:, columns].float()}
    if plain is not None:
        # The paper extracts classifiers from the plain network "likewise" (section 4.3): by the coded run's schemes.
        likewise = BinaryClassifiers(plain.network, classes, schemes=subject.run.schemes)
        yield (
            plain,
            {PLAIN: likewise.scores, PLAIN_FULL: lambda images: plain.network(images).logits[:, columns].float()},
        )


@torch.no_grad()
def _score(
    subject: Subject, split: Split, sources: dict[str, Scorer], progress: Progress, phase: str
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """All scores, (n, c) float32 for every source, and the (n,) targets of a split, on the CPU."""
    found: dict[str, list[torch.Tensor]] = {source: [] for source in sources}
    targets = []
    for images, targets_B in subject.batches(split, progress, phase):
        with subject.runtime.autocast():
            for source, scorer in sources.items():
                found[source].append(scorer(images).float().cpu())
        targets.append(targets_B)
    if not targets:
        raise InputError(f"{subject.data.name}: no image of a split can be read")
    return {source: torch.cat(parts) for source, parts in found.items()}, torch.cat(targets)
