"""A binary classifier as a file of its own: weights in safetensors, and beside them a JSON that says what they are.

``NAME.safetensors`` holds the smaller network's tensors; ``NAME.json`` everything to build it again and use it:
no pickle, no run directory and no data set.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from codedtool import __version__
from codedtool.coding.scheme import CodingScheme
from codedtool.data import Normalization
from codedtool.errors import InputError
from codedtool.files import refuse_existing, write_atomically
from codedtool.models.network import CodedNetwork
from codedtool.models.presets import build_network
from codedtool.models.pruning import extract_binary_classifier
from codedtool.models.variant import Variant
from codedtool.training.subject import Subject

_FORMAT = 1


@dataclass(frozen=True, eq=False)
class BinaryClassifier:
    """A binary classifier that stands alone.

    Attributes:
        network: the smaller network, K = 1, in evaluation mode, on the CPU.
        class_name: what it recognises.
        threshold: a logit of at least this says yes; of highest F1 on the training images.
        normalization: of its images.
        image_size: side of its images in pixels.
        metrics: as they were measured, plain types.
        metadata: provenance: preset, schemes, run, checkpoint and version, all text.
    """

    network: CodedNetwork
    class_name: str
    threshold: float
    normalization: Normalization
    image_size: int
    metrics: Mapping[str, Any]
    metadata: dict[str, str]

    def accepts(self, logits_B: torch.Tensor) -> torch.Tensor:
        """(B,) bool: which images are of the class."""
        return logits_B >= self.threshold


def check_output(path: Path, *, force: bool) -> Path:
    """The .json beside ``path``, where a binary classifier may be written as the two.

    Raises:
        InputError: ``path`` is no .safetensors, or one of the two is there already.
    """
    if path.suffix != ".safetensors":
        raise InputError(f"--out {path}: a binary classifier's weights are a .safetensors file")
    description = path.with_suffix(".json")
    for file in (path, description):
        refuse_existing(file, force=force)
    return description


def save_binary_classifier(
    subject: Subject, class_index: int, path: Path, *, threshold: float, metrics: Mapping[str, Any], force: bool = False
) -> Path:
    """Extract a class's binary classifier and write it as ``path`` (.safetensors) and the .json beside it.

    Raises:
        InputError: a file is there already, or writing failed.
    """
    description = check_output(path, force=force)
    network = subject.binary_classifier(class_index)
    words = {stage: scheme.table[class_index].tolist() for stage, scheme in subject.run.schemes.items()}
    tensors = {key: value.cpu().contiguous() for key, value in network.state_dict().items()}
    content = save(tensors, metadata={"class": subject.classes[class_index]})
    document = {
        "format": _FORMAT,
        "class": subject.classes[class_index],
        "weights_sha256": hashlib.sha256(content).hexdigest(),
        "threshold": threshold,
        "image_size": subject.recipe.eval_size,
        "normalization": {"mean": list(subject.run.normalization.mean), "std": list(subject.run.normalization.std)},
        "preset": subject.recipe.preset,
        "variant": asdict(network.variant),
        "codewords": words,
        "metrics": dict(metrics),
        "provenance": subject.run.metadata()
        | {"run": subject.run.name, "checkpoint": subject.checkpoint, "codedtool": __version__},
    }
    write_atomically(path, content)
    write_atomically(description, (json.dumps(document, indent=2, allow_nan=False) + "\n").encode())
    return path


def load_binary_classifier(path: str | Path) -> BinaryClassifier:
    """Read a binary classifier from its .safetensors file (or its .json).

    Raises:
        InputError: a file is missing, is not a binary classifier's, or does not fit the other one.
    """
    weights, description = Path(path).with_suffix(".safetensors"), Path(path).with_suffix(".json")
    try:
        document = json.loads(description.read_text())
        content = weights.read_bytes()
        tensors = load(content)
    except FileNotFoundError as error:
        raise InputError(
            f"--bc {path}: {error.filename} does not exist; a binary classifier is NAME.safetensors with NAME.json "
            "beside it, as codedtool bc --out writes them"
        ) from None
    except (OSError, ValueError, SafetensorError) as error:
        raise InputError(f"--bc {path} is damaged ({error}); extract it again with codedtool bc") from None
    try:
        if document["format"] != _FORMAT:
            raise InputError(f"{description} has format {document['format']!r}, this codedtool reads format {_FORMAT}")
        # Weights of another class often have the same shapes.
        if document["weights_sha256"] != hashlib.sha256(content).hexdigest():
            raise InputError(
                f"{weights} does not hold the weights that {description.name} describes (another SHA-256); restore "
                "the two files together, or extract the classifier again with codedtool bc"
            )
        schemes = {stage: _lone_class(word) for stage, word in document["codewords"].items()}
        # The whole network's shape, from which the class's is cut; all weights are the file's.
        variant = Variant(**document.get("variant", {}))
        network = extract_binary_classifier(build_network(document["preset"], schemes, variant=variant), 0)
        network.load_state_dict(tensors)
        return BinaryClassifier(
            network=network.eval(),
            class_name=str(document["class"]),
            threshold=float(document["threshold"]),
            normalization=Normalization(
                tuple(document["normalization"]["mean"]), tuple(document["normalization"]["std"])
            ),
            image_size=int(document["image_size"]),
            metrics=dict(document["metrics"]),
            metadata={str(key): str(value) for key, value in document["provenance"].items()},
        )
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{description} and {weights} are not one binary classifier: {reason}") from None


def _lone_class(word: list[int]) -> CodingScheme:
    """A scheme whose first row is ``word``; a scheme has two rows, and the other, a rotation, is never looked at."""
    return CodingScheme(np.stack([np.asarray(word), np.roll(word, 1)]))
