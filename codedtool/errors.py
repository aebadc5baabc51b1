"""The exceptions users can meet, each with the exit code of SPEC section 5."""

from __future__ import annotations


class CodedtoolError(Exception):
    """Base of every error that has a clear message and no traceback on the command line."""

    exit_code = 2


class InputError(CodedtoolError, ValueError):
    """Bad input: the message names the argument or file, the rule, the value and the fix. Exit code 2."""

    exit_code = 2


class InfeasibleError(CodedtoolError):
    """What was asked for cannot exist, or was not found within the budget. Exit code 3."""

    exit_code = 3
