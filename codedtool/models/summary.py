"""What a network of some name is: its stages, their ratios, and how many parameters they have."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from codedtool.models.families import parse_name
from codedtool.models.presets import build_network, get_preset


@dataclass(frozen=True)
class StageSummary:
    """One stage of a network.

    Attributes:
        name: name of the stage.
        num_blocks: number of its blocks.
        out_channels: C_out of its blocks.
        inner_channels: channels of the 3x3 convolution of its last block, all subNNs together: N * d.
        stride: stride of its first block.
        act: usual N_act of the stage; N in a plain stage.
        parameters: number of parameters.
    """

    name: str
    num_blocks: int
    out_channels: int
    inner_channels: int
    stride: int
    act: int
    parameters: int


@dataclass(frozen=True)
class NetworkSummary:
    """A network by name.

    Attributes:
        preset: name of the architecture.
        num_subnns: N.
        num_classes: K, for which the parameters of the linear layer are counted.
        pixels: smallest and largest side of the images that it is for; None: no upper limit.
        parameters: number of all parameters.
        stages: the stages in order. Stem and linear layer have the parameters that the stages lack.
    """

    preset: str
    num_subnns: int
    num_classes: int
    pixels: tuple[int, int | None]
    parameters: int
    stages: tuple[StageSummary, ...]

    @property
    def coded_stages(self) -> tuple[StageSummary, ...]:
        """The stages that are usually coded."""
        return tuple(stage for stage in self.stages if stage.act < self.num_subnns)


def summarize(preset: str) -> NetworkSummary:
    """Describe the network called ``preset``, without memory for its weights.

    Raises:
        InputError: the name is unknown.

    Example:
        >>> found = summarize("coded_resnext29_10x11d")
        >>> found.parameters, [f"{stage.name} {stage.act}/10" for stage in found.coded_stages]
        (4638926, ['s2 5/10', 's3 3/10'])
    """
    name, row = parse_name(preset), get_preset(preset)
    with torch.device("meta"):
        # The plain control has the same parameters.
        network = build_network(preset.removeprefix("coded_"))
    stages = []
    for stage, found in row.stages.items():
        blocks = [block for block in network.blocks if block.stage == stage]
        stages.append(
            StageSummary(
                stage,
                found.num_blocks,
                found.out_channels,
                blocks[-1].grouped.out_channels,
                found.stride,
                int(row.ratios[stage] * name.num_subnns) if stage in row.ratios else name.num_subnns,
                sum(map(_parameters, blocks)),
            )
        )
    return NetworkSummary(preset, name.num_subnns, name.num_classes, name.pixels, _parameters(network), tuple(stages))


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
