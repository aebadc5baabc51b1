"""The classes of the program's commands: one JSON document whatever happens, and one flag that names a run."""

from __future__ import annotations

import sys
import traceback
from contextlib import nullcontext
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from codedtool.cli.session import (
    EXIT_INTERRUPTED,
    begin_document,
    is_printed,
    keep_stated,
    print_json,
    say,
    say_traceback,
)
from codedtool.cli.streams import without_stderr

# The flag that names a run: `train` makes one, `sweep` makes a folder of them, and every other command reads one.
_RUN_FLAGS = ("--run", "--run-name", "--name")


class RunCommand(TyperCommand):
    """A command on runs. If it has one of the flags --run, --run-name and --name, it takes the other two for it too.

    It also keeps which of its flags were given, so that those without effect can be refused.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        own = next((flag for flag in _RUN_FLAGS for one in self.params if flag in one.opts), None)
        end = args.index("--") if "--" in args else len(args)
        known = [self._known(word, own) for word in args[:end]]
        return super().parse_args(ctx, [*known, *args[end:]])

    def invoke(self, ctx: Any) -> Any:
        keep_stated(ctx)
        return super().invoke(ctx)

    @staticmethod
    def _known(word: str, own: str | None) -> str:
        flag, equals, value = word.partition("=")
        return f"{own}{equals}{value}" if own is not None and flag in _RUN_FLAGS else word


class OneDocument(TyperGroup):
    """A group of commands whose ``--json`` prints exactly one JSON document, whatever ends the command.

    Wrong usage, an interruption and a bug end in {"error": message, "exit_code": code} too. With ``--quiet`` as well,
    nothing goes to stderr: a bug's traceback is then in the document.
    """

    def main(self, args: Any = None, **settings: Any) -> Any:  # type: ignore[override]  # all are passed on
        words = list(sys.argv[1:] if args is None else args)
        words = words[: words.index("--")] if "--" in words else words
        if "--json" not in words or {"--help", "--version"} & set(words):
            return super().main(args=args, **settings)
        begin_document()
        with without_stderr() if {"--quiet", "-q"} & set(words) else nullcontext():
            code = self._document(args, settings)
        raise SystemExit(code)

    def _document(self, args: Any, settings: dict[str, Any]) -> int:
        """Run the command, and print the document that it did not print itself; returns the exit code."""
        error: dict[str, Any] = {"error": "the command ended without a result"}
        try:
            ended = super().main(args=args, **(settings | {"standalone_mode": False}))
            code = ended if isinstance(ended, int) else 0
            if code == EXIT_INTERRUPTED:
                error = {"error": "interrupted"}
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
        except typer.Abort:
            code, error = EXIT_INTERRUPTED, {"error": "interrupted"}
        except Exception as problem:
            # Of typer's own exceptions, those of wrong usage bring their exit code.
            code = int(getattr(problem, "exit_code", 1))
            message = getattr(problem, "format_message", None)
            if message is None:
                error = {"error": f"{type(problem).__name__}: {problem}", "traceback": traceback.format_exc()}
                say_traceback(error["traceback"])
            else:
                error = {"error": message()}
                say(f"error: {error['error']}", to_stderr=True)
        if not is_printed():
            print_json({**error, "exit_code": code})
        return code
