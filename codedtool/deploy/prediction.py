"""Predictions for image files: class, confidence, early decoders and path (sections 4.1-4.4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from codedtool.data import normalize
from codedtool.data.augmentation import EVAL_CROP_PART, centre_crop
from codedtool.data.folder import read_image
from codedtool.deploy.classifier_file import BinaryClassifier
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
    def matching(self) -> int:
        """Number of subNNs whose digit in ``fired`` equals that of the codeword."""
        return sum(a == b for a, b in zip(self.codeword, self.fired, strict=True))


@dataclass(frozen=True)
class Prediction:
    """The network's prediction for one image.

    Attributes:
        image: path of the file.
        class_name: name of the class with the highest logit.
        probability: softmax probability of this class, 0..1.
        agreeing: number of early decoders that predict the same class; None for a plain network.
        confidence: accuracy (0..1) of the validation images with as many agreeing decoders (table 3); None for a plain
            network.
        alternatives: the next two classes and their softmax probabilities.
        path: path through every coded block; empty for a plain network.
    """

    image: str
    class_name: str
    probability: float
    agreeing: int | None
    confidence: float | None
    alternatives: tuple[tuple[str, float], ...]
    path: tuple[BlockPath, ...]

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


def read_images(paths: Sequence[Path], size: int) -> torch.Tensor:
    """Read image files as (n, 3, size, size) uint8 RGB, resized and centre-cropped as for evaluation.

    Raises:
        InputError: a file is missing or is not an image; the message names it.
    """
    arrays = []
    for path in paths:
        image = read_image(path, fix="give files of images")
        arrays.append(np.asarray(centre_crop(image, size, part=EVAL_CROP_PART)))
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)


def predict(subject: Subject, paths: Sequence[Path], *, confidence: Callable[[int], float] | None) -> list[Prediction]:
    """Predict the classes of image files, with confidences and paths (sections 4.1-4.4).

    Args:
        subject: a coded or plain run.
        paths: the image files.
        confidence: function from the number of agreeing early decoders to a confidence, 0..1 (table 3), such as
            `DecodeResult.confidence`; None for a plain network.

    Returns:
        One prediction for each file, in order.

    Raises:
        InputError: a file is missing or is not an image.
    """
    network, classes, found = subject.network, subject.classes, []
    for start in range(0, len(paths), _BATCH):
        part = paths[start : start + _BATCH]
        images = subject.runtime.put(read_images(part, subject.recipe.eval_size))
        with torch.no_grad(), subject.runtime.autocast():
            output = network(normalize(images, subject.run.normalization))
        probabilities_BK = output.logits.float().softmax(1).cpu()
        decoded = [column.tolist() for column in network.decode(output.energies)]
        for row, path in enumerate(part):
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
            found.append(
                Prediction(
                    image=str(path),
                    class_name=classes[best],
                    probability=float(probabilities_BK[row, best]),
                    agreeing=agreeing,
                    confidence=None if confidence is None or agreeing is None else confidence(agreeing),
                    alternatives=tuple((classes[k], float(probabilities_BK[row, k])) for k in order[1:3]),
                    path=tuple(blocks),
                )
            )
    return found


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
        images = normalize(read_images(part, classifier.image_size), classifier.normalization)
        with torch.no_grad():
            logits_B = classifier.network(images).logits[:, 0]
        accepted = classifier.accepts(logits_B).tolist()
        for path, logit, yes in zip(part, logits_B.tolist(), accepted, strict=True):
            found.append(BinaryPrediction(str(path), classifier.class_name, yes, logit, classifier.threshold))
    return found
