"""Metrics of a run's binary classifiers: thresholds, baselines, histograms (section 4.3, figures 2b, 2c, 3, 7 and 8).

Shape suffixes: n images of a split, c classes of one pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from codedtool.analysis.binary import BinaryMetrics, best_f1_thresholds, measure, sample_negatives
from codedtool.analysis.classifiers import BinaryClassifiers
from codedtool.analysis.result import Table, percent
from codedtool.budget import Progress, silent
from codedtool.data import ImageData, Split
from codedtool.errors import InputError
from codedtool.models.pruning import path_schemes
from codedtool.training.subject import Subject

# From this many classes on, the paper (footnotes 4 and 13) takes 9 negatives for each positive.
_MANY_CLASSES = 100
_NEGATIVES_PER_POSITIVE = 9

# Limit of the memory for the scores of one pass over the images (4 bytes for each image, class and scorer). If the
# classes need more, they take several passes.
_SCORE_BYTES = 1 << 28

# The sources of a class's scores: the binary classifier or the whole network's logit, of the coded or the plain run.
CODED, FULL, PLAIN, PLAIN_FULL = "coded BC", "coded network's logit", "plain BC", "plain network's logit"

Scorer = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class ClassifierMetrics:
    """Metrics of one class's classifier from one source.

    Attributes:
        class_name: name of the class.
        class_index: number of the class, 0..K-1.
        source: source of the scores: `CODED`, `FULL`, `PLAIN` or `PLAIN_FULL`.
        threshold: the threshold (a logit) with the highest F1 on the training images.
        train_f1: F1 on the training images at this threshold, 0..1.
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
        negatives: density in every bin, over the images of other classes.
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
        skipped: the parts that were left out, each with the reason.
    """

    classifiers: tuple[ClassifierMetrics, ...]
    histograms: tuple[ScoreHistogram, ...]
    ood: str | None
    negatives_per_positive: int | None
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
    progress: Progress = silent,
) -> ClassifiersResult:
    """Measure the binary classifiers of some classes, and their baselines (section 4.3).

    Thresholds come from all training images, not augmented. Metrics are measured on the validation images and against
    out-of-distribution negatives. From 100 classes on, 9 negatives are drawn for each positive (footnotes 4 and 13).

    The memory for scores is bounded for any number of classes: classes are taken in groups. Within a group, the part of
    the network that all classes share runs once per batch (`BinaryClassifiers`).

    Args:
        subject: a coded run.
        class_indices: numbers of the classes, 0..K-1.
        plain: a plain run with the same classes. The same subNNs are extracted from it, as a baseline.
        ood: a data set of other classes. Its validation images are the out-of-distribution negatives.
        seed: seed of the drawn negatives.
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
        _check_plain(subject, plain)
    if ood is None:
        skipped.append("out-of-distribution negatives: no data set `ood` was given")
    num_classes = len(subject.classes)
    per_positive = _NEGATIVES_PER_POSITIVE if num_classes >= _MANY_CLASSES else None
    splits: dict[str, Split] = {"train": subject.data.train, "val": subject.data.val}
    if ood is not None:
        splits["ood"] = ood.val
    largest = max(len(split) for split in splits.values())
    group = max(1, _SCORE_BYTES // (4 * 2 * largest))
    found: list[ClassifierMetrics] = []
    histograms: list[ScoreHistogram] = []
    for start in range(0, len(class_indices), group):
        classes = tuple(class_indices[start : start + group])
        for one, sources in _scorers(subject, plain, classes):
            tables = {
                name: _score(one, split, sources, progress, f"scoring {name} images, {len(classes)} classes")
                for name, split in splits.items()
            }
            for source in sources:
                scores = {name: (table[source], targets) for name, (table, targets) in tables.items()}
                found += _measure_group(subject, source, classes, scores, per_positive, seed)
                if source == CODED:
                    histograms += [
                        _histogram(subject.classes[k], k, column, scores)
                        for column, k in enumerate(classes[: max(0, 10 - len(histograms))])
                    ]
    order = {source: number for number, source in enumerate((CODED, FULL, PLAIN, PLAIN_FULL))}
    found.sort(key=lambda one: (order[one.source], class_indices.index(one.class_index)))
    return ClassifiersResult(
        tuple(found), tuple(histograms), None if ood is None else ood.name, per_positive, tuple(skipped)
    )


def _check_plain(subject: Subject, plain: Subject) -> None:
    if plain.network.block_names:
        raise InputError(f"`plain` {plain.run.path} was trained with schemes: name a run of the plain control")
    if plain.classes != subject.classes:
        raise InputError(f"`plain` {plain.run.path} has other classes than {subject.run.path}")
    # Refuse schemes that do not fit before the long work.
    path_schemes(plain.network, subject.run.schemes)


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


def _measure_group(
    subject: Subject,
    source: str,
    classes: tuple[int, ...],
    scores: dict[str, tuple[torch.Tensor, torch.Tensor]],
    per_positive: int | None,
    seed: int,
) -> list[ClassifierMetrics]:
    train_nc, train_n = scores["train"]
    thresholds_c, f1_c = best_f1_thresholds(train_nc, train_n[:, None] == torch.tensor(classes))
    val_nc, val_n = scores["val"]
    measured = []
    for column, class_index in enumerate(classes):
        threshold = float(thresholds_c[column])
        val_scores, is_positive = val_nc[:, column].numpy(), (val_n == class_index).numpy()
        # Every class has its own generator, so its draws do not depend on the group that it is in.
        rng = np.random.default_rng((seed, class_index))
        positives = np.flatnonzero(is_positive)
        negatives = sample_negatives(len(positives), np.flatnonzero(~is_positive), per_positive=per_positive, rng=rng)
        ood = None
        if "ood" in scores:
            ood_scores = scores["ood"][0][:, column].numpy()
            chosen = sample_negatives(len(positives), np.arange(len(ood_scores)), per_positive=per_positive, rng=rng)
            ood = _against(val_scores[positives], ood_scores[chosen], threshold)
        measured.append(
            ClassifierMetrics(
                class_name=subject.classes[class_index],
                class_index=class_index,
                source=source,
                threshold=threshold,
                train_f1=float(f1_c[column]),
                val=_against(val_scores[positives], val_scores[negatives], threshold),
                ood=ood,
            )
        )
    return measured


def _against(positives: NDArray[np.float32], negatives: NDArray[np.float32], threshold: float) -> BinaryMetrics:
    is_positive = np.arange(len(positives) + len(negatives)) < len(positives)
    return measure(np.concatenate([positives, negatives]), is_positive, threshold)


def _histogram(
    class_name: str, class_index: int, column: int, scores: dict[str, tuple[torch.Tensor, torch.Tensor]], bins: int = 40
) -> ScoreHistogram:
    """The histograms of one class's scores (figure 3), with 40 bins as in the authors' CIFAR code."""
    val_nc, val_n = scores["val"]
    is_positive = val_n == class_index
    parts = {"positives": val_nc[is_positive, column], "negatives": val_nc[~is_positive, column]}
    if "ood" in scores:
        parts["ood"] = scores["ood"][0][:, column]
    everything = torch.cat(list(parts.values())).numpy()
    edges = np.histogram_bin_edges(everything, bins)
    densities = {
        name: tuple(np.histogram(part.numpy(), edges, density=True)[0].tolist()) for name, part in parts.items()
    }
    return ScoreHistogram(
        class_name, tuple(edges.tolist()), densities["positives"], densities["negatives"], densities.get("ood")
    )
