"""Networks by name, coded and plain, and which scheme codes which of their stages or blocks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

from codedtool.coding.scheme import CodingScheme
from codedtool.errors import InputError
from codedtool.models.families import (
    FAMILIES,
    MOBILENET,
    Architecture,
    StemKind,
    choose_network,
    default_acts,
    parse_name,
    usual_size,
)
from codedtool.models.network import CodedNetwork, InvertedStage, Stage
from codedtool.models.places import parse_place
from codedtool.models.variant import PAPER, Variant


@dataclass(frozen=True)
class Preset:
    """Architecture of a network.

    Attributes:
        stages: name -> stage, in order.
        num_subnns: N, the number of subNNs per block.
        ratios: coded stage -> its usual r = N_act / N, in order; empty for a plain control.
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


@cache
def get_preset(name: str) -> Preset:
    """Return the architecture called ``name``.

    Raises:
        InputError: the name has none of the known forms; the message names the nearest name.
    """
    found = parse_name(name)
    first, second = (Fraction(act, found.num_subnns) for act in default_acts(found.num_subnns))
    if found.family == MOBILENET:
        ratios = {"s4": first, "s5": first, "s6": second, "s7": second}
        stages, stem, stem_channels, head_channels = _mobilenet(found)
    else:
        family = FAMILIES[found.family]
        stages = {
            f"s{number + 1}": Stage(family.out_channels << number, found.subnn_channels << number, blocks, stride)
            for number, (blocks, stride) in enumerate(zip(family.blocks, family.strides, strict=True))
        }
        *_, last_but_one, last = stages
        ratios = {last_but_one: first, last: second}
        stem, stem_channels, head_channels = family.stem, family.stem_channels, 0
    return Preset(
        stages,
        found.num_subnns,
        ratios if found.coded else {},
        found.num_classes,
        stem,
        stem_channels,
        head_channels,
    )


def _mobilenet(found: Architecture) -> tuple[dict[str, Stage | InvertedStage], StemKind, int, int]:
    """Make MobileNetV2 (Sandler et al. 2018, table 2); for CIFAR's 32 pixels the first two strides are 1.

    Appendix E proposes it. Widths of the stages that can be coded are rounded to multiples of N.
    """
    rows = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    stages: dict[str, Stage | InvertedStage] = {
        f"s{number}": InvertedStage(
            out_channels,
            expansion,
            num_blocks,
            stride=1 if number == 2 and not found.for_photos else stride,
            multiple=found.num_subnns if number >= 4 else 1,
        )
        for number, (expansion, out_channels, num_blocks, stride) in enumerate(rows, start=1)
    }
    return stages, "mobilenet" if found.for_photos else "mobilenet-cifar", 32, 1280


def preset_for(scheme: CodingScheme, *, image_size: int | None = None) -> str:
    """Name the coded network that fits a scheme and the size of the images; see `choose_network`.

    Args:
        scheme: only its N counts, and its K where the size is unknown.
        image_size: side of the images, in pixels; None: that of the paper's data set with about K classes.
    """
    return choose_network(scheme.length, image_size or usual_size(scheme.num_classes)).preset


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
        preset: name of the architecture, such as "coded_resnext29_16x8d"; `families` has all forms.
        schemes: either place -> scheme, where a place is a stage ("s3") or blocks of one ("s3.1-3"), and blocks without
            a scheme are plain; or a sequence of schemes for `assign_schemes`.
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
    for place, scheme in schemes.items():
        _check_fits(preset, found, place, scheme)
    _check_apart(found, schemes)
    classes = {scheme.num_classes for scheme in schemes.values()}
    if num_classes is not None:
        classes.add(num_classes)
    if len(classes) > 1:
        numbers = " and ".join(map(str, sorted(classes)))
        raise InputError(
            f"the schemes and the data disagree about the number of classes K: {numbers}; row k of every scheme is "
            "class k"
        )
    return CodedNetwork(
        found.stages,
        found.num_subnns,
        _in_order(found, schemes),
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
    """Assign schemes to the stages of an architecture.

    Schemes with the architecture's usual ratios code the stages of these ratios, which must then all get a scheme.
    Schemes of other ratios code the last stages, the larger ratio first (section 3.2.1); the other stages are plain.

    Args:
        preset: name of the architecture.
        schemes: any number of schemes.
        stages: one place per scheme, instead of the choice by ratio: a stage ("s3") or blocks of one ("s3.1-3").
        uncoded_stages: stages that stay plain, though a scheme has their ratio or they would be among the last.
        sibling: function of (stage, ratio), called for every coded stage without a scheme; returns a scheme or None.

    Returns:
        Place -> scheme, in the order of the blocks.

    Raises:
        InputError: another N than the preset's, different K, two schemes for one block, more schemes than stages to
            code, an unknown stage or block, a coded stage without a scheme, or a scheme whose stages are all to stay
            plain.
    """
    found = get_preset(preset)
    uncoded = set(uncoded_stages)
    for stage in uncoded:
        _check_place(preset, found, stage)
        if stage not in found.stages:
            raise InputError(f"`uncoded_stages` takes whole stages, got {stage}; name the blocks to code in `stages`")
    if stages is not None and len(stages) != len(schemes):
        raise InputError(f"`stages` names {len(stages)} stages for {len(schemes)} schemes; name one stage per scheme")
    usual = stages is not None or all(scheme.ratio in found.ratios.values() for scheme in schemes)
    if stages is not None:
        pairs = list(zip(stages, schemes, strict=True))
    elif usual:
        pairs = [
            (stage, scheme)
            for scheme in schemes
            for stage, r in found.ratios.items()
            if r == scheme.ratio and stage not in uncoded
        ]
        idle = next((scheme for scheme in schemes if not any(scheme is own for _, own in pairs)), None)
        if idle is not None:
            raise InputError(
                f"the scheme of ratio {idle.act}/{idle.length} codes no stage: `uncoded_stages` leaves all stages of "
                "this ratio plain; give no such scheme, or name fewer stages"
            )
    else:
        pairs = _last_stages(preset, found, schemes, uncoded)
    assigned: dict[str, CodingScheme] = {}
    for place, scheme in pairs:
        _check_fits(preset, found, place, scheme)
        if parse_place(place).stage in uncoded:
            raise InputError(f"{place} has a scheme by `stages`, and is to stay plain by `uncoded_stages`")
        if place in assigned:
            raise InputError(f"two schemes are given for stage {place}; name the stage of each in `stages`")
        assigned[place] = scheme
    _check_apart(found, assigned)
    coded = {parse_place(place).stage for place in assigned}
    for stage, ratio in found.ratios.items() if usual else ():
        if stage in coded or stage in uncoded:
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
        counts = ", ".join(f"{place}: K={scheme.num_classes}" for place, scheme in assigned.items())
        raise InputError(f"the schemes have different numbers of classes ({counts}); row k of every scheme is class k")
    return _in_order(found, assigned)


def _last_stages(
    preset: str, found: Preset, schemes: Sequence[CodingScheme], uncoded: Collection[str]
) -> list[tuple[str, CodingScheme]]:
    """Pair schemes with the last stages to be coded, the larger ratio first; stages of one usual ratio share one."""
    for scheme in schemes:
        _check_length(preset, found, scheme)
    if not found.ratios:
        raise InputError(
            f"{preset} is a plain control: no stage of it is coded by itself; take `preset` coded_{preset}, or name "
            f"the stage of each scheme in `stages` ({', '.join(found.stages)})"
        )
    first_coded = min(list(found.stages).index(stage) for stage in found.ratios)
    # Only these stages of MobileNetV2 have widths that are multiples of N.
    before = [] if found.head_channels else [[stage] for stage in list(found.stages)[:first_coded]]
    groups: dict[Fraction, list[str]] = {}
    for stage, ratio in found.ratios.items():
        groups.setdefault(ratio, []).append(stage)
    left = [[stage for stage in part if stage not in uncoded] for part in (*before, *groups.values())]
    parts = [part for part in left if part]
    if len(schemes) > len(parts):
        raise InputError(f"{len(schemes)} schemes are given, and {preset} has {len(parts)} parts to code; give fewer")
    ordered = sorted(schemes, key=lambda scheme: scheme.ratio, reverse=True)
    chosen = zip(parts[len(parts) - len(schemes) :], ordered, strict=True)
    return [(stage, scheme) for part, scheme in chosen for stage in part]


def _in_order(found: Preset, schemes: Mapping[str, CodingScheme]) -> dict[str, CodingScheme]:
    stages = list(found.stages)

    def position(place: str) -> tuple[int, int]:
        parsed = parse_place(place)
        return stages.index(parsed.stage), parsed.first or 0

    return {place: schemes[place] for place in sorted(schemes, key=position)}


def _check_place(preset: str, found: Preset, text: str) -> None:
    place = parse_place(text)
    if place.stage not in found.stages:
        raise InputError(f"{preset} has no stage {place.stage!r}; its stages are {', '.join(found.stages)}")
    if place.first is not None and place.last is not None:
        num_blocks = found.stages[place.stage].num_blocks
        if not 1 <= place.first <= place.last <= num_blocks:
            raise InputError(
                f"{preset} has no blocks {text!r}: stage {place.stage} has blocks {place.stage}.1 to "
                f"{place.stage}.{num_blocks}; write a range as {place.stage}.1-{num_blocks}"
            )


def _check_apart(found: Preset, places: Iterable[str]) -> None:
    """Raise InputError if two places have a block in common."""
    parsed = [(place, parse_place(place)) for place in places]
    for stage, row in found.stages.items():
        for number in range(1, row.num_blocks + 1):
            here = [text for text, place in parsed if place.has(stage, number)]
            if len(here) > 1:
                raise InputError(f"two schemes are given for block {stage}.{number}: those of {' and '.join(here)}")


def _check_fits(preset: str, found: Preset, place: str, scheme: CodingScheme) -> None:
    _check_place(preset, found, place)
    _check_length(preset, found, scheme)


def _check_length(preset: str, found: Preset, scheme: CodingScheme) -> None:
    if scheme.length != found.num_subnns:
        raise InputError(
            f"{preset} has N={found.num_subnns} subNNs per block, this scheme has N={scheme.length}; "
            "choose another `preset` or another scheme"
        )


def _ratio(ratio: Fraction, num_subnns: int) -> str:
    return f"{ratio * num_subnns}/{num_subnns}"
