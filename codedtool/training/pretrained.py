"""Weights to begin a training with, read from a run, a file or torchvision, under the names of `CodedNetwork`."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch

from codedtool.coding.scheme import CodingScheme
from codedtool.errors import InputError
from codedtool.files import FileError, is_file, opened, read_bytes, sha256
from codedtool.models.network import CodedNetwork
from codedtool.training.naming import OWN_SIGN, naming_of, places, unified
from codedtool.training.run import DEFAULT_FOLDER, Run
from codedtool.training.weights import from_safetensors

TORCHVISION = "torchvision"

_PICKLED = (".pth", ".pt")
_ENDINGS = (".safetensors", *_PICKLED)

# torchvision's name of a network -> a preset of the same architecture.
_TORCHVISION = {
    "resnext50_32x4d": "resnext50_32x4d",
    "resnext101_32x8d": "resnext101_32x8d",
    "mobilenet_v2": "mobilenetv2_32",
}

# Wrappers of PyTorch put these before the names of a network's tensors.
_PREFIXES = ("module.", "_orig_mod.")


@dataclass(frozen=True)
class Source:
    """Weights of another network.

    Attributes:
        description: where the weights are from, for people.
        sha256: SHA-256 of the file that holds the weights.
        weights: name in `CodedNetwork`, as `unified` makes it -> tensor.
        left_out: names of tensors that no `CodedNetwork` has.
        normalized: numbers, from 0, of the blocks with Energy Normalization.
        classes: class names, in the order of the linear layer's rows; None: unknown.
        schemes: coded stage -> scheme; empty unless the source is a run.
    """

    description: str
    sha256: str
    weights: Mapping[str, torch.Tensor]
    left_out: tuple[str, ...]
    normalized: frozenset[int]
    classes: tuple[str, ...] | None = None
    schemes: Mapping[str, CodingScheme] = field(default_factory=dict)


def read_source(init: str, network: CodedNetwork, *, folder: Path = DEFAULT_FOLDER, download: bool = True) -> Source:
    """Read the weights that ``init`` names.

    Args:
        init: the folder or name of a run, whose best checkpoint is read; a .safetensors, .pth or .pt file with a state
            dict of torchvision's or timm's ResNeXt or MobileNetV2 or of a `CodedNetwork`; or the word torchvision.
        network: the network that is to get the weights; it decides the architecture that torchvision is asked for, and
            the numbers of the blocks.
        folder: folder of all runs.
        download: let torchvision fetch weights that are not in its cache.

    Raises:
        InputError: no such run or file, a damaged file or one that holds more than tensors, names of no known network,
            or weights that cannot be fetched.
    """
    path = Path(init)
    if init == TORCHVISION:
        name, path = _torchvision_file(network, download=download)
        return _of_state(_read_state(path), path, f"torchvision's {name} ({path.name})", network)
    if path.suffix in _ENDINGS:
        return _of_state(_read_state(path), path, f"file {path}", network)
    if is_file(path):
        raise InputError(f"`init` {path} must be a run's folder or end in {', '.join(_ENDINGS)}")
    return _of_run(Run.load(init, folder=folder))


def _of_run(run: Run) -> Source:
    checkpoint = run.checkpoints.load("best", weights_only=True)
    run.check_metadata(checkpoint.metadata, f"checkpoint {run.checkpoints.folder / checkpoint.name}")
    weights = {unified(key): tensor for key, tensor in checkpoint.weights.items()}
    return Source(
        description=f"run {run.path}, best checkpoint {checkpoint.name}",
        sha256=sha256(run.checkpoints.folder / checkpoint.name / "weights.safetensors"),
        weights=weights,
        left_out=(),
        normalized=_coded_blocks(checkpoint.weights) if run.recipe.energy_norm else frozenset(),
        classes=run.classes,
        schemes=run.schemes,
    )


def _of_state(state: Mapping[str, torch.Tensor], path: Path, description: str, network: CodedNetwork) -> Source:
    """Give the tensors of a state dict the names that they have in ``network``."""
    if OWN_SIGN in state:
        weights = {unified(key): tensor for key, tensor in state.items()}
        return Source(description, sha256(path), weights, (), _coded_blocks(state))
    naming = naming_of(state)
    if naming is None:
        some = ", ".join(list(state)[:3]) or "none"
        raise InputError(
            f"{path}: the names of its tensors ({some}, ...) are those of no known network; known are torchvision's "
            "and timm's ResNeXt and MobileNetV2, and the networks of this package"
        )
    where = places(naming, network)
    named = {key: naming.translate(key, where) for key in state}
    # No network of this package has a bias in its linear layer.
    left_out = tuple(key for key, name in named.items() if name == "fc.bias")
    # A tensor without a counterpart keeps its own name, so that a message can name it.
    weights = {name or key: state[key] for key, name in named.items() if key not in left_out}
    return Source(f"{description}, {naming.name}", sha256(path), weights, left_out, frozenset())


def _coded_blocks(state: Mapping[str, torch.Tensor]) -> frozenset[int]:
    """Numbers, from 0, of the coded blocks of a `CodedNetwork` with this state dict."""
    coded = (key.split(".") for key in state if key.startswith("block_list.") and ".expand.conv." in key)
    return frozenset(int(parts[1]) for parts in coded if parts[1].isdecimal())


def _read_state(path: Path) -> dict[str, torch.Tensor]:
    """Read the state dict in a file; nothing in the file is run.

    Raises:
        InputError: no such file, a damaged file, or one that holds more than tensors.
    """
    try:
        document: Any
        if path.suffix not in _PICKLED:
            document = from_safetensors(read_bytes(path))[0]
        else:
            with opened(path) as stream, warnings.catch_warnings():
                # A pickle of another protocol than PyTorch's is read, or refused, all the same.
                warnings.filterwarnings("ignore", "Detected pickle protocol")
                document = torch.load(stream, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise InputError(
            f"{path} holds Python objects, which could run code when they are read, or is damaged; only tensors are "
            "read: save the network's state_dict() alone"
        ) from None
    except FileError:
        raise
    except Exception as error:  # a damaged pickle can raise anything
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(f"{path} is damaged or holds no state dict ({reason[0]})") from None
    for key in ("state_dict", "model"):
        if isinstance(document, Mapping) and isinstance(document.get(key), Mapping):
            document = document[key]
    if not isinstance(document, Mapping) or not document:
        raise InputError(f"{path} holds a {type(document).__name__} instead of a state dict of named tensors")
    return _without_prefixes({_checked(path, key, value): value for key, value in document.items()})


def _checked(path: Path, key: Any, value: Any) -> str:
    """Return ``key`` if it is a name and ``value`` an ordinary tensor."""
    if not isinstance(key, str):
        raise InputError(f"{path} holds no state dict: {key!r} is no name of a tensor")
    if not isinstance(value, torch.Tensor) or value.layout is not torch.strided or value.device.type != "cpu":
        raise InputError(f"{path} holds no state dict: {key} is a {type(value).__name__} and not an ordinary tensor")
    return key


def _without_prefixes(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    for prefix in _PREFIXES:
        if all(key.startswith(prefix) for key in state):
            return _without_prefixes({key.removeprefix(prefix): tensor for key, tensor in state.items()})
    return state


def _torchvision_file(network: CodedNetwork, *, download: bool) -> tuple[str, Path]:
    """Find torchvision's network with the architecture of ``network``, and the file of its ImageNet weights.

    Raises:
        InputError: torchvision has no such network, or its weights are not there and cannot be fetched.
    """
    try:
        from torchvision import models
    except ImportError as error:
        raise InputError(f"`init` torchvision needs torchvision ({error}): pip install 'codedtool[train]'") from None
    name = next((name for name in _TORCHVISION if _fits(models, name, network)), None)
    if name is None:
        presets = ", ".join(f"{preset} and coded_{preset}" for preset in _TORCHVISION.values())
        raise InputError(
            f"`init` torchvision: torchvision has no weights of this architecture; it has those of {presets}"
        )
    weights = models.get_model_weights(name).DEFAULT
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
    if not is_file(path):
        if not download:
            raise InputError(
                f"`init` torchvision: the weights of {name} are not at {path} and `download` is off; fetch "
                f"{weights.url} and give the file as `init`"
            )
        try:
            # The name of the file holds the beginning of its SHA-256, which is compared.
            weights.get_state_dict(progress=False, check_hash=True)
        except (URLError, OSError, RuntimeError) as error:
            raise InputError(f"`init` torchvision: cannot fetch {weights.url} ({error})") from None
    return name, path


def _fits(models: Any, name: str, network: CodedNetwork) -> bool:
    """Whether torchvision's network ``name`` has the tensors of ``network``, except the linear layer."""
    with torch.device("meta"):
        state = models.get_model(name, weights=None).state_dict()
    naming = naming_of(state)
    assert naming is not None
    where = places(naming, network)
    theirs = {naming.translate(key, where): tensor.shape for key, tensor in state.items()}
    ours = {unified(key): tensor.shape for key, tensor in network.state_dict().items()}
    linear = ("fc.weight", "fc.bias")
    return {key: shape for key, shape in theirs.items() if key not in linear} == {
        key: shape for key, shape in ours.items() if key not in linear
    }
