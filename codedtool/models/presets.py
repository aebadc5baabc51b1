"""Networks by name: those of table 1, smaller ones, and their plain controls; and the schemes of their stages."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from codedtool.coding.scheme import CodingScheme
from codedtool.errors import InputError
from codedtool.models.network import CodedNetwork, InvertedStage, Stage, StemKind
from codedtool.models.variant import PAPER, Variant


@dataclass(frozen=True)
class Preset:
    """Architecture of a network.

    Attributes:
        stages: name -> stage, in order.
        num_subnns: N, the number of subNNs per block.
        ratios: coded stage -> r = N_act / N; empty for a plain control.
        num_classes: K of the data set that the architecture was made for.
        stem, stem_channels, head_channels: as for `CodedNetwork`.
    """

    stages: Mapping[str, Stage | InvertedStage]
    num_subnns: int
    ratios: Mapping[str, Fraction]
    num_classes: int
    stem: StemKind
    stem_channels: int
    head_channels: int = 0


def _cifar(num_classes: int, num_subnns: int, widths: Sequence[int], ratios: Mapping[str, Fraction]) -> Preset:
    stages = {
        f"s{number + 1}": Stage(256 << number, width, num_blocks=3, stride=1 if number == 0 else 2)
        for number, width in enumerate(widths)
    }
    return Preset(stages, num_subnns, ratios, num_classes, "cifar", 64)


def _imagenet(ratios: Mapping[str, Fraction]) -> Preset:
    stages = {
        f"s{number + 1}": Stage(256 << number, 4 << number, num_blocks=blocks, stride=1 if number == 0 else 2)
        for number, blocks in enumerate((3, 4, 6, 3))
    }
    return Preset(stages, 32, ratios, 1000, "imagenet", 64)


def _narrow(ratios: Mapping[str, Fraction]) -> Preset:
    stages = {
        "s1": Stage(64, 3, num_blocks=1, stride=2),
        "s2": Stage(128, 6, num_blocks=3, stride=2),
        "s3": Stage(256, 12, num_blocks=3, stride=2),
    }
    return Preset(stages, 10, ratios, 10, "cifar", 16)


def _tiny(ratios: Mapping[str, Fraction]) -> Preset:
    stages = {
        "s1": Stage(32, 2, num_blocks=1, stride=1),
        "s2": Stage(64, 4, num_blocks=2, stride=2),
        "s3": Stage(128, 8, num_blocks=2, stride=1),
    }
    return Preset(stages, 10, ratios, 10, "cifar", 16)


def _mobilenet(num_classes: int, num_subnns: int, acts: tuple[int, int] | None, *, cifar: bool) -> Preset:
    """Make MobileNetV2 (Sandler et al. 2018, table 2); for CIFAR's 32 pixels the first two strides are 1.

    Args:
        acts: N_act of stages s4 and s5, and of s6 and s7; None: a plain control.
    """
    rows = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    stages = {
        f"s{number}": InvertedStage(
            out_channels,
            expansion,
            num_blocks,
            stride=1 if cifar and number == 2 else stride,
            multiple=num_subnns if number >= 4 else 1,
        )
        for number, (expansion, out_channels, num_blocks, stride) in enumerate(rows, start=1)
    }
    ratios = {}
    if acts is not None:
        first, second = (Fraction(act, num_subnns) for act in acts)
        ratios = {"s4": first, "s5": first, "s6": second, "s7": second}
    stem: StemKind = "mobilenet-cifar" if cifar else "mobilenet"
    return Preset(stages, num_subnns, ratios, num_classes, stem, 32, head_channels=1280)


_C10 = {"s2": Fraction(5, 10), "s3": Fraction(3, 10)}
_C100 = {"s2": Fraction(8, 20), "s3": Fraction(4, 20)}
_IMAGENET = {"s3": Fraction(16, 32), "s4": Fraction(8, 32)}

# Table 1; each coded network is followed by its plain control, the same network with r = 1 everywhere.
PRESETS: dict[str, Preset] = {
    "coded_resnext29_10x11d": _cifar(10, 10, (11, 22, 44), _C10),
    "resnext29_10x11d": _cifar(10, 10, (11, 22, 44), {}),
    "coded_resnext29_20x6d": _cifar(100, 20, (6, 12, 24), _C100),
    "resnext29_20x6d": _cifar(100, 20, (6, 12, 24), {}),
    "coded_resnext50_32x4d": _imagenet(_IMAGENET),
    "resnext50_32x4d": _imagenet({}),
    # For CIFAR-10 without a GPU: fifteen times faster than the paper's network.
    "coded_resnext23_10x3d": _narrow(_C10),
    "resnext23_10x3d": _narrow({}),
    # Appendix E proposes MobileNetV2; widths of its coded stages are rounded to multiples of N.
    "coded_mobilenetv2_10": _mobilenet(10, 10, (5, 3), cifar=True),
    "mobilenetv2_10": _mobilenet(10, 10, None, cifar=True),
    "coded_mobilenetv2_20": _mobilenet(100, 20, (8, 4), cifar=True),
    "mobilenetv2_20": _mobilenet(100, 20, None, cifar=True),
    "coded_mobilenetv2_32": _mobilenet(1000, 32, (16, 8), cifar=False),
    "mobilenetv2_32": _mobilenet(1000, 32, None, cifar=False),
    "coded_resnext_tiny": _tiny(_C10),
    "resnext_tiny": _tiny({}),
}


def get_preset(name: str) -> Preset:
    """Return the preset called ``name``.

    Raises:
        InputError: no preset has this name; the message names the nearest one.
    """
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise InputError(f"`preset` {name!r} is unknown; {hint}Known: {', '.join(PRESETS)}")
    return PRESETS[name]


def preset_for(scheme: CodingScheme) -> str:
    """Name the first coded preset with this scheme's N and a stage of its ratio.

    Raises:
        InputError: no such preset; the message lists the presets' N and ratios.
    """
    for name, preset in PRESETS.items():
        if preset.num_subnns == scheme.length and scheme.ratio in preset.ratios.values():
            return name
    known = ", ".join(
        f"{name}: N={preset.num_subnns}, r={_listed(preset)}" for name, preset in PRESETS.items() if preset.ratios
    )
    raise InputError(
        f"no preset has N={scheme.length} and a stage of ratio {scheme.act}/{scheme.length} ({known}); "
        "name one as `preset` and the scheme's stage in `stages`"
    )


def build_network(
    preset: str,
    schemes: Mapping[str, CodingScheme] | Sequence[CodingScheme] = (),
    *,
    num_classes: int | None = None,
    in_channels: int = 3,
    variant: Variant = PAPER,
) -> CodedNetwork:
    """Build a network with new weights from torch's random state, in training mode, on the CPU (table 1).

    Args:
        preset: name of the architecture, a key of `PRESETS`.
        schemes: either stage -> scheme, where stages without a scheme are plain; or a sequence of schemes, each of
            which codes the stages of its ratio, and which must cover all coded stages of the preset.
        num_classes: K; None: K of the schemes, or of the preset if there are no schemes.
        in_channels: channels of an image.
        variant: the ablations.

    Raises:
        InputError: an unknown preset or stage, or a scheme that does not fit (see `assign_schemes`).

    Example:
        >>> import numpy as np
        >>> from itertools import combinations, islice
        >>> from codedtool.coding.scheme import CodingScheme
        >>> words = islice(combinations(range(10), 3), 10)
        >>> table = np.array([[int(n in word) for n in range(10)] for word in words], dtype=np.uint8)
        >>> network = build_network("coded_resnext_tiny", {"s3": CodingScheme(table)})
        >>> [block.name for block in network.coded_blocks]
        ['s3.1', 's3.2']
        >>> network.coded_blocks[0].scheme.act
        3
    """
    found = get_preset(preset)
    if not isinstance(schemes, Mapping):
        schemes = assign_schemes(preset, schemes)
    for stage, scheme in schemes.items():
        _check_fits(preset, found, stage, scheme)
    classes = {scheme.num_classes for scheme in schemes.values()}
    if num_classes is not None:
        classes.add(num_classes)
    if len(classes) > 1:
        raise InputError(
            f"the schemes and the data disagree about the number of classes K: {sorted(classes)}; row k of every "
            "scheme is class k"
        )
    return CodedNetwork(
        found.stages,
        found.num_subnns,
        {stage: schemes[stage] for stage in found.stages if stage in schemes},
        num_classes=classes.pop() if classes else found.num_classes,
        stem=found.stem,
        stem_channels=found.stem_channels,
        head_channels=found.head_channels,
        in_channels=in_channels,
        variant=variant,
    )


def assign_schemes(
    preset: str,
    schemes: Sequence[CodingScheme],
    *,
    stages: Sequence[str] | None = None,
    uncoded_stages: Iterable[str] = (),
    sibling: Callable[[str, Fraction], CodingScheme | None] | None = None,
) -> dict[str, CodingScheme]:
    """Assign schemes to the stages of a preset.

    Args:
        preset: name of the architecture, a key of `PRESETS`.
        schemes: each codes the stages with its ratio r, or the stage at its place in ``stages``.
        stages: one stage name per scheme, needed for ratios that the preset does not have.
        uncoded_stages: coded stages of the preset that stay plain, unless a scheme is given for them.
        sibling: function of (stage, ratio), called for every coded stage without a scheme; returns a scheme or None.

    Returns:
        Stage -> scheme, in the order of the stages.

    Raises:
        InputError: another N than the preset's, different K, two schemes for one stage, a ratio or stage that the
            preset does not have, or a coded stage without a scheme.
    """
    found = get_preset(preset)
    uncoded = set(uncoded_stages)
    for stage in uncoded:
        _check_stage(preset, found, stage)
    if stages is not None and len(stages) != len(schemes):
        raise InputError(f"`stages` names {len(stages)} stages for {len(schemes)} schemes; name one stage per scheme")
    assigned: dict[str, CodingScheme] = {}
    for number, scheme in enumerate(schemes):
        for stage in _stages_of_ratio(preset, found, scheme) if stages is None else [stages[number]]:
            _check_fits(preset, found, stage, scheme)
            if stage in assigned:
                raise InputError(f"two schemes are given for stage {stage}; name the stage of each in `stages`")
            assigned[stage] = scheme
    for stage, ratio in found.ratios.items():
        if stage in assigned or stage in uncoded:
            continue
        scheme_or_none = sibling(stage, ratio) if sibling is not None else None
        if scheme_or_none is None:
            raise InputError(
                f"stage {stage} of {preset} has ratio {_ratio(ratio, found.num_subnns)} and no scheme: give a "
                f"scheme of this ratio too, or leave the stage plain with `uncoded_stages` {stage}"
            )
        _check_fits(preset, found, stage, scheme_or_none)
        assigned[stage] = scheme_or_none
    if len({scheme.num_classes for scheme in assigned.values()}) > 1:
        counts = ", ".join(f"{stage}: K={scheme.num_classes}" for stage, scheme in assigned.items())
        raise InputError(f"the schemes have different numbers of classes ({counts}); row k of every scheme is class k")
    return {stage: assigned[stage] for stage in found.stages if stage in assigned}


def _stages_of_ratio(preset: str, found: Preset, scheme: CodingScheme) -> list[str]:
    stages = [stage for stage, ratio in found.ratios.items() if ratio == scheme.ratio]
    if not stages:
        raise InputError(
            f"{preset} has no stage of ratio {scheme.act}/{scheme.length} (it has {_listed(found)}); "
            f"name the stage of this scheme in `stages` ({', '.join(found.stages)})"
        )
    return stages


def _check_stage(preset: str, found: Preset, stage: str) -> None:
    if stage not in found.stages:
        raise InputError(f"{preset} has no stage {stage!r}; its stages are {', '.join(found.stages)}")


def _check_fits(preset: str, found: Preset, stage: str, scheme: CodingScheme) -> None:
    _check_stage(preset, found, stage)
    if scheme.length != found.num_subnns:
        raise InputError(
            f"{preset} has N={found.num_subnns} subNNs per block, this scheme has N={scheme.length}; "
            "choose another `preset` or another scheme"
        )


def _listed(found: Preset) -> str:
    return ", ".join(f"{stage} {_ratio(ratio, found.num_subnns)}" for stage, ratio in found.ratios.items()) or "none"


def _ratio(ratio: Fraction, num_subnns: int) -> str:
    return f"{ratio * num_subnns}/{num_subnns}"
