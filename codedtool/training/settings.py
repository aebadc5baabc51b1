"""One value of a recipe: its type, bounds, choices and help, declared beside the value itself; and files of values."""

from __future__ import annotations

import difflib
import math
import tomllib
import warnings
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codedtool.errors import InputError
from codedtool.files import FileError, read_text

# Larger whole numbers fit neither a float's range nor a tensor, and Python may refuse to print them.
_LARGEST = 2**63 - 1

_KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


class SettingIgnored(UserWarning):
    """A setting that was given has no effect; the message says why."""


@dataclass(frozen=True)
class Setting:
    """Everything known about one value of a recipe except its default.

    Attributes:
        help: one line for people.
        low, high: smallest and largest allowed number, both allowed themselves.
        choices: allowed texts; empty: any text.
        decides_result: whether the value can change the trained weights. Such a value cannot change when a run is
            resumed.
        kind: int, float, bool or str; filled in by `codedtool.training.recipe.settings`.
        section: name of the recipe's section; filled in by `codedtool.training.recipe.settings`.
    """

    help: str
    low: float = -math.inf
    high: float = math.inf
    choices: tuple[str, ...] = ()
    decides_result: bool = True
    kind: type = str
    section: str = ""

    def checked(self, key: str, value: Any) -> Any:
        """Return ``value`` if it is allowed; an int becomes a float where a float belongs, nothing else is converted.

        Args:
            key: name of the setting, for the message.

        Raises:
            InputError: another type, a number that is not finite or out of bounds, or a text that is no choice.
        """
        if type(value) is int and abs(value) > _LARGEST:
            raise InputError(f"`{key}` must be within ±2^63, got a number of {value.bit_length()} binary digits")
        if self.kind is float and type(value) is int:
            value = float(value)
        if type(value) is not self.kind:
            raise InputError(f"`{key}` must be {_KINDS[self.kind]}, got {value!r}")
        if isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"`{key}` must be finite, got {value!r}")
        if self.choices and value not in self.choices:
            raise InputError(f"`{key}` must be one of {', '.join(self.choices)}, got {value!r}")
        if isinstance(value, int | float) and not self.low <= value <= self.high:
            limit = f"{self.low:g} to {self.high:g}" if self.high < math.inf else f"at least {self.low:g}"
            raise InputError(f"`{key}` must be {limit}, got {value!r}")
        return value


def ignored(message: str) -> None:
    """Warn that a setting has no effect."""
    warnings.warn(message, SettingIgnored, stacklevel=3)


def check_key(key: str, known: Collection[str], *, what: str = "setting") -> None:
    """Raise InputError unless ``key`` is among ``known``; the message names the nearest known key.

    Args:
        what: noun that stands before the key in the message.
    """
    if key not in known:
        near = difflib.get_close_matches(key, list(known), n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
        raise InputError(f"{what} {key!r} is unknown; {hint}")


def read_config(path: Path, keys: Collection[str]) -> dict[str, Any]:
    """Read a TOML file of settings; in its keys ``-`` and ``_`` mean the same.

    Args:
        keys: the allowed keys, with ``_``.

    Raises:
        InputError: no such file, not TOML, an unknown key (the message names the nearest one), or a table as a value.
    """
    try:
        values = tomllib.loads(read_text(path))
    except FileError:
        raise
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not a TOML file ({error})") from None
    found = {}
    for key, value in values.items():
        name = key.replace("-", "_")
        check_key(name, keys, what=f"{path}: key")
        if isinstance(value, dict):
            raise InputError(f"{path}: key {key!r} must be a value, not a table; all keys stand at the top level")
        found[name] = value
    return found
