"""Choosing a preset and the coding scheme of each of its stages from scheme files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from codedtool.coding.orders.pairing import joint_distance_histogram
from codedtool.coding.scheme import CodingScheme
from codedtool.coding.shipped import scheme_path, shown_path
from codedtool.errors import InputError
from codedtool.models.presets import PRESETS, assign_schemes, get_preset, preset_for

# Data sets of small images get the small network if the scheme fits it.
_SMALL_DATA = ("digits", "synthetic")
_SMALL_PRESET = "coded_resnext_tiny"


@dataclass(frozen=True)
class Assignment:
    """A preset and the schemes of its stages.

    Attributes:
        preset: name of the architecture.
        schemes: stage -> its coding scheme.
        sources: stage -> the file of its scheme.
        siblings: stages whose scheme was not given, but found beside a given one (among the shipped ones for a name).
        num_classes: K.
    """

    preset: str
    schemes: dict[str, CodingScheme]
    sources: dict[str, Path]
    siblings: frozenset[str]
    num_classes: int

    def lines(self) -> list[str]:
        """Describe the assignment for people: the preset, then one line per stage."""
        lines = [f"{self.preset}, K={self.num_classes}"]
        for stage in get_preset(self.preset).stages:
            if stage in self.schemes:
                scheme = self.schemes[stage]
                found = ", the sibling of the given scheme" if stage in self.siblings else ""
                lines.append(f"  {stage}  r = {scheme.act}/{scheme.length}  {shown_path(self.sources[stage])}{found}")
            else:
                lines.append(f"  {stage}  r = 1")
        return lines

    def provenance(self) -> dict[str, Any]:
        """Return the file of every stage's scheme, as plain JSON types."""
        return {"sources": {stage: shown_path(path) for stage, path in self.sources.items()}}


def assign(
    paths: Sequence[Path],
    *,
    preset: str | None = None,
    data: str | None = None,
    stages: Sequence[str] | None = None,
    uncoded_stages: Sequence[str] = (),
) -> Assignment:
    """Read scheme files and give every coded stage a scheme; stages without one get a sibling from the same folder.

    Args:
        paths: scheme files, or names of shipped schemes; each codes the stages of its ratio, or the stage at its place
            in ``stages``.
        preset: name of the architecture; None: the one that the first scheme fits (the tiny one for small images).
        data: name of the data set, if known.
        stages: one stage name per path.
        uncoded_stages: stages that stay plain.

    Raises:
        InputError: neither scheme nor preset, a file that is no scheme, or a scheme that does not fit.
    """
    given = [(CodingScheme.load(path), path) for path in map(scheme_path, paths)]
    if preset is None:
        preset = _preset_of([scheme for scheme, _ in given], data)
    if not given and get_preset(preset).ratios and set(get_preset(preset).ratios) - set(uncoded_stages):
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

    schemes = assign_schemes(
        preset, [scheme for scheme, _ in given], stages=stages, uncoded_stages=uncoded_stages, sibling=sibling
    )
    sources = dict(found)
    for stage, scheme in schemes.items():
        if stage not in found:
            sources[stage] = next(path for own, path in given if own is scheme)
    num_classes = given[0][0].num_classes if given else get_preset(preset).num_classes
    return Assignment(preset, schemes, {stage: sources[stage] for stage in schemes}, frozenset(found), num_classes)


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
    if named != path and named.is_file():
        other = CodingScheme.load(named)
        if _shape(other) == (scheme.num_classes, scheme.length, act):
            return other, named
    matches = []
    for candidate in sorted(path.parent.glob("*.npy")):
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


def _preset_of(schemes: Sequence[CodingScheme], data: str | None) -> str:
    if not schemes:
        plain = ", ".join(name for name, preset in PRESETS.items() if not preset.ratios)
        raise InputError(f"give a scheme (a .npy file), or for a plain network one of these as `preset`: {plain}")
    small = data is not None and data.partition(":")[0] in _SMALL_DATA
    if small and schemes[0].length == get_preset(_SMALL_PRESET).num_subnns:
        return _SMALL_PRESET
    return preset_for(schemes[0])
