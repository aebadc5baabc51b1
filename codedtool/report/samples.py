"""The page's part "samples": a few validation images, and the subNNs that fired for each of them."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from codedtool.analysis.decoding import load_evidence, measure_evidence
from codedtool.budget import Progress
from codedtool.data.augmentation import centre_crop
from codedtool.data.folder import read_image
from codedtool.deploy.prediction import Prediction, predict_numbers
from codedtool.training.subject import Outputs, Subject

# Number of images on the page; a third of them are wrong answers if there are as many.
NUM_SAMPLES = 12

# Larger pictures are shrunk to this side, in pixels.
_MOST_PIXELS = 96


def sample_details(subject: Subject, outputs: Outputs, *, seed: int, progress: Progress) -> dict[str, Any]:
    """The details of the part "samples": the chosen images with their pictures and predictions.

    Args:
        subject: a coded or plain run.
        outputs: the network's outputs for the validation images, from `collect_outputs`.
        seed: seed of the choice.
        progress: where to report the progress.
    """
    evidence = subject.evidence() or load_evidence(subject)
    if evidence is None and subject.network.block_names:
        evidence = measure_evidence(subject, progress)
    rows = choose_samples(outputs.targets.numpy(), outputs.predictions.numpy(), seed=seed)
    assert outputs.numbers is not None
    numbers = outputs.numbers[torch.from_numpy(rows)].numpy()
    found = predict_numbers(subject, numbers, evidence=evidence, progress=progress)
    number_of = {name: k for k, name in enumerate(subject.classes)}
    return {
        "samples": [
            _sample(one, number_of) | {"name": _name(subject, number), "picture": _picture(subject, number)}
            for number, one in zip(numbers.tolist(), found, strict=True)
        ]
    }


def choose_samples(
    targets_n: NDArray[np.int64], predictions_n: NDArray[np.int64], *, seed: int, count: int = NUM_SAMPLES
) -> NDArray[np.int64]:
    """Choose images to show: a third are wrong answers if there are as many, and classes repeat as little as possible.

    Args:
        targets_n: (n,) true classes.
        predictions_n: (n,) predicted classes.
        seed: seed of the choice.
        count: number of images.

    Returns:
        The chosen rows in ascending order; all rows if there are at most ``count``.
    """
    order_n = np.random.default_rng(seed).permutation(len(targets_n))
    is_wrong_n = targets_n[order_n] != predictions_n[order_n]
    wrong, right = (_class_by_class(order_n[mask], targets_n) for mask in (is_wrong_n, ~is_wrong_n))
    num_wrong = max(min(len(wrong), count // 3), count - len(right))
    return np.sort(np.concatenate([wrong[:num_wrong], right[: count - num_wrong]]))


def _class_by_class(rows: NDArray[np.int64], targets_n: NDArray[np.int64]) -> NDArray[np.int64]:
    """The rows in an order that has the first one of every class, then the second one of every class, and so on."""
    seen: dict[int, int] = {}
    turns = []
    for target in targets_n[rows].tolist():
        seen[target] = seen.get(target, 0) + 1
        turns.append(seen[target])
    return rows[np.argsort(turns, kind="stable")] if len(rows) else rows


def _sample(prediction: Prediction, number_of: dict[str, int]) -> dict[str, Any]:
    """A prediction in JSON's types; classes by their numbers, energies with two decimals."""
    assert prediction.actual is not None
    return {
        "actual": number_of[prediction.actual],
        "predicted": number_of[prediction.class_name],
        "probability": prediction.probability,
        "agreeing": prediction.agreeing,
        "confidence": prediction.confidence,
        "confidence_images": prediction.confidence_images,
        "unlike": list(prediction.unlike or ()),
        "alternatives": [[number_of[name], probability] for name, probability in prediction.alternatives],
        "path": [
            {
                "decoder": number_of[part.decoder],
                "fired": part.fired,
                "energies": [round(energy, 2) for energy in part.energies],
            }
            for part in prediction.path
        ],
    }


def _name(subject: Subject, number: int) -> str:
    """What the page calls a validation image: the name of its file, or its number."""
    images = subject.data.val.images
    return Path(images[number]).name if isinstance(images, tuple) else f"validation image {number}"


def _picture(subject: Subject, number: int) -> dict[str, Any]:
    """A validation image as the network sees it, shrunk if it is large: a data URI, and its side in pixels."""
    images, size = subject.data.val.images, subject.recipe.eval_size
    image = read_image(images[number]) if isinstance(images, tuple) else Image.fromarray(images[number])
    seen = centre_crop(image, size, part=subject.run.crop_part)
    if size > _MOST_PIXELS:
        seen = seen.resize((_MOST_PIXELS, _MOST_PIXELS), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    seen.save(buffer, "png", optimize=True)
    uri = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return {"uri": uri, "side": min(size, _MOST_PIXELS)}
