"""Choose an architecture, and the coding scheme of each of its stages, from scheme files and the size of images."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import comb
from pathlib import Path
from typing import Any

import numpy as np

from codedtool.coding.orders.pairing import joint_distance_histogram
from codedtool.coding.scheme import CodingScheme
from codedtool.coding.shipped import scheme_path, shipped_folder, shown_path
from codedtool.errors import InputError
from codedtool.files import files_ending, is_file
from codedtool.models.families import Choice, choose_network, usual_size
from codedtool.models.places import parse_place
from codedtool.models.presets import assign_schemes, get_preset


@dataclass(frozen=True)
class Partner:
    """A scheme that does not exist yet and would code the stages beside those of a scheme that was given alone.

    Attributes:
        num_classes, length, act: K, N and N_act of the scheme to be made.
        given: the file of the given scheme, for which the rows are to be ordered.
        out: the file to write.
    """

    num_classes: int
    length: int
    act: int
    given: Path
    out: Path


@dataclass(frozen=True)
class Assignment:
    """A preset and the schemes of its stages.

    Attributes:
        preset: name of the architecture.
        schemes: place -> its coding scheme; a place is a stage ("s3") or blocks of one ("s3.1-3").
        sources: place -> the file of its scheme.
        siblings: stages whose scheme was not given, but found beside a given one (among the shipped ones for a name).
        num_classes: K.
        reason: why this preset was chosen; empty if it was given.
        partner: of a scheme that was given alone and found no sibling: the scheme that belongs with it.
    """

    preset: str
    schemes: dict[str, CodingScheme]
    sources: dict[str, Path]
    siblings: frozenset[str]
    num_classes: int
    reason: str = ""
    partner: Partner | None = None

    def lines(self) -> list[str]:
        """Describe the assignment for people: the preset with the reason for it, then one line per stage."""
        reason = f", chosen {self.reason}" if self.reason else ""
        lines = [f"{self.preset}, K={self.num_classes}{reason}"]
        for stage, row in get_preset(self.preset).stages.items():
            places = {place: parse_place(place) for place in self.schemes if parse_place(place).stage == stage}
            for place in places:
                scheme = self.schemes[place]
                found = ", the sibling of the given scheme" if place in self.siblings else ""
                lines.append(f"  {place}  r = {scheme.act}/{scheme.length}  {shown_path(self.sources[place])}{found}")
            plain = [
                number
                for number in range(1, row.num_blocks + 1)
                if not any(place.has(stage, number) for place in places.values())
            ]
            if len(plain) == row.num_blocks:
                lines.append(f"  {stage}  r = 1")
            else:
                lines += [f"  {stage}.{number}  r = 1" for number in plain]
        if self.partner is not None:
            coded = " and ".join(self.schemes)
            lines.append(f"  one scheme alone: it codes {coded}; the other stages are plain")
        return lines

    def provenance(self) -> dict[str, Any]:
        """Return the file of every stage's scheme, as plain JSON types."""
        return {"sources": {stage: shown_path(path) for stage, path in self.sources.items()}}


def assign(
    paths: Sequence[Path],
    *,
    preset: str | None = None,
    image_size: int | None = None,
    stages: Sequence[str] | None = None,
    uncoded_stages: Sequence[str] = (),
) -> Assignment:
    """Read scheme files and give every coded stage a scheme; stages without one get a sibling from the same folder.

    One scheme alone may leave the other stages plain; `Assignment.partner` then describes the scheme that is missing.

    Args:
        paths: scheme files, or names of shipped schemes; `assign_schemes` says which stages each of them codes.
        preset: name of the architecture; None: the one that fits the first scheme's N and the images.
        image_size: side of the images in pixels, for the choice of a preset; None: that of the paper's
            data set with about K classes.
        stages: one place per path: a stage ("s3") or blocks of one ("s3.1-3").
        uncoded_stages: stages that stay plain.

    Raises:
        InputError: neither scheme nor preset, a file that is no scheme, or a scheme that does not fit.
    """
    given = [(CodingScheme.load(path), path) for path in map(scheme_path, paths)]
    reason = ""
    if preset is None:
        preset, reason = _choose([scheme for scheme, _ in given], image_size)
    ratios = get_preset(preset).ratios
    if not given and set(ratios) - set(uncoded_stages):
        raise InputError(
            f"`preset` {preset} has coded stages and no scheme was given: give a scheme, or `preset` "
            f"{preset.removeprefix('coded_')} for the plain control"
        )
    found: dict[str, Path] = {}

    def sibling(stage: str, ratio: Fraction) -> CodingScheme | None:
        for scheme, path in given:
            match = find_sibling(scheme, path, ratio)
            if match is not None:
                found[stage] = match[1]
                return match[0]
        return None

    plain = set(uncoded_stages)
    partner = None
    if len(given) == 1 and stages is None and not plain and ratios:
        # Stages for which there is no scheme stay plain. Their usual ratio is the partner's.
        scheme, path = given[0]
        missing = [r for r in dict.fromkeys(ratios.values()) if r != scheme.ratio and not find_sibling(scheme, path, r)]
        if scheme.ratio not in ratios.values():
            partner = _partner(scheme, path, _other_act(scheme))
        elif missing:
            plain = {stage for stage, ratio in ratios.items() if ratio in missing}
            partner = _partner(scheme, path, int(missing[0] * scheme.length))
    schemes = assign_schemes(
        preset, [scheme for scheme, _ in given], stages=stages, uncoded_stages=plain, sibling=sibling
    )
    sources = dict(found)
    for place, scheme in schemes.items():
        if place not in found:
            sources[place] = next(path for own, path in given if own is scheme)
    num_classes = given[0][0].num_classes if given else get_preset(preset).num_classes
    return Assignment(
        preset,
        schemes,
        {place: sources[place] for place in schemes},
        frozenset(found),
        num_classes,
        reason,
        partner,
    )


def _other_act(scheme: CodingScheme) -> int:
    """N_act of a partner: twice that of a scheme nearer to r = 1/4, and half that of one nearer to r = 1/2."""
    act, length = scheme.act, scheme.length
    return 2 * act if 8 * act * act <= length * length else (act + 1) // 2


def _partner(scheme: CodingScheme, path: Path, act: int) -> Partner:
    """Describe the partner of a scheme; its N_act is raised until there are K codewords."""
    while comb(scheme.length, act) < scheme.num_classes and act < scheme.length // 2:
        act += 1
    # The distance in the name of a file is that of the given scheme.
    stem = re.sub(r"_h\d+$", "", path.stem)
    own = f"{scheme.act}of{scheme.length}"
    name = stem.replace(own, f"{act}of{scheme.length}") if own in stem else f"{stem}_{act}of{scheme.length}"
    folder = Path("schemes") if path.parent == shipped_folder() else path.parent
    return Partner(scheme.num_classes, scheme.length, act, Path(shown_path(path)), folder / f"{name}.npy")


def permuted(schemes: Mapping[str, CodingScheme], seed: int) -> dict[str, CodingScheme]:
    """Reorder the rows and columns of schemes at random (section 3.2.1).

    Column sums and distances stay the same. One order of the rows serves all stages, so the joint distances of a
    class's codewords in several stages stay the same too. Each distinct scheme gets its own order of columns.

    Args:
        schemes: stage -> scheme.
        seed: seed of the orders; 0: no reordering.
    """
    if not seed or not schemes:
        return dict(schemes)
    rng = np.random.default_rng(seed)
    rows = rng.permutation(next(iter(schemes.values())).num_classes)
    orders = {scheme: rng.permutation(scheme.length) for scheme in dict.fromkeys(schemes.values())}
    return {stage: CodingScheme(scheme.table[rows][:, orders[scheme]]) for stage, scheme in schemes.items()}


def find_sibling(scheme: CodingScheme, path: Path, ratio: Fraction) -> tuple[CodingScheme, Path] | None:
    """Find a scheme of another ratio with the same K and N in the folder of ``path``.

    The file whose name differs only in the ratio (c100_8of20 beside c100_4of20) comes first. Of several other files,
    the one with the largest joint minimum distance to ``scheme`` is taken, because its rows were ordered for it.

    Args:
        scheme, path: the given scheme and its file.
        ratio: N_act / N of the wanted scheme.

    Returns:
        The scheme and its file; None if there is none.

    Raises:
        InputError: several fit equally well.
    """
    act = int(ratio * scheme.length)
    named = path.with_name(path.name.replace(f"{scheme.act}of{scheme.length}", f"{act}of{scheme.length}"))
    if named != path and is_file(named):
        other = CodingScheme.load(named)
        if _shape(other) == (scheme.num_classes, scheme.length, act):
            return other, named
    matches = []
    for candidate in files_ending(path.parent, ".npy"):
        try:
            other = CodingScheme.load(candidate)
        except InputError:
            continue  # not a scheme
        if _shape(other) == (scheme.num_classes, scheme.length, act):
            matches.append((other, candidate))
    if len(matches) > 1:
        # Sort by the joint minimum distance, then by how few pairs of classes have it.
        closeness = [next(iter(joint_distance_histogram([scheme, other]).items())) for other, _ in matches]
        best = max(closeness, key=lambda pair: (pair[0], -pair[1]))
        matches = [match for match, pair in zip(matches, closeness, strict=True) if pair == best]
    if len(matches) > 1:
        names = ", ".join(str(candidate) for _, candidate in matches)
        raise InputError(
            f"several schemes of ratio {act}/{scheme.length} lie beside {path} ({names}); give one of them too"
        )
    return matches[0] if matches else None


def _shape(scheme: CodingScheme) -> tuple[int, int, int]:
    return scheme.num_classes, scheme.length, scheme.act


def _choose(schemes: Sequence[CodingScheme], image_size: int | None) -> Choice:
    if not schemes:
        raise InputError(
            "give a scheme (a .npy file), or for a plain network its name as `preset`, such as resnext29_10x11d "
            "(codedtool networks lists them)"
        )
    return choose_network(schemes[0].length, image_size or usual_size(schemes[0].num_classes))
