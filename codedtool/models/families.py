"""Names of architectures: the families, the parser of names, and the network that fits given images; without torch."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from codedtool.errors import InputError

StemKind = Literal["cifar", "imagenet", "mobilenet", "mobilenet-cifar"]

# The lengths of codewords that a scheme may have.
MIN_SUBNNS, MAX_SUBNNS = 2, 64

# Largest side of an image, in pixels, for the tiny network, and for other networks whose stem has stride 1.
_TINY_PIXELS, _SMALL_PIXELS = 16, 64


@dataclass(frozen=True)
class Family:
    """ResNeXts that differ only in N and d. From each stage to the next, C_out and the bottleneck channels double.

    Attributes:
        blocks: number of blocks, stage by stage.
        out_channels: C_out of the first stage.
        strides: stride of the first block, stage by stage.
        stem, stem_channels: as for `CodedNetwork`.
        reference: N and d of the network whose blocks set the number of parameters for every other N.
        description: what the family is for, in a few words.
    """

    blocks: tuple[int, ...]
    out_channels: int
    strides: tuple[int, ...]
    stem: StemKind
    stem_channels: int
    reference: tuple[int, int]
    description: str


TINY = "resnext_tiny"
MOBILENET = "mobilenetv2"

# Table 1 has resnext29 and resnext50. The number in a name counts the layers.
FAMILIES: Mapping[str, Family] = {
    "resnext29": Family((3, 3, 3), 256, (1, 2, 2), "cifar", 64, (32, 4), "the paper's for CIFAR"),
    "resnext50": Family((3, 4, 6, 3), 256, (1, 2, 2, 2), "imagenet", 64, (32, 4), "the paper's for ImageNet"),
    "resnext101": Family((3, 4, 23, 3), 256, (1, 2, 2, 2), "imagenet", 64, (32, 4), "the larger ResNeXt for ImageNet"),
    "resnext17": Family((1, 2, 2), 128, (2, 2, 2), "cifar", 32, (10, 8), "for CIFAR on two CPU cores"),
    "resnext23": Family((1, 3, 3), 64, (2, 2, 2), "cifar", 16, (10, 3), "the smallest for CIFAR on a CPU"),
    TINY: Family((1, 2, 2), 32, (1, 2, 1), "cifar", 16, (10, 2), "for images of up to 16 pixels"),
}

# Form of the names -> examples; each example has a plain control without "coded_".
FORMS: Mapping[str, tuple[str, ...]] = {
    "coded_resnext29_{N}x{d}d": ("coded_resnext29_10x11d", "coded_resnext29_20x6d", "coded_resnext29_16x8d"),
    "coded_resnext50_{N}x{d}d": ("coded_resnext50_32x4d", "coded_resnext50_24x5d", "coded_resnext50_16x8d"),
    "coded_resnext101_{N}x{d}d": ("coded_resnext101_32x8d",),
    "coded_resnext17_{N}x{d}d": ("coded_resnext17_10x8d",),
    "coded_resnext23_{N}x{d}d": ("coded_resnext23_10x3d",),
    "coded_mobilenetv2_{N}": ("coded_mobilenetv2_10", "coded_mobilenetv2_20", "coded_mobilenetv2_32"),
    "coded_resnext_tiny_{N}": ("coded_resnext_tiny", "coded_resnext_tiny_16"),
}

EXAMPLES: tuple[str, ...] = tuple(
    name for examples in FORMS.values() for coded in examples for name in (coded, coded.removeprefix("coded_"))
)

_WITH_WIDTH = re.compile(r"(coded_)?(resnext\d+)_([1-9]\d*)x([1-9]\d*)d")
_WITHOUT_WIDTH = re.compile(rf"(coded_)?({TINY}|{MOBILENET})_([1-9]\d*)")


class Architecture(NamedTuple):
    """The parts of an architecture's name.

    Attributes:
        family: key of `FAMILIES`, or `MOBILENET`.
        num_subnns: N.
        subnn_channels: d of the first stage; 0 for `MOBILENET`, whose widths do not depend on it.
        coded: whether the last stages are to be coded; False for a plain control.
    """

    family: str
    num_subnns: int
    subnn_channels: int
    coded: bool

    @property
    def for_photos(self) -> bool:
        """Whether the stem reduces the images, as those of ImageNet need it.

        MobileNetV2 reduces them from N = 32 on, which is the paper's N for ImageNet.
        """
        if self.family == MOBILENET:
            return self.num_subnns >= 32
        return FAMILIES[self.family].stem == "imagenet"

    @property
    def pixels(self) -> tuple[int, int | None]:
        """Smallest and largest side of the images that the network is for, in pixels; None: no upper limit."""
        if self.for_photos:
            return _SMALL_PIXELS + 1, None
        return (1, _TINY_PIXELS) if self.family == TINY else (_TINY_PIXELS + 1, _SMALL_PIXELS)

    @property
    def num_classes(self) -> int:
        """K of the paper's data set for such a network: 1000 for photos, else 100 from N = 20 on, else 10."""
        if self.for_photos:
            return 1000
        return 100 if self.num_subnns >= 20 else 10


def parse_name(name: str) -> Architecture:
    """Read an architecture's name.

    Raises:
        InputError: the name has none of the forms, or N is not from 2 to 64; the message names the nearest name.

    Example:
        >>> parse_name("coded_resnext29_16x8d")
        Architecture(family='resnext29', num_subnns=16, subnn_channels=8, coded=True)
        >>> parse_name("resnext_tiny") == parse_name("resnext_tiny_10")
        True
    """
    # The first network had no N in its name.
    full = f"{name}_10" if name.removeprefix("coded_") == TINY else name
    found = _WITH_WIDTH.fullmatch(full) or _WITHOUT_WIDTH.fullmatch(full)
    if found is None or found[2] not in {*FAMILIES, MOBILENET}:
        near = difflib.get_close_matches(name, EXAMPLES, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise InputError(
            f"`preset` {name!r} is unknown; {hint}Known forms: {', '.join(FORMS)}, with N subNNs of d channels; "
            "without coded_ they are the plain controls"
        )
    num_subnns = int(found[3])
    if not MIN_SUBNNS <= num_subnns <= MAX_SUBNNS:
        raise InputError(f"`preset` {name!r}: the number of subNNs N must be {MIN_SUBNNS} to {MAX_SUBNNS}")
    width = 0
    if found[2] != MOBILENET:
        width = width_for(found[2], num_subnns) if found[2] == TINY else int(found[4])
    return Architecture(found[2], num_subnns, width, found[1] is not None)


def default_acts(num_subnns: int) -> tuple[int, int]:
    """N_act of the two coded parts of a network: about N/2, and about N/4 in the deeper one (table 1).

    Example:
        >>> [default_acts(N) for N in (10, 16, 20, 32)]
        [(5, 3), (8, 4), (8, 4), (16, 8)]
    """
    # The paper takes 8/20, not 10/20.
    return (8, 4) if num_subnns == 20 else ((num_subnns + 1) // 2, (num_subnns + 3) // 4)


def width_for(family: str, num_subnns: int) -> int:
    """Find the d at which a family's blocks have about as many parameters as those of its reference (section 3.2.2).

    Args:
        family: key of `FAMILIES`.
        num_subnns: N.

    Example:
        >>> [width_for("resnext29", N) for N in (10, 16, 20, 24, 32)]
        [11, 8, 6, 5, 4]
    """
    out_channels = FAMILIES[family].out_channels

    def parameters(subnns: int, width: int) -> int:
        # The two 1x1 convolutions and the grouped 3x3 convolution. All stages scale alike.
        return subnns * width * (2 * out_channels + 9 * width)

    wanted = parameters(*FAMILIES[family].reference)
    return min(range(1, 513), key=lambda width: abs(parameters(num_subnns, width) - wanted))


class Choice(NamedTuple):
    """A network chosen for images.

    Attributes:
        preset: name of the architecture.
        reason: one line on why.
    """

    preset: str
    reason: str


def usual_size(num_classes: int) -> int:
    """Side in pixels of the images of the paper's data set with about K classes: 224 from K = 1000 on, else 32."""
    return 224 if num_classes >= 1000 else 32


def choose_network(num_subnns: int, image_size: int) -> Choice:
    """Choose the coded network for images of a size and schemes of a length.

    A stem of stride 1 keeps the whole image in the first stage, whose memory grows with the number of pixels. So it
    is taken up to 64 pixels only.

    Args:
        num_subnns: N, the length of the codewords.
        image_size: side of the images, in pixels.

    Example:
        >>> choose_network(10, 32).preset, choose_network(20, 32).preset, choose_network(32, 224).preset
        ('coded_resnext29_10x11d', 'coded_resnext29_20x6d', 'coded_resnext50_32x4d')
    """
    if image_size <= _TINY_PIXELS:
        name = f"coded_{TINY}" if num_subnns == FAMILIES[TINY].reference[0] else f"coded_{TINY}_{num_subnns}"
        limit = f"up to {_TINY_PIXELS}: the tiny network"
        return Choice(name, f"for images of {image_size} pixels ({limit}) and N = {num_subnns}")
    family, limit = "resnext29", f"up to {_SMALL_PIXELS}: a stem of stride 1"
    if image_size > _SMALL_PIXELS:
        family, limit = "resnext50", f"above {_SMALL_PIXELS}: a stem that reduces them"
    width = width_for(family, num_subnns)
    subnns, reference = FAMILIES[family].reference
    same = f"d = {width} gives blocks about the parameters of {subnns}x{reference}d"
    return Choice(
        f"coded_{family}_{num_subnns}x{width}d",
        f"for images of {image_size} pixels ({limit}) and N = {num_subnns}; {same} (section 3.2.2)",
    )
