"""Begin a training with the weights of another network instead of random ones: ``codedtool train --init``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from codedtool.budget import Progress, silent
from codedtool.coding.scheme import CodingScheme
from codedtool.data import ImageData, Normalization, Split, eval_batches, normalize
from codedtool.errors import InputError
from codedtool.models.network import CodedNetwork
from codedtool.training.naming import unified
from codedtool.training.pretrained import Source, read_source
from codedtool.training.recipe import Recipe
from codedtool.training.run import DEFAULT_FOLDER, Run
from codedtool.training.runtime import Runtime
from codedtool.training.sync_bn import average_statistics

_LINEAR = "fc.weight"

# Training images that estimate BatchNorm's statistics: some thousand suffice, and on a CPU they take a minute at most.
_STATISTICS_IMAGES = 2048
_STATISTICS_BATCH = 64


@dataclass(frozen=True)
class InitialWeights:
    """The weights that a run begins with.

    Attributes:
        init: the name that was given for the source.
        source: the source's description, for people.
        sha256: SHA-256 of the source's file.
        weights: state dict of the new network.
        taken: number of tensors that were taken whole.
        left_out: names of the source's tensors that were not used.
        drawn_anew: names of the new network's tensors with random values.
        kept_classes: classes whose row of the linear layer was taken, when the source's class names are known.
        new_classes: classes whose row of the linear layer is random.
        other_codewords: classes of both networks that have another codeword in a stage that is coded in both.
        first_renewed: number, from 0, of the first block whose output is scaled differently than in the source, because
            it has Energy Normalization and the source has none, or the reverse; None: there is no such block.
        block: name of that block.
    """

    init: str
    source: str
    sha256: str
    weights: Mapping[str, torch.Tensor]
    taken: int
    left_out: tuple[str, ...]
    drawn_anew: tuple[str, ...]
    kept_classes: tuple[str, ...]
    new_classes: tuple[str, ...]
    other_codewords: tuple[str, ...]
    first_renewed: int | None
    block: str | None

    def lines(self) -> list[str]:
        """Describe the weights for people, in a few lines."""
        whole = not self.new_classes
        lines = [f"initial weights: {self.taken} tensors of {self.source}"]
        if self.left_out:
            lines.append(f"  left out: {', '.join(self.left_out)}")
        if self.kept_classes:
            rest = "" if whole else f"; drawn anew: those of {_some(self.new_classes)}"
            lines.append(f"  rows of the linear layer kept by class name: {_some(self.kept_classes)}{rest}")
        if self.drawn_anew:
            lines.append(f"  drawn anew: {', '.join(self.drawn_anew)}")
        if self.other_codewords:
            lines.append(f"  classes with other codewords than before: {_some(self.other_codewords)}")
        if self.block is not None:
            lines.append(
                f"  BatchNorm statistics from block {self.block} on are estimated again on training images, because "
                "its Energy Normalization is new or gone"
            )
        return lines

    def to_json(self) -> dict[str, Any]:
        """Return everything but the weights, as plain JSON types."""
        return {
            "from": self.init,
            "source": self.source,
            "sha256": self.sha256,
            "taken": self.taken,
            "left_out": list(self.left_out),
            "drawn_anew": list(self.drawn_anew),
            "kept_classes": list(self.kept_classes),
            "new_classes": list(self.new_classes),
            "other_codewords": list(self.other_codewords),
            "statistics_estimated_from": self.block,
        }

    def apply(
        self,
        network: CodedNetwork,
        data: ImageData,
        normalization: Normalization,
        recipe: Recipe,
        runtime: Runtime,
        *,
        progress: Progress = silent,
    ) -> None:
        """Give ``network`` the weights and move it to the device; every rank must call it.

        Args:
            network: the new network, before `Runtime.prepare`.
            data: its training images estimate the statistics of BatchNorm, where `first_renewed` says so.
            normalization: normalization of the images.
            recipe: gives the seed, the size of the images and the size of a batch.
        """
        network.load_state_dict(dict(self.weights))
        network.to(runtime.device)
        if self.first_renewed is not None:
            estimate_statistics(
                network, self.first_renewed, data.train, normalization, recipe, runtime, progress=progress
            )


def initial_weights(
    init: str,
    recipe: Recipe,
    schemes: Mapping[str, CodingScheme],
    data: ImageData,
    runtime: Runtime,
    *,
    folder: Path = DEFAULT_FOLDER,
    download: bool = True,
) -> InitialWeights:
    """Read the weights that a new run begins with; rank 0 goes first, so that only one process downloads.

    Args:
        init: a run, a file with a state dict, or the word torchvision; see `read_source`.
        recipe, schemes: of the new run, the schemes after the recipe's permutation.
        data: the data set of the new run.
        folder: folder of all runs.
        download: let torchvision fetch weights that are not in its cache.

    Raises:
        InputError: as `read_source` and `fitted`.
    """
    network = Run(folder / "new", recipe, schemes, data.classes, data.normalization).build_network()
    source = None
    if runtime.is_main:
        source = read_source(init, network, folder=folder, download=download)
    runtime.barrier()
    if source is None:
        source = read_source(init, network, folder=folder, download=False)
    return fitted(init, source, network, data.classes)


def fitted(init: str, source: Source, network: CodedNetwork, classes: Sequence[str]) -> InitialWeights:
    """Fit the source's tensors into the state dict of ``network``, which itself stays unchanged.

    A coded block and a plain one have the same tensors. Only the linear layer may differ. If the source is a run, rows
    are matched by the names of the classes. Otherwise the layer is taken if it has as many classes, and else left out.

    Args:
        init: the name that was given for the source.
        classes: class names of the new network.

    Raises:
        InputError: a tensor is missing, misshapen or not finite, or has no place in the network; the message names it.
    """
    weights = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    targets = {unified(key): tensor for key, tensor in weights.items()}
    _check_fits(source, targets)
    taken, drawn_anew, left_out = 0, [], list(source.left_out)
    kept: list[str] = []
    for key, target in targets.items():
        found = source.weights.get(key)
        if key == _LINEAR:
            rows = [] if found is None else _rows(source, found, classes)
            for row, from_row in rows:
                target[row] = _values(source, found, key)[from_row]
                kept.append(classes[row])
            if len(rows) == len(classes):
                taken += 1
            elif not rows:
                drawn_anew.append(key)
                left_out += [] if found is None else [key]
        elif found is not None:
            target.copy_(_values(source, found, key))
            taken += 1
    renewed = [
        number
        for number, block in enumerate(network.blocks)
        if (block.is_coded and network.variant.energy_norm) != (number in source.normalized)
    ]
    return InitialWeights(
        init=init,
        source=source.description,
        sha256=source.sha256,
        weights=weights,
        taken=taken,
        left_out=tuple(left_out),
        drawn_anew=tuple(drawn_anew),
        kept_classes=tuple(kept) if source.classes is not None else (),
        new_classes=tuple(name for name in classes if name not in set(kept)),
        other_codewords=_other_codewords(source, network, classes),
        first_renewed=renewed[0] if renewed else None,
        block=network.blocks[renewed[0]].name if renewed else None,
    )


@torch.no_grad()
def estimate_statistics(
    network: CodedNetwork,
    first: int,
    split: Split,
    normalization: Normalization,
    recipe: Recipe,
    runtime: Runtime,
    *,
    progress: Progress = silent,
) -> None:
    """Estimate the statistics of every BatchNorm from the sum of block ``first`` on, in place.

    Every rank uses the same images, which are drawn from the recipe's seed and not augmented, so the result does not
    depend on the number of ranks.

    Args:
        network: the network, on the runtime's device; it ends in training mode.
        first: number of a block, from 0. Its inner BatchNorms and the earlier blocks keep their statistics.
        split: the training images; at most 2,048 of them are used.
        normalization: normalization of the images.
        recipe: gives the seed, the size of the images and the most images of a batch.
    """
    size = max(2, min(_STATISTICS_BATCH, recipe.micro_batch or recipe.batch_size))
    count = min(_STATISTICS_IMAGES, len(split))
    # Batches of one size, because all of them count the same in the mean.
    count -= count % size if count > size else 0
    chosen = _chosen(split, np.random.default_rng(recipe.seed).permutation(len(split))[:count])
    network.eval()
    norms = [
        module
        for name, module in network.named_modules()
        if isinstance(module, nn.BatchNorm2d) and _behind(name, first)
    ]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
        norm.train()
    seen = 0
    batches = eval_batches(chosen, size=recipe.train_size, batch_size=size, num_workers=runtime.num_workers)
    for images, targets, _ in batches:
        if len(targets) > 1:  # unreadable images can be skipped
            with runtime.autocast():
                network(normalize(runtime.put(images), normalization))
            runtime.mark()
        seen += len(targets)
        progress("estimating BatchNorm statistics", seen, count)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    average_statistics(network, runtime)
    network.train()


def _shape(tensor: torch.Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "of a single number"


def _check_fits(source: Source, targets: Mapping[str, torch.Tensor]) -> None:
    """Raise InputError unless the source has a tensor of the right shape for every target, and no other tensors."""
    # Files of old versions of PyTorch do not count BatchNorm's batches.
    missing = [
        key for key in targets if key not in source.weights and key != _LINEAR and not key.endswith("batches_tracked")
    ]
    misshapen = [
        f"{key} has shape {_shape(tensor)} instead of {_shape(targets[key])}"
        for key, tensor in source.weights.items()
        if key in targets and not _same_shape(key, tensor, targets[key])
    ]
    extra = [key for key in source.weights if key not in targets]
    problems = [
        *([f"no tensor for {_some(missing)}"] if missing else []),
        *([_some(misshapen)] if misshapen else []),
        *([f"no place for its tensor {_some(extra)}"] if extra else []),
    ]
    if problems:
        raise InputError(
            f"the weights of {source.description} do not fit this network: {'; '.join(problems)}; name as `preset` the "
            "architecture of the weights, or as `init` weights of this one"
        )


def _same_shape(key: str, tensor: torch.Tensor, target: torch.Tensor) -> bool:
    """Whether the shapes agree; of the linear layer, only the number of channels must."""
    if key == _LINEAR:
        return tensor.dim() == 2 and tensor.shape[1:] == target.shape[1:]
    return tensor.shape == target.shape


def _rows(source: Source, linear_KC: torch.Tensor, classes: Sequence[str]) -> list[tuple[int, int]]:
    """Pairs of a row of the new linear layer and the row of the source's that it is to get."""
    if source.classes is not None:
        return [(row, source.classes.index(name)) for row, name in enumerate(classes) if name in source.classes]
    return [(row, row) for row in range(len(classes))] if len(linear_KC) == len(classes) else []


def _values(source: Source, tensor: torch.Tensor | None, key: str) -> torch.Tensor:
    """Return ``tensor`` if all its values are finite."""
    assert tensor is not None
    if not torch.isfinite(tensor).all():
        raise InputError(f"the weights of {source.description} are damaged: {key} has values that are not finite")
    return tensor


def _other_codewords(source: Source, network: CodedNetwork, classes: Sequence[str]) -> tuple[str, ...]:
    """Classes of both networks whose codeword differs in a stage that is coded in both."""
    if source.classes is None:
        return ()
    pairs = [(scheme, source.schemes[stage]) for stage, scheme in network.schemes.items() if stage in source.schemes]
    return tuple(
        name
        for row, name in enumerate(classes)
        if name in source.classes
        and any(not np.array_equal(ours.table[row], theirs.table[source.classes.index(name)]) for ours, theirs in pairs)
    )


def _behind(name: str, first: int) -> bool:
    """Whether the module called ``name`` gets the sum of block ``first``, or features that depend on it."""
    parts = name.split(".")
    if parts[0] == "block_list":
        number = int(parts[1])
        return number > first or (number == first and parts[2] == "expand_bn")
    return parts[0] == "last"


def _chosen(split: Split, numbers: np.ndarray[Any, Any]) -> Split:
    images = split.images
    if isinstance(images, np.ndarray):
        return replace(split, images=images[numbers], targets=split.targets[numbers])
    return replace(split, images=tuple(images[number] for number in numbers), targets=split.targets[numbers])


def _some(names: Sequence[str], most: int = 5) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
