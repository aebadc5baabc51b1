"""What every verb shares: exit codes, one clear message per error, progress on stderr, JSON on stdout, Ctrl-C."""

from __future__ import annotations

import gc
import inspect
import json
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, Literal, ParamSpec, Protocol, TextIO, TypeVar, get_args

import typer

from codedtool.budget import Budget, Progress
from codedtool.errors import (
    CodedtoolError,
    Failure,
    InputError,
    OutOfMemoryError,
    library_without_memory,
    replace_arguments,
)
from codedtool.interrupts import forget_interrupts, signals_handled, was_interrupted
from codedtool.text import readable

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

# Arguments of the running command that its command line has; the others have their defaults.
_STATED: ContextVar[frozenset[str]] = ContextVar("stated", default=frozenset())

# Whether the command has printed its JSON document.
_PRINTED: ContextVar[bool] = ContextVar("printed", default=False)


def verb(function: Callable[Parameters, Returned]) -> Callable[Parameters, Returned]:
    """Wrap a command body: errors of the project end in one message and their exit code, Ctrl-C in 130.

    With ``--json`` the error is the one JSON document on stdout as well: {"error": message, "exit_code": code}.
    An argument that a message names between backquotes (`codedtool.errors`) is shown as the command's flag for it.
    """

    @wraps(function)
    def wrapped(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Returned:
        gc.enable()  # off since the program began
        _RUNNING.set(function)
        begin_document()
        forget_interrupts()
        try:
            return function(*args, **kwargs)
        except typer.Exit:
            raise
        except (KeyboardInterrupt, Exception) as error:
            if isinstance(error, KeyboardInterrupt) or was_interrupted():
                say("interrupted", to_stderr=True)
                raise typer.Exit(EXIT_INTERRUPTED) from None
            known = _known(error)
            if known is None:
                raise
            raise _told(known, as_json=bool(kwargs.get("json_output"))) from None

    return wrapped


def _known(error: Exception) -> CodedtoolError | None:
    """The error for people, or None for a bug."""
    if isinstance(error, CodedtoolError):
        return error
    package = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if package in _EXTRA_OF:
        return InputError(
            f"this command needs {package}, which is not installed: pip install 'codedtool[{_EXTRA_OF[package]}]'"
        )
    if isinstance(error, MemoryError):
        reason = str(error).strip() or type(error).__name__
        return OutOfMemoryError(f"memory ran out ({reason}); free memory, or lower the numbers that were asked for")
    return library_without_memory(error)


def _told(error: CodedtoolError, *, as_json: bool) -> typer.Exit:
    """Say what is wrong; returns the end of the command."""
    message = in_flags(str(error))
    if as_json:
        print_json({"error": message, "exit_code": error.exit_code})
    say(f"error: {message}", to_stderr=True)
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


def keep_stated(context: typer.Context) -> None:
    """Keep for `refuse_stated` what the command line has; called before a command runs."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    stated = (name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE")
    _STATED.set(frozenset(stated))


def refuse_stated(names: Iterable[str], reason: str) -> None:
    """Raise InputError if the command line has one of the arguments, which would have no effect.

    Args:
        names: arguments of the running command.
        reason: follows the argument's name in the message.
    """
    for name in names:
        if name in _STATED.get():
            raise InputError(f"`{name}` {reason}")


@contextmanager
def collector_off() -> Iterator[None]:
    """Within it, Python does not look for cycles among its objects: a tenth of the time of imports and of compiling.

    For work that makes few such cycles. Also a decorator of a command's body.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def begin_document() -> None:
    """The next JSON document that is printed is the first of a command."""
    _PRINTED.set(False)


def is_printed() -> bool:
    """Whether the command has printed its JSON document."""
    return _PRINTED.get()


def print_json(document: Any) -> None:
    """Print one JSON document on stdout; a second one, of an error after the first, is left out."""
    if not is_printed():
        text = json.dumps(document, indent=2, allow_nan=False)
        _PRINTED.set(True)
        print(text, flush=True)


def say(message: str, *, to_stderr: bool) -> None:
    """Print one line for people: on stdout, or on stderr when stdout belongs to a JSON document.

    What would break the line, such as a name of two lines, is written as an escape.
    """
    print(readable(message), file=sys.stderr if to_stderr else sys.stdout, flush=True)


def say_traceback(text: str) -> None:
    """Print where a bug happened, on stderr."""
    for line in text.splitlines():
        say(line, to_stderr=True)


def print_table(table: Table, *, to_stderr: bool) -> None:
    """Print a table on stdout; with ``to_stderr`` nothing, because the JSON document on stdout has its numbers.

    At a terminal, columns that do not fit stand in further tables below, each with the first column, which tells the
    rows apart. Into a pipe or file, a table is as wide as it needs.
    """
    if to_stderr:
        return
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    cells = [tuple(map(readable, row)) for row in (table.header, *table.rows)]
    columns = [_widths([row[number] for row in cells], cell_len) for number in range(len(table.header))]
    # The first column tells the rows apart: it is never cut or wrapped.
    columns[0] = (columns[0][1], columns[0][1])
    console = Console(file=sys.stdout, highlight=False)
    is_terminal = _is_terminal(sys.stdout)
    width = console.width if is_terminal else sum(most + _GAP for _, most in columns)
    # Not the table's title, which would wrap at the table's width.
    for line in table.caption.split("\n"):
        console.print(Text(readable(line), style="bold"), soft_wrap=not is_terminal)
    for numbers in _that_fit(columns, width):
        shown = RichTable(box=None)
        spare = width - sum(columns[number][0] + _GAP for number in numbers)
        needed = 0
        for number in numbers:
            least, most = columns[number]
            given = least + max(0, min(most - least, spare))
            spare -= given - least
            needed += given + _GAP
            justify: Literal["left", "right"] = "right" if number else "left"
            shown.add_column(Text(cells[0][number]), justify=justify, width=given, overflow="fold")
        for row in cells[1:]:
            shown.add_row(*(Text(row[number]) for number in numbers))
        # What is still wider is wrapped by the terminal, not cut.
        Console(file=sys.stdout, highlight=False, width=max(width, needed)).print(shown)


# Blanks around a cell.
_GAP = 2

# A cell of at most this many letters stays on one line.
_UNBROKEN = 24


def _widths(cells: Sequence[str], length: Callable[[str], int]) -> tuple[int, int]:
    """The least width of a column, whose heading and long cells may wrap between words, and the width without wraps."""
    heading, *values = cells
    least = [length(word) for word in heading.split()]
    for value in values:
        least += [length(value)] if length(value) <= _UNBROKEN else [length(word) for word in value.split()]
    return max(least, default=0), max(map(length, cells))


def _that_fit(columns: Sequence[tuple[int, int]], width: int) -> list[list[int]]:
    """Numbers of the columns of each table: as many as fit into ``width``, and the first column in every table."""
    first, *others = range(len(columns))
    tables = [[first]]
    left = room = width - columns[first][0] - _GAP
    for number in others:
        needed = columns[number][0] + _GAP
        if needed > left and len(tables[-1]) > 1:
            tables.append([first])
            left = room
        tables[-1].append(number)
        left -= needed
    return tables


def _is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and stream.isatty()


def say_left_out(reasons: Sequence[str], *, to_stderr: bool) -> None:
    """One line for every part of a result that was left out."""
    for reason in dict.fromkeys(reasons):
        say(f"left out: {in_flags(reason)}", to_stderr=to_stderr)


def end_with(failures: Sequence[Failure]) -> None:
    """End the command with the first failure's exit code, if there is one; where a bug happened goes to stderr."""
    for failure in failures:
        if failure.traceback:
            say_traceback(failure.traceback)
    if failures:
        say(f"error: {in_flags(str(failures[0]))}", to_stderr=True)
        raise typer.Exit(failures[0].exit_code)


def show(result: Result, *, as_json: bool, heading: str, files: Sequence[Path]) -> None:
    """Show an analysis's result: the JSON document on stdout if asked for, and for people what it is and holds."""
    if as_json:
        print_json(result.to_json())
    else:
        say(heading, to_stderr=False)
        for table in result.tables():
            print_table(table, to_stderr=False)
        for line in result.lines():
            say(line, to_stderr=False)
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
    elif _is_terminal(sys.stderr):
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
        ProgressColumn,
        TaskID,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
    )
    from rich.table import Column
    from rich.text import Text

    class TimeLeft(ProgressColumn):
        """The time left, by the share that is done and the time it took."""

        max_refresh = 0.5

        def render(self, task: Any) -> Text:
            done = task.completed / task.total if task.total else 0
            if not done or done >= 1 or task.elapsed is None:
                return Text("")
            return Text(f"{_clock(task.elapsed * (1 - done) / done)} left")

    # The note has what the other columns leave of the terminal's width.
    columns = (
        TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, max_width=24)),
        BarColumn(bar_width=10, table_column=Column(min_width=10)),
        TaskProgressColumn(table_column=Column(no_wrap=True, min_width=4)),
        TimeElapsedColumn(table_column=Column(no_wrap=True, min_width=7)),
        TimeLeft(table_column=Column(no_wrap=True, min_width=12)),
        TextColumn(
            "{task.fields[note]}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)
        ),
    )
    # What a command prints meanwhile goes above the bars if it goes to the terminal, and else where stdout leads.
    console, is_terminal = Console(stderr=True), _is_terminal(sys.stdout)
    with Progress(*columns, console=console, transient=True, expand=True, redirect_stdout=is_terminal) as bars:
        tasks: dict[str, TaskID] = {}

        class Bars:
            def __call__(self, phase: str, done: float, total: float | None, note: str = "") -> None:
                phase, note = readable(phase), readable(note)
                if phase not in tasks:
                    for task in tasks.values():
                        bars.update(task, visible=False)
                    tasks[phase] = bars.add_task(phase, total=total, note=note)
                bars.update(tasks[phase], completed=done, total=total, note=note)

            def line(self, text: str) -> None:
                bars.console.print(readable(text), markup=False, highlight=False, soft_wrap=True)

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
        say(f"{phase}{share}" + (f": {note}" if note else ""), to_stderr=True)

    def line(self, text: str) -> None:
        say(text, to_stderr=True)


def _clock(seconds: float) -> str:
    """Seconds as 0:59, 59:59 or 9:59:59."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


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
    with signals_handled(handlers):
        try:
            yield
        finally:
            if hasattr(signal, "setitimer"):
                signal.setitimer(signal.ITIMER_REAL, 0)
