"""Predictions for image files: class, confidence, early decoders and path (sections 4.1-4.4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from codedtool.budget import Progress, silent
from codedtool.data import normalize
from codedtool.data.augmentation import centre_crop
from codedtool.data.folder import read_image
from codedtool.deploy.classifier_file import BinaryClassifier
from codedtool.errors import InputError
from codedtool.models.network import CodedNetwork, Output
from codedtool.training.evidence import Evidence, score_names, unlike_scores
from codedtool.training.subject import Subject

# Number of images in a batch.
_BATCH = 64


@dataclass(frozen=True)
class BlockPath:
    """The path of an image through one coded block.

    Attributes:
        block: the block's name, such as s2.1.
        decoder: the class that the block's early decoder predicts.
        codeword: the codeword of the predicted class, as 0s and 1s.
        fired: one digit per subNN: 1 where its energy r E(tbar_n) is nearer to 1 than to 0 (the targets of eq. 5).
        energies: r E(tbar_n) of every subNN.
    """

    block: str
    decoder: str
    codeword: str
    fired: str
    energies: tuple[float, ...]

    @property
    def own(self) -> tuple[int, int]:
        """How many of the class's own subNNs (1s of the codeword) fired, and how many there are."""
        return self._fired_of("1")

    @property
    def others(self) -> tuple[int, int]:
        """How many of the other subNNs (0s of the codeword) fired, and how many there are."""
        return self._fired_of("0")

    def _fired_of(self, digit: str) -> tuple[int, int]:
        fired = [mark == "1" for bit, mark in zip(self.codeword, self.fired, strict=True) if bit == digit]
        return sum(fired), len(fired)


@dataclass(frozen=True)
class Score:
    """A score that tells images unlike the training images, for one image.

    Attributes:
        value: the image's score; high for unlike images (`unlike_scores`).
        threshold: the image is unlike the training images if the value is above it (`Evidence.thresholds`).
    """

    value: float
    threshold: float


@dataclass(frozen=True)
class Prediction:
    """The network's prediction for one image.

    Attributes:
        image: path of the file, or the image's place in the data set.
        class_name: name of the class with the highest logit.
        probability: softmax probability of this class, 0..1.
        agreeing: number of early decoders that predict the same class; None for a plain network.
        confidence: estimated probability (0..1) that the class is right, from the number of agreeing decoders
            (`Evidence.confidence`); None for a plain network, and without evidence.
        confidence_images: number of validation images that the confidence rests on; None without confidence.
        unlike: names of the scores that say that the image is unlike the training images; None if their thresholds are
            not known.
        scores: every score by its name (`score_names`); empty if the thresholds are not known.
        alternatives: the next two classes and their softmax probabilities.
        path: path through every coded block; empty for a plain network.
        actual: name of the image's true class, if it is known.
    """

    image: str
    class_name: str
    probability: float
    agreeing: int | None
    confidence: float | None
    confidence_images: int | None
    unlike: tuple[str, ...] | None
    alternatives: tuple[tuple[str, float], ...]
    path: tuple[BlockPath, ...]
    scores: dict[str, Score]
    actual: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The fields in JSON's types."""
        return asdict(self)


@dataclass(frozen=True)
class BinaryPrediction:
    """The answer of a binary classifier for one image.

    Attributes:
        image: path of the file.
        class_name: name of the class that the classifier recognises.
        accepted: whether the image is of the class: its logit is at least the threshold.
        logit: the classifier's output.
        threshold: the lowest logit that means yes.
    """

    image: str
    class_name: str
    accepted: bool
    logit: float
    threshold: float

    def to_json(self) -> dict[str, Any]:
        """The fields in JSON's types."""
        return asdict(self)


def read_images(paths: Sequence[Path], size: int, *, crop_part: float) -> torch.Tensor:
    """Read image files as (n, 3, size, size) uint8 RGB, resized and centre-cropped as for evaluation.

    Args:
        paths: the image files.
        size: side of the resulting images, in pixels.
        crop_part: the run's or the classifier's `crop_part`.

    Raises:
        InputError: a file is missing or is not an image; the message names it.
    """
    arrays = []
    for path in paths:
        image = read_image(path, fix="give files of images")
        arrays.append(np.asarray(centre_crop(image, size, part=crop_part)))
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)


def predict(subject: Subject, paths: Sequence[Path], *, evidence: Evidence | None) -> list[Prediction]:
    """Predict the classes of image files, with confidences and paths (sections 4.1-4.4).

    Args:
        subject: a coded or plain run.
        paths: the image files.
        evidence: statistics of the run on its validation images, such as `Subject.evidence`; None: there are none, and
            the predictions have no confidence.

    Returns:
        One prediction for each file, in order.

    Raises:
        InputError: a file is missing or is not an image.
    """
    size, part = subject.recipe.eval_size, subject.run.crop_part
    found = []
    for start in range(0, len(paths), _BATCH):
        chosen = paths[start : start + _BATCH]
        images = normalize(subject.runtime.put(read_images(chosen, size, crop_part=part)), subject.run.normalization)
        found += _predict_batch(subject, images, [str(path) for path in chosen], evidence)
    return found


def predict_sample(
    subject: Subject, sample: int, *, evidence: Evidence | None, seed: int = 0, progress: Progress = silent
) -> list[Prediction]:
    """Predict images that are drawn from the validation images of the run's own data set.

    Args:
        subject: a coded or plain run.
        sample: number of images, at least 1; all images if there are fewer.
        evidence: as for `predict`.
        seed: seed of the draw.
        progress: where to report the progress.

    Returns:
        One prediction for each image, in the data set's order, with its true class.

    Raises:
        InputError: ``sample`` is below 1, the data set is missing, or an image cannot be read.
    """
    if sample < 1:
        raise InputError(f"`sample` must be at least 1, got {sample}")
    numbers = np.sort(np.random.default_rng(seed).permutation(len(subject.data.val))[:sample])
    return predict_numbers(subject, numbers, evidence=evidence, progress=progress)


def predict_numbers(
    subject: Subject, numbers: NDArray[np.int64], *, evidence: Evidence | None, progress: Progress = silent
) -> list[Prediction]:
    """Predict the validation images with the given numbers, in this order; each prediction has the true class.

    Args:
        subject: a coded or plain run.
        numbers: (n,) int64 numbers of validation images, from 0.
        evidence: as for `predict`.
        progress: where to report the progress.

    Raises:
        InputError: the data set is missing, or an image cannot be read.
    """
    chosen = subject.data.val.taking(numbers)
    if isinstance(chosen.images, tuple):
        found = predict(subject, [Path(file) for file in chosen.images], evidence=evidence)
    else:
        names = [f"{subject.data.name}, validation image {number}" for number in numbers]
        found = []
        for images, targets in subject.batches(chosen, progress, "predicting", batch_size=_BATCH):
            found += _predict_batch(subject, images, names[len(found) : len(found) + len(targets)], evidence)
    return [
        replace(one, actual=subject.classes[target]) for one, target in zip(found, chosen.targets.tolist(), strict=True)
    ]


def _predict_batch(
    subject: Subject, images_BCHW: torch.Tensor, names: Sequence[str], evidence: Evidence | None
) -> list[Prediction]:
    """Predict one batch of normalized images on the run's device."""
    network, classes, found = subject.network, subject.classes, []
    with torch.no_grad(), subject.runtime.autocast():
        output = network(images_BCHW)
    probabilities_BK = output.logits.float().softmax(1).cpu()
    decoded = [column.tolist() for column in network.decode(output.energies)]
    confidences = evidence.confidence() if evidence is not None else ()
    scores = _scores(network, output, evidence)
    for row, name in enumerate(names):
        order = probabilities_BK[row].argsort(descending=True).tolist()
        best = order[0]
        blocks = []
        for block, values_BN, answers in zip(network.coded_blocks, output.energies, decoded, strict=True):
            energies = (block.coded_sum.ratio * values_BN[row].float()).tolist()
            blocks.append(
                BlockPath(
                    block=block.name,
                    decoder=classes[answers[row]],
                    codeword="".join(map(str, block.scheme.table[best].tolist())),
                    fired="".join("1" if energy >= 0.5 else "0" for energy in energies),
                    energies=tuple(energies),
                )
            )
        agreeing = sum(answers[row] == best for answers in decoded) if decoded else None
        confidence = confidences[agreeing] if confidences and agreeing is not None else None
        found.append(
            Prediction(
                image=name,
                class_name=classes[best],
                probability=float(probabilities_BK[row, best]),
                agreeing=agreeing,
                confidence=None if confidence is None else confidence.value,
                confidence_images=None if confidence is None else confidence.num_images,
                unlike=None if scores is None else _unlike(scores[row]),
                alternatives=tuple((classes[k], float(probabilities_BK[row, k])) for k in order[1:3]),
                path=tuple(blocks),
                scores={} if scores is None else scores[row],
            )
        )
    return found


def _scores(network: CodedNetwork, output: Output, evidence: Evidence | None) -> list[dict[str, Score]] | None:
    """For each image, its scores by name; None if the thresholds are not known."""
    names = score_names(network)
    if evidence is None or set(evidence.thresholds) != set(names):
        return None
    scores_BS = unlike_scores(output.logits, output.energies, network).tolist()
    return [
        {name: Score(value, evidence.thresholds[name]) for name, value in zip(names, row, strict=True)}
        for row in scores_BS
    ]


def _unlike(scores: dict[str, Score]) -> tuple[str, ...]:
    """Names of the scores above their thresholds; one that is not a number counts."""
    return tuple(name for name, score in scores.items() if not score.value <= score.threshold)


def predict_binary(classifier: BinaryClassifier, paths: Sequence[Path]) -> list[BinaryPrediction]:
    """Tell which image files are of a binary classifier's class (section 4.3).

    Args:
        classifier: from `load_binary_classifier`.
        paths: the image files.

    Returns:
        One answer for each file, in order.

    Raises:
        InputError: a file is missing or is not an image.
    """
    found = []
    for start in range(0, len(paths), _BATCH):
        part = paths[start : start + _BATCH]
        pixels = read_images(part, classifier.image_size, crop_part=classifier.crop_part)
        images = normalize(pixels, classifier.normalization)
        with torch.no_grad():
            logits_B = classifier.network(images).logits[:, 0]
        accepted = classifier.accepts(logits_B).tolist()
        for path, logit, yes in zip(part, logits_B.tolist(), accepted, strict=True):
            found.append(BinaryPrediction(str(path), classifier.class_name, yes, logit, classifier.threshold))
    return found
