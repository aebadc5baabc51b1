"""Checks of the numbers that describe codewords; every message names the function's argument and the value."""

from __future__ import annotations

import operator

from codedtool.coding.words import MAX_LENGTH
from codedtool.errors import InputError


def whole(name: str, value: int) -> int:
    """``value`` as an int; InputError that names the argument ``name`` if it is no whole number."""
    try:
        if isinstance(value, bool):
            raise TypeError
        return operator.index(value)
    except TypeError:
        raise InputError(f"`{name}` must be a whole number, got {value!r}") from None


def checked_num_classes(num_classes: int, least: int = 2) -> int:
    """K as an int; InputError below ``least``."""
    num_classes = whole("num_classes", num_classes)
    if num_classes < least:
        raise InputError(f"`num_classes` must be at least {least}, got {num_classes}")
    return num_classes


def checked_length_and_act(length: int, act: int) -> tuple[int, int]:
    """N and N_act as ints; InputError unless 2 <= N <= 64 and 0 < N_act < N."""
    length, act = whole("length", length), whole("act", act)
    if not 2 <= length <= MAX_LENGTH:
        raise InputError(
            f"`length` must be between 2 and {MAX_LENGTH}, got {length}: a codeword is held in {MAX_LENGTH} bits"
        )
    if not 1 <= act < length:
        raise InputError(f"`act` must be between 1 and N-1={length - 1}, got {act}")
    return length, act


def checked_distance(min_distance: int) -> int:
    """H_min as an even int (an odd value means the even one above it); InputError below 2."""
    min_distance = whole("min_distance", min_distance)
    if min_distance < 2:
        raise InputError(
            f"`min_distance` must be at least 2 (distinct words of one weight differ in two digits), got {min_distance}"
        )
    return min_distance + min_distance % 2
