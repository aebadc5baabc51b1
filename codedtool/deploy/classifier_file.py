"""The files of a binary classifier: its weights in safetensors, and a JSON file that describes them.

``NAME.safetensors`` holds the tensors of the smaller network. ``NAME.json`` holds everything else that is needed to
build and use it. Neither a pickle, nor the run's directory, nor the data set is needed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from codedtool import __version__
from codedtool.coding.scheme import CodingScheme
from codedtool.data import Normalization
from codedtool.data.augmentation import EVAL_CROP_PART
from codedtool.errors import InputError
from codedtool.files import MissingFileError, check_target, exists, read_bytes, read_json, write_together
from codedtool.models.network import CodedNetwork
from codedtool.models.presets import build_network
from codedtool.models.pruning import extract_binary_classifier
from codedtool.models.variant import Variant
from codedtool.training.run import checked_normalization, checked_part
from codedtool.training.subject import Subject
from codedtool.training.weights import from_safetensors, to_safetensors

_FORMAT = 1

# A larger side is no image's: it would only exhaust memory.
_LARGEST_SIDE = 4096

Kind = TypeVar("Kind")


@dataclass(frozen=True, eq=False)
class BinaryClassifier:
    """A binary classifier that was read from its files.

    Attributes:
        network: the smaller network, with one logit, in evaluation mode on the CPU.
        class_name: name of the class that it recognises.
        threshold: the lowest logit that means yes. It has the highest F1 on the training images.
        normalization: mean and standard deviation that images are normalized with.
        image_size: side of its images in pixels.
        crop_part: part of the shorter side that is kept of an image of another size: the run's.
        metrics: the metrics that were measured when it was written, by name.
        metadata: its origin as text: preset, schemes, run, checkpoint and version.
    """

    network: CodedNetwork
    class_name: str
    threshold: float
    normalization: Normalization
    image_size: int
    crop_part: float
    metrics: Mapping[str, Any]
    metadata: dict[str, str]

    def accepts(self, logits_B: torch.Tensor) -> torch.Tensor:
        """(B,) bool: whether each of (B,) logits means yes."""
        return logits_B >= self.threshold


def check_output(path: Path, *, force: bool) -> Path:
    """Check that a binary classifier may be written to ``path``, and return the path of its .json file.

    Raises:
        InputError: ``path`` does not end in .safetensors, or one of the two files exists and ``force`` is off.
    """
    if path.suffix != ".safetensors":
        raise InputError(f"{path}: a binary classifier is written to a .safetensors file; give a name with this ending")
    description = path.with_suffix(".json")
    for file in (path, description):
        check_target(file, force=force)
    return description


def save_binary_classifier(
    subject: Subject, class_index: int, path: Path, *, threshold: float, metrics: Mapping[str, Any], force: bool = False
) -> Path:
    """Extract the binary classifier of a class and write its two files (section 4.3).

    Args:
        subject: a coded run.
        class_index: number of the class, 0..K-1.
        path: the file of the weights (.safetensors). The description goes to the .json file beside it.
        threshold: the lowest logit that means yes.
        metrics: measured metrics to keep in the description, in JSON's types.
        force: whether existing files may be overwritten.

    Returns:
        ``path``.

    Raises:
        InputError: a file exists already or cannot be written.
    """
    description = check_output(path, force=force)
    network = subject.binary_classifier(class_index)
    words = {stage: scheme.table[class_index].tolist() for stage, scheme in subject.run.schemes.items()}
    content = to_safetensors(network.state_dict(), {"class": subject.classes[class_index]})
    document = {
        "format": _FORMAT,
        "class": subject.classes[class_index],
        "weights_sha256": hashlib.sha256(content).hexdigest(),
        "threshold": threshold,
        "image_size": subject.recipe.eval_size,
        "crop_part": subject.run.crop_part,
        "normalization": {"mean": list(subject.run.normalization.mean), "std": list(subject.run.normalization.std)},
        "preset": subject.recipe.preset,
        "variant": asdict(network.variant),
        "codewords": words,
        "metrics": dict(metrics),
        "provenance": subject.run.metadata()
        | {"run": subject.run.name, "checkpoint": subject.checkpoint, "codedtool": __version__},
    }
    text = json.dumps(document, indent=2, allow_nan=False) + "\n"
    write_together({path: content, description: text.encode()})
    return path


def load_binary_classifier(path: str | Path) -> BinaryClassifier:
    """Read a binary classifier from its two files (section 4.3).

    Args:
        path: one of the two files; the other one is expected beside it.

    Returns:
        The classifier, ready for `predict_binary`.

    Raises:
        InputError: a file is missing or damaged, is not a binary classifier's, or does not belong to the other file.
    """
    weights, description = Path(path).with_suffix(".safetensors"), Path(path).with_suffix(".json")
    try:
        document = read_json(description)
        content = read_bytes(weights)
        tensors, _ = from_safetensors(content)
    except MissingFileError:
        missing = weights if exists(description) else description
        raise InputError(
            f"{path}: {missing} does not exist; a binary classifier consists of NAME.safetensors and NAME.json "
            "in one folder, as codedtool bc writes them"
        ) from None
    except InputError as error:
        raise InputError(
            f"{path}: the binary classifier is damaged ({error}); write them again with codedtool bc"
        ) from None
    try:
        if document["format"] != _FORMAT:
            raise InputError(f"{description} has format {document['format']!r}, this codedtool reads format {_FORMAT}")
        # Weights of another class often have the same shapes, so loading them would not fail.
        if document["weights_sha256"] != hashlib.sha256(content).hexdigest():
            raise InputError(
                f"{weights} does not hold the weights that {description.name} describes (another SHA-256); restore "
                "the two files together, or write the classifier again with codedtool bc"
            )
        schemes = {stage: _lone_class(word) for stage, word in document["codewords"].items()}
        # Build the whole network only to cut the class's smaller network from it; all weights then come from the file.
        variant = Variant(**document.get("variant", {}))
        network = extract_binary_classifier(build_network(document["preset"], schemes, variant=variant), 0)
        network.load_state_dict(tensors)
        return BinaryClassifier(
            network=network.eval(),
            class_name=_checked("class", document["class"], str, bool),
            threshold=float(document["threshold"]),
            normalization=_checked(
                "normalization",
                checked_normalization(document["normalization"]),
                Normalization,
                lambda found: min(found.std) > 0,
            ),
            image_size=_checked("image_size", document["image_size"], int, lambda side: 0 < side <= _LARGEST_SIDE),
            # Files of earlier versions have none; those versions applied this one.
            crop_part=checked_part(document.get("crop_part", EVAL_CROP_PART)),
            metrics=dict(document["metrics"]),
            metadata={str(key): str(value) for key, value in document["provenance"].items()},
        )
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{description} and {weights} are not one binary classifier: {reason}") from None


def _checked(name: str, value: Any, kind: type[Kind], is_right: Callable[[Kind], bool]) -> Kind:
    """The value of a key; raises ValueError for one of another type or out of range."""
    if type(value) is not kind or not is_right(value):
        raise ValueError(f"{name} {value!r}")
    return value


def _lone_class(word: list[int]) -> CodingScheme:
    """A scheme whose first row is ``word``. A scheme needs two rows; the second one, a rotation, is never used."""
    return CodingScheme(np.stack([np.asarray(word), np.roll(word, 1)]))
