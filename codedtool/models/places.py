"""Places of schemes in a network: a whole stage ("s3"), one block of it ("s3.2"), or a range ("s3.1-3")."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from codedtool.coding.scheme import CodingScheme

_PLACE = re.compile(r"([^.]+)(?:\.(\d+)(?:-(\d+))?)?")


class Place(NamedTuple):
    """Consecutive blocks of one stage.

    Attributes:
        stage: name of the stage.
        first, last: first and last block, from 1; both None for the whole stage.
    """

    stage: str
    first: int | None
    last: int | None

    def has(self, stage: str, number: int) -> bool:
        """Whether block ``number`` (from 1) of ``stage`` belongs to the place."""
        if self.first is None or self.last is None:
            return self.stage == stage
        return self.stage == stage and self.first <= number <= self.last


def parse_place(text: str) -> Place:
    """Read a place; a text of another form is taken for the name of a stage.

    Example:
        >>> parse_place("s3.1-3"), parse_place("s3.2").last, parse_place("s3").first
        (Place(stage='s3', first=1, last=3), 2, None)
    """
    found = _PLACE.fullmatch(text)
    if found is None:
        return Place(text, None, None)
    first = None if found[2] is None else int(found[2])
    return Place(found[1], first, first if found[3] is None else int(found[3]))


def scheme_at(schemes: Mapping[str, CodingScheme], stage: str, number: int) -> CodingScheme | None:
    """Find the scheme of block ``number`` (from 1) of a stage among those of places; None: the block is plain."""
    return next((scheme for place, scheme in schemes.items() if parse_place(place).has(stage, number)), None)
