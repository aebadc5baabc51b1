"""Metrics of a run's binary classifiers: thresholds, baselines, histograms (section 4.3, figures 2b, 2c, 3, 7 and 8).

Shape suffixes: n images of a split, c classes of one pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codedtool.analysis.binary import BinaryMetrics, measure
from codedtool.analysis.classifier_scores import (
    CODED,
    FULL,
    PLAIN,
    PLAIN_FULL,
    ClassScores,
    scores_of_all,
    scores_of_drawn,
)
from codedtool.analysis.result import Table, percent
from codedtool.budget import Progress, silent
from codedtool.data import ImageData, Split
from codedtool.errors import InputError
from codedtool.models.pruning import path_schemes
from codedtool.training.subject import Subject

# From this many classes on, the paper (footnotes 4 and 13) takes 9 negatives for each positive.
MANY_CLASSES = 100
_NEGATIVES_PER_POSITIVE = 9

# Histograms are made of the first so many classes.
_HISTOGRAMS = 10


@dataclass(frozen=True)
class ClassifierMetrics:
    """Metrics of one class's classifier from one source.

    Attributes:
        class_name: name of the class.
        class_index: number of the class, 0..K-1.
        source: source of the scores: `CODED`, `FULL`, `PLAIN` or `PLAIN_FULL`.
        threshold: the threshold (a logit) with the highest F1 on training images: the class's, and its negatives
            (`ClassifiersResult.threshold_negatives_per_positive`).
        train_f1: F1 on these training images at this threshold, 0..1.
        val: metrics on the validation images.
        ood: metrics with the images of another data set as negatives (the positives are validation images); None
            without such a data set.
    """

    class_name: str
    class_index: int
    source: str
    threshold: float
    train_f1: float
    val: BinaryMetrics
    ood: BinaryMetrics | None

    def row(self) -> dict[str, Any]:
        """The metrics as a flat row, for a CSV file."""
        values: dict[str, Any] = {
            "class": self.class_name,
            "source": self.source,
            "threshold": self.threshold,
            "train_f1": self.train_f1,
        }
        for name, metrics in (("val", self.val), ("ood", self.ood)):
            if metrics is not None:
                values |= {f"{name}_{key}": value for key, value in metrics.to_json().items()}
        return values


@dataclass(frozen=True)
class ScoreHistogram:
    """Histograms of one class's scores on the validation images (figures 3 and 7).

    Attributes:
        class_name: name of the class.
        edges: edges of the bins, one more than there are bins; the same for all histograms of the class.
        positives: density in every bin, over the images of the class.
        negatives: density in every bin, over images of other classes: all of them, or those that the class is
            measured on.
        ood: density in every bin, over the out-of-distribution images; None without them.
    """

    class_name: str
    edges: tuple[float, ...]
    positives: tuple[float, ...]
    negatives: tuple[float, ...]
    ood: tuple[float, ...] | None


@dataclass(frozen=True)
class ClassifiersResult:
    """The result of `evaluate_classifiers`.

    Attributes:
        classifiers: metrics of every source and class.
        histograms: scores of the coded run's binary classifiers, for the first ten classes at most.
        ood: name of the data set of out-of-distribution negatives, or None.
        negatives_per_positive: number of negatives drawn for each positive (9 from 100 classes on); None: all of them.
        threshold_negatives_per_positive: the same for the training images that the thresholds are chosen on.
        skipped: the parts that were left out, each with the reason.
    """

    classifiers: tuple[ClassifierMetrics, ...]
    histograms: tuple[ScoreHistogram, ...]
    ood: str | None
    negatives_per_positive: int | None
    threshold_negatives_per_positive: int | None
    skipped: tuple[str, ...] = field(default=())

    def table(self) -> Table:
        """The mean metrics of every source, on the validation images and against out-of-distribution negatives."""
        sets = {"val": ""} | ({"ood": f", negatives of {self.ood}"} if self.ood else {})
        measures = {"precision": "precision", "recall": "recall", "f1": "F1", "average_precision": "average precision"}
        return Table(
            "Binary classifiers (BC), %" + (", means over classes" if len(self.of(self.sources[0])) > 1 else ""),
            ("scores", *(f"{title}{negatives}" for negatives in sets.values() for title in measures.values())),
            tuple(
                (row["source"], *(percent(row[f"{name}_{measure}"]) for name in sets for measure in measures))
                for row in self.means()
            ),
        )

    def drawn_line(self) -> tuple[str, ...]:
        """One sentence that says which negatives the thresholds and metrics have; none if they have all."""
        if self.negatives_per_positive is None:
            return ()
        trained = self.threshold_negatives_per_positive
        thresholds = "all training images" if trained is None else f"{trained} drawn negatives per positive"
        return (
            f"thresholds: from {thresholds}; metrics: on {self.negatives_per_positive} drawn negatives per positive",
        )

    @property
    def sources(self) -> tuple[str, ...]:
        """The measured sources, in the order of the table."""
        return tuple(dict.fromkeys(one.source for one in self.classifiers))

    def of(self, source: str) -> tuple[ClassifierMetrics, ...]:
        """The metrics of one source, class by class."""
        return tuple(one for one in self.classifiers if one.source == source)

    def means(self) -> list[dict[str, Any]]:
        """One row per source: the mean precision, recall, F1 and average precision over its classes."""
        rows = []
        for source in self.sources:
            row: dict[str, Any] = {"source": source, "classes": len(self.of(source))}
            for name in ("val", "ood"):
                found = [metrics for one in self.of(source) if (metrics := getattr(one, name)) is not None]
                if found:
                    for key in ("precision", "recall", "f1", "average_precision"):
                        row[f"{name}_{key}"] = float(np.mean([getattr(metrics, key) for metrics in found]))
            rows.append(row)
        return rows

    def rows(self) -> list[dict[str, Any]]:
        """One flat row per source and class, for a CSV file."""
        return [one.row() for one in self.classifiers]

    def score_rows(self) -> list[dict[str, Any]]:
        """One row per class and bin of the histograms, for a CSV file."""
        return [
            {
                "class": one.class_name,
                "from": one.edges[number],
                "to": one.edges[number + 1],
                "positives": one.positives[number],
                "negatives": one.negatives[number],
            }
            | ({} if one.ood is None else {"ood": one.ood[number]})
            for one in self.histograms
            for number in range(len(one.positives))
        ]

    def to_json(self) -> dict[str, Any]:
        """The result in JSON's types."""
        return {
            "ood": self.ood,
            "negatives_per_positive": self.negatives_per_positive,
            "threshold_negatives_per_positive": self.threshold_negatives_per_positive,
            "means": self.means(),
            "classifiers": self.rows(),
            "skipped": list(self.skipped),
        }


def evaluate_classifiers(
    subject: Subject,
    class_indices: Sequence[int],
    *,
    plain: Subject | None = None,
    ood: ImageData | None = None,
    seed: int = 0,
    all_negatives: bool = False,
    progress: Progress = silent,
) -> ClassifiersResult:
    """Measure the binary classifiers of some classes, and their baselines (section 4.3).

    Thresholds come from the training images, not augmented. Metrics are measured on the validation images and against
    out-of-distribution negatives.

    Below 100 classes, every classifier sees every image. From 100 classes on, 9 negatives are drawn for each positive
    (footnotes 4 and 13): for the metrics class by class (`sample_negatives`), for the thresholds shared out so that all
    training images serve about equally often (`share_negatives`). Only these pairs of image and class are scored, so
    the work grows with the number of images alone. The baselines have the same negatives.

    Args:
        subject: a coded run.
        class_indices: numbers of the classes, 0..K-1.
        plain: a plain run with the same classes. The same subNNs are extracted from it, as a baseline.
        ood: a data set of other classes. Its validation images are the out-of-distribution negatives.
        seed: seed of the drawn negatives.
        all_negatives: whether thresholds come from all training images with 100 classes or more too: K classifiers
            for every image.
        progress: where to report the progress.

    Returns:
        The metrics of every source and class: the binary classifier and the whole network's logit, of both runs.

    Raises:
        NotApplicableError: the run has no coded block.
        InputError: ``plain`` has other classes, another N, or coded blocks; or a class has no training or validation
            image.
    """
    subject.require_coded("a binary classifier")
    skipped = []
    if plain is None:
        skipped.append("baseline of the plain network: no run `plain` was given to compare with")
    else:
        subject.check_control(plain)
        # Refuse schemes that do not fit before the long work.
        path_schemes(plain.network, subject.run.schemes)
    if ood is None:
        skipped.append("out-of-distribution negatives: no data set `ood` was given")
    per_positive = _NEGATIVES_PER_POSITIVE if len(subject.classes) >= MANY_CLASSES else None
    splits: dict[str, Split] = {"train": subject.data.train, "val": subject.data.val}
    if ood is not None:
        splits["ood"] = ood.val
    if per_positive is None or all_negatives:
        scored = scores_of_all(subject, plain, class_indices, splits, per_positive, seed, progress)
    else:
        scored = scores_of_drawn(subject, plain, class_indices, splits, per_positive, seed, progress)
    found: list[ClassifierMetrics] = []
    histograms: list[ScoreHistogram] = []
    for one in scored:
        found.append(_measured(subject, one))
        if one.source == CODED and len(histograms) < _HISTOGRAMS:
            histograms.append(_histogram(subject, one))
    order = {source: number for number, source in enumerate((CODED, FULL, PLAIN, PLAIN_FULL))}
    found.sort(key=lambda one: (order[one.source], class_indices.index(one.class_index)))
    return ClassifiersResult(
        tuple(found),
        tuple(histograms),
        None if ood is None else ood.name,
        per_positive,
        None if all_negatives else per_positive,
        tuple(skipped),
    )


def _measured(subject: Subject, one: ClassScores) -> ClassifierMetrics:
    """The metrics of a class's scores."""
    if not len(one.positives):
        name = subject.classes[one.class_index]
        raise InputError(f"class {name!r} has no validation image to measure its binary classifier on")
    return ClassifierMetrics(
        class_name=subject.classes[one.class_index],
        class_index=one.class_index,
        source=one.source,
        threshold=one.threshold,
        train_f1=one.train_f1,
        val=_against(one.positives, one.negatives, one.threshold),
        ood=None if one.ood is None else _against(one.positives, one.ood, one.threshold),
    )


def _against(positives: NDArray[np.float32], negatives: NDArray[np.float32], threshold: float) -> BinaryMetrics:
    is_positive = np.arange(len(positives) + len(negatives)) < len(positives)
    return measure(np.concatenate([positives, negatives]), is_positive, threshold)


def _histogram(subject: Subject, one: ClassScores, bins: int = 40) -> ScoreHistogram:
    """The histograms of one class's scores (figure 3), with 40 bins as in the authors' CIFAR code."""
    edges = np.histogram_bin_edges(np.concatenate(list(one.shown.values())), bins)
    densities = {name: tuple(np.histogram(part, edges, density=True)[0].tolist()) for name, part in one.shown.items()}
    return ScoreHistogram(
        subject.classes[one.class_index],
        tuple(edges.tolist()),
        densities["positives"],
        densities["negatives"],
        densities.get("ood"),
    )
