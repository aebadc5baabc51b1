"""Names of a network's tensors in torchvision and timm, and the same tensors' names in `CodedNetwork`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from codedtool.models.network import CodedNetwork


@dataclass(frozen=True)
class Naming:
    """How a library names the tensors of a family of networks.

    Attributes:
        name: the library and the family, for messages.
        sign: a tensor that has this name in this library only.
        block: matches a module inside a block; its groups are the block's place and the module's name in the block.
        inside: module inside a block -> the same module of `codedtool.models.blocks.Block`.
        outside: module outside the blocks -> the same module of `CodedNetwork`.
        first_inside: as ``inside``, for the first block; empty: the first block is like the others.
    """

    name: str
    sign: str
    block: re.Pattern[str]
    inside: Mapping[str, str]
    outside: Mapping[str, str]
    first_inside: Mapping[str, str] = field(default_factory=dict)

    def translate(self, key: str, places: Mapping[tuple[int, ...], int]) -> str | None:
        """The name of a tensor in `CodedNetwork`; None if no tensor there corresponds to it.

        Args:
            key: name of the tensor in the library, such as "layer1.0.conv1.weight".
            places: place of a block in the library -> number of the block, from 0; see `places`.
        """
        module, _, tensor = key.rpartition(".")
        if module in self.outside:
            return f"{self.outside[module]}.{tensor}"
        match = self.block.fullmatch(module)
        if match is None:
            return None
        *place, inner = match.groups()
        number = places.get(tuple(int(part) for part in place))
        if number is None:
            return None
        inside = self.first_inside if number == 0 and self.first_inside else self.inside
        return f"block_list.{number}.{inside[inner]}.{tensor}" if inner in inside else None


_RESNEXT_BLOCK = {
    "conv1": "reduce",
    "bn1": "reduce_bn",
    "conv2": "grouped",
    "bn2": "grouped_bn",
    "conv3": "expand",
    "bn3": "expand_bn",
    "downsample.0": "shortcut.0",
    "downsample.1": "shortcut.1",
}

RESNEXT = Naming(
    name="a ResNeXt of torchvision or timm",
    sign="layer1.0.conv3.weight",
    # layer1 is the first stage, and its first block is 0.
    block=re.compile(r"layer(\d+)\.(\d+)\.(.+)"),
    inside=_RESNEXT_BLOCK,
    outside={"conv1": "stem.0", "bn1": "stem.1", "fc": "fc"},
)

TORCHVISION_MOBILENET = Naming(
    name="torchvision's MobileNetV2",
    sign="features.0.0.weight",
    # features.0 is the stem and features.1 the first block.
    block=re.compile(r"features\.(\d+)\.conv\.(.+)"),
    inside={
        "0.0": "reduce",
        "0.1": "reduce_bn",
        "1.0": "grouped",
        "1.1": "grouped_bn",
        "2": "expand",
        "3": "expand_bn",
    },
    # The first block has no convolution that widens.
    first_inside={"0.0": "grouped", "0.1": "grouped_bn", "1": "expand", "2": "expand_bn"},
    outside={
        "features.0.0": "stem.0",
        "features.0.1": "stem.1",
        "features.18.0": "last.0",
        "features.18.1": "last.1",
        "classifier.1": "fc",
    },
)

TIMM_MOBILENET = Naming(
    name="timm's MobileNetV2",
    sign="conv_stem.weight",
    # blocks.0 is the first stage, and its first block is 0.
    block=re.compile(r"blocks\.(\d+)\.(\d+)\.(.+)"),
    inside={
        "conv_pw": "reduce",
        "bn1": "reduce_bn",
        "conv_dw": "grouped",
        "bn2": "grouped_bn",
        "conv_pwl": "expand",
        "bn3": "expand_bn",
    },
    first_inside={"conv_dw": "grouped", "bn1": "grouped_bn", "conv_pw": "expand", "bn2": "expand_bn"},
    outside={
        "conv_stem": "stem.0",
        "bn1": "stem.1",
        "conv_head": "last.0",
        "bn2": "last.1",
        "classifier": "fc",
    },
)

NAMINGS = (RESNEXT, TORCHVISION_MOBILENET, TIMM_MOBILENET)

# A tensor that every `CodedNetwork` has.
OWN_SIGN = "block_list.0.grouped.weight"


def naming_of(keys: Iterable[str]) -> Naming | None:
    """The naming that a state dict's keys follow; None if it is unknown."""
    found = set(keys)
    return next((naming for naming in NAMINGS if naming.sign in found), None)


def places(naming: Naming, network: CodedNetwork) -> dict[tuple[int, ...], int]:
    """Place of every block of ``network`` as ``naming`` counts it -> number of the block, from 0."""
    if naming is TORCHVISION_MOBILENET:
        return {(number + 1,): number for number in range(len(network.blocks))}
    stages = list(dict.fromkeys(network.block_stages))
    first = 1 if naming is RESNEXT else 0
    return {
        (first + stages.index(block.stage), block.number - 1): number for number, block in enumerate(network.blocks)
    }


def unified(key: str) -> str:
    """A name that the last 1x1 convolution has in a coded block and in a plain one; other names stay."""
    return key.replace(".expand.conv.", ".expand.")
