"""The exceptions users can meet, each with the exit code of SPEC section 5.

A message puts the name of a function's argument between backquotes: "`num_classes` must be at least 2, got 1". A caller
of the library reads the name as it is; the command line writes the flag that sets the argument in its place ("--K").
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

_ARGUMENT = re.compile(r"`(\w+)`")


class CodedtoolError(Exception):
    """Base class of the errors that the command line shows as one message without a traceback."""

    exit_code = 2

    @property
    def arguments(self) -> tuple[str, ...]:
        """Names of the arguments that the message speaks of, in the message's order."""
        return tuple(_ARGUMENT.findall(str(self)))


class InputError(CodedtoolError, ValueError):
    """Bad input: the message names the argument or file, the rule, the value and the fix. Exit code 2."""

    exit_code = 2


class InfeasibleError(CodedtoolError):
    """The thing asked for cannot exist, or was not found within the budget. Exit code 3."""

    exit_code = 3


class OutOfMemoryError(CodedtoolError):
    """Memory does not suffice for the work; the message has the figures or the fix. Exit code 3."""

    exit_code = 3


def library_without_memory(error: BaseException) -> OutOfMemoryError | None:
    """The error for people if ``error`` says that a library found no memory to be loaded into; None otherwise.

    The dynamic loader fails so under a limit on the address space (ulimit -v). What the loader says reaches Python as
    the text of an ImportError.
    """
    text = str(error)
    lacks = any(sign in text for sign in ("failed to map segment", "Cannot allocate memory", "cannot allocate memory"))
    if not isinstance(error, ImportError | OSError) or not lacks:
        return None
    return OutOfMemoryError(
        f"memory does not suffice to load a library ({text}); free memory, or raise the limit on the address space "
        "(ulimit -v)"
    )


@dataclass(frozen=True)
class Failure:
    """One part of a larger work that failed while the rest was done.

    Attributes:
        part: name of the part.
        reason: message of the error.
        exit_code: exit code that the error alone would give.
        traceback: where a bug (exit code 1) happened; "" for the errors of this module.
    """

    part: str
    reason: str
    exit_code: int
    traceback: str = ""

    @classmethod
    def of(cls, part: str, error: Exception) -> Failure:
        """The failure of ``part`` with the exception that ended it; to be called where the exception is handled."""
        if isinstance(error, CodedtoolError):
            return cls(part, str(error), error.exit_code)
        return cls(part, f"a bug: {type(error).__name__}: {error}", 1, traceback.format_exc())

    def __str__(self) -> str:
        return f"{self.part}: {self.reason}"

    def to_json(self) -> dict[str, Any]:
        """The failure in JSON's types; without a traceback where there is none."""
        return {key: value for key, value in asdict(self).items() if value != ""}


def replace_arguments(message: str, spell: Callable[[str], str]) -> str:
    """``message`` with every argument name between backquotes replaced by ``spell(name)``."""
    return _ARGUMENT.sub(lambda found: spell(found[1]), message)
