"""What every verb shares: exit codes, one clear message per error, progress on stderr, JSON on stdout, Ctrl-C."""

from __future__ import annotations

import inspect
import json
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec, Protocol, TypeVar, get_args

import typer

from codedtool.budget import Budget, Progress
from codedtool.errors import CodedtoolError, InputError, library_without_memory, replace_arguments

if TYPE_CHECKING:
    from pathlib import Path

    from codedtool.analysis.result import Result, Table

Parameters = ParamSpec("Parameters")
Returned = TypeVar("Returned")

Json = Annotated[bool, typer.Option("--json", help="Print exactly one JSON document on stdout, all else on stderr.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")]

EXIT_INTERRUPTED = 130

# Packages that commands import in their bodies -> the extra that brings them.
_EXTRA_OF = {
    **dict.fromkeys(("torch", "torchvision", "timm", "sklearn", "safetensors", "matplotlib", "jinja2"), "train"),
    "torch_xla": "xla",
    **dict.fromkeys(("onnx", "onnxscript", "onnxruntime"), "export"),
}

# After Ctrl-C, work that polls its budget gets this long to hand over its best result before it is cut off.
_GRACE_SECONDS = 0.35

_PLAIN_LINE_EVERY = 5.0


# The command that runs; messages of the library are told in its flags.
_RUNNING: ContextVar[Callable[..., Any] | None] = ContextVar("running", default=None)


def verb(function: Callable[Parameters, Returned]) -> Callable[Parameters, Returned]:
    """Wrap a command body: errors of the project end in one message and their exit code, Ctrl-C in 130.

    With ``--json`` the error is the one JSON document on stdout as well: {"error": message, "exit_code": code}.
    An argument that a message names between backquotes (`codedtool.errors`) is shown as the command's flag for it.
    """

    @wraps(function)
    def wrapped(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Returned:
        _RUNNING.set(function)
        try:
            return function(*args, **kwargs)
        except CodedtoolError as error:
            raise _told(error, as_json=bool(kwargs.get("json_output"))) from None
        except ModuleNotFoundError as error:
            package = (error.name or "").partition(".")[0]
            if package not in _EXTRA_OF:
                raise
            missing = InputError(
                f"this command needs {package}, which is not installed: pip install 'codedtool[{_EXTRA_OF[package]}]'"
            )
            raise _told(missing, as_json=bool(kwargs.get("json_output"))) from None
        except BrokenPipeError:
            # The reader of our stdout (head, less) went away: nobody is left to tell.
            # Without it the interpreter would flush the broken pipe at exit, and complain.
            sys.stdout = None
            raise typer.Exit(0) from None
        except (ImportError, OSError) as error:
            lacking = library_without_memory(error)
            if lacking is None:
                raise
            raise _told(lacking, as_json=bool(kwargs.get("json_output"))) from None
        except KeyboardInterrupt:
            typer.echo("interrupted", err=True)
            raise typer.Exit(EXIT_INTERRUPTED) from None

    return wrapped


def _told(error: CodedtoolError, *, as_json: bool) -> typer.Exit:
    """Say what is wrong; returns the end of the command."""
    message = in_flags(str(error))
    if as_json:
        print_json({"error": message, "exit_code": error.exit_code})
    typer.echo(f"error: {message}", err=True)
    return typer.Exit(error.exit_code)


def in_flags(message: str) -> str:
    """``message`` of the library with the running command's flags in place of the arguments' names."""
    function = _RUNNING.get()
    return message if function is None else replace_arguments(message, lambda name: _flag(function, name))


def _flag(function: Callable[..., Any], name: str) -> str:
    """The flag that sets argument ``name`` of a command, or the name between backquotes where there is none."""
    parameter = inspect.signature(function, eval_str=True).parameters.get(name)
    for option in get_args(parameter.annotation)[1:] if parameter is not None else ():
        # Within Annotated, typer keeps an option's first name where its default stands otherwise.
        for declared in (getattr(option, "default", None), *(getattr(option, "param_decls", None) or ())):
            if isinstance(declared, str) and declared.startswith("--"):
                return declared.partition("/")[0]
    return f"`{name}`"


def print_json(document: Any) -> None:
    """Print one JSON document on stdout."""
    typer.echo(json.dumps(document, indent=2, allow_nan=False))


def say(message: str, *, to_stderr: bool) -> None:
    """Print one line for people: on stdout, or on stderr when stdout belongs to a JSON document."""
    typer.echo(message, err=to_stderr)


def print_table(table: Table, *, to_stderr: bool) -> None:
    """Print a table, at a terminal's width; into a pipe or file, as wide as the table needs."""
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    shown = RichTable(box=None)
    for number, heading in enumerate(table.header):
        # The first column tells the rows apart: it is never cut.
        shown.add_column(Text(heading), justify="right" if number else "left", no_wrap=number == 0)
    for row in table.rows:
        shown.add_row(*map(Text, row))
    stream = sys.stderr if to_stderr else sys.stdout
    console = Console(file=stream, highlight=False, width=None if stream.isatty() else 240)
    # Not the table's title, which would wrap at the table's width.
    console.print(Text(table.caption, style="bold"))
    console.print(shown)


def say_left_out(reasons: Sequence[str], *, to_stderr: bool) -> None:
    """One line for every part of a result that was left out."""
    for reason in dict.fromkeys(reasons):
        say(f"left out: {in_flags(reason)}", to_stderr=to_stderr)


def show(result: Result, *, as_json: bool, heading: str, files: Sequence[Path]) -> None:
    """Show an analysis's result: the JSON document on stdout if asked for, and for people what it is and holds."""
    if as_json:
        print_json(result.to_json())
    say(heading, to_stderr=as_json)
    for table in result.tables():
        print_table(table, to_stderr=as_json)
    for line in result.lines():
        say(line, to_stderr=as_json)
    say_left_out(result.left_out(), to_stderr=as_json)
    if files:
        names = ", ".join(path.name for path in files)
        say(f"files in {files[0].parent}: {names}", to_stderr=as_json)


class Display(Progress, Protocol):
    """A Progress that can also print a line that stays on stderr."""

    def line(self, text: str) -> None:
        """Print one line, above the bars if there are any."""


@contextmanager
def progress_display(*, quiet: bool) -> Iterator[Display]:
    """A Display that draws a bar when stderr is a terminal, and prints a plain line now and then otherwise."""
    if quiet:
        yield _Silent()
    elif sys.stderr.isatty():
        with _bars() as progress:
            yield progress
    else:
        yield _PlainLines()


@contextmanager
def _bars() -> Iterator[Display]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        SpinnerColumn,
        TaskID,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
    )

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        class Bars:
            def __call__(self, phase: str, done: float, total: float | None, note: str = "") -> None:
                if phase not in tasks:
                    for task in tasks.values():
                        bars.update(task, visible=False)
                    tasks[phase] = bars.add_task(phase, total=total, note=note)
                bars.update(tasks[phase], completed=done, total=total, note=note)

            def line(self, text: str) -> None:
                bars.console.print(text, markup=False, highlight=False, soft_wrap=True)

        yield Bars()


class _Silent:
    """Reports and prints nothing."""

    def __call__(self, phase: str, done: float, total: float | None, note: str = "") -> None:
        pass

    def line(self, text: str) -> None:
        pass


class _PlainLines:
    """A line when a phase begins and then at most one every few seconds; for logs and pipes."""

    def __init__(self) -> None:
        self._phase = ""
        self._last = 0.0

    def __call__(self, phase: str, done: float, total: float | None, note: str = "") -> None:
        now = time.monotonic()
        if phase == self._phase and now - self._last < _PLAIN_LINE_EVERY:
            return
        self._phase, self._last = phase, now
        share = f" {done / total:.1%}" if total else ""
        typer.echo(f"{phase}{share}" + (f": {note}" if note else ""), err=True)

    def line(self, text: str) -> None:
        typer.echo(text, err=True)


@contextmanager
def interruptible(budget: Budget) -> Iterator[None]:
    """Within it, Ctrl-C (or SIGTERM) first asks the budget to stop, and cuts the work off when that takes too long."""

    def ask(signum: int, frame: FrameType | None) -> None:
        if budget.stop_reason() == "interrupted":
            raise KeyboardInterrupt
        budget.interrupt()
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, _GRACE_SECONDS)

    def cut_off(signum: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    handlers = {signal.SIGINT: ask, signal.SIGTERM: ask}
    if hasattr(signal, "SIGALRM"):
        handlers[signal.SIGALRM] = cut_off
    previous = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in previous.items():
            signal.signal(number, handler)
