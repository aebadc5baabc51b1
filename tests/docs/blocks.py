"""Code blocks of the pages: how they are found, run, and compared with the output that a page shows.

A page says in an HTML comment before a block what the tests cannot do with it:

    <!-- not run: needs a GPU -->    the block is not executed; its `codedtool` lines are still parsed
    <!-- slow: every analysis -->    the block is executed by the tests marked slow only

Indented blocks and those fenced as `sh` are commands; `console` blocks are commands after `$ ` with their output;
`python` blocks of one page share their names. A line `…` in an output stands for any lines, `…` in a line for any text.
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import typer.main
from typer.testing import CliRunner

from codedtool.cli import app
from codedtool.training.recipes import recipe_for
from tests.paths import ROOT

PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "benchmarks/README.md", "benchmarks/cifar10/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]

# Output that is the same on every machine, but for the seconds.
_EXACT = ("scheme", "verify", "bounds")

# Commands beside `codedtool` that a page may have executed.
_HARMLESS = ("cat", "cp", "ls", "mkdir")

_FENCE = re.compile(r"^(\s*)```+\s*([\w-]*)")
_MARK = re.compile(r"<!--\s*(not run|slow):\s*(.+?)\s*-->", re.DOTALL)
# A number, or the name of a checkpoint; not the number within a name such as s3.2 or h_T.
_NUMBER = re.compile(r"\be\d{4}s\d{6}\b|(?<![A-Za-z\d.])[+-]?\d[\d,.]*(e[+-]?\d+)?")
_SECONDS = re.compile(r"\b\d+(\.\d+)? s\b")


@dataclass(frozen=True)
class Block:
    """One code block of a page.

    Attributes:
        page: the file.
        line: of the block's first line, from 1.
        language: of the fence; "sh" for an indented block.
        lines: the text, without the fence's or block's indentation.
        not_run, slow: the reasons that the page gives, or "".
    """

    page: Path
    line: int
    language: str
    lines: tuple[str, ...]
    not_run: str = ""
    slow: str = ""

    @property
    def place(self) -> str:
        """Where the block is, for messages."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    def commands(self) -> list[tuple[str, list[str]]]:
        """The command lines of a shell block, continued lines joined, each with the output shown after it."""
        found: list[tuple[str, list[str]]] = []
        open_line = ""
        for line in self.lines:
            if self.language == "console" and not open_line and not line.startswith("$ "):
                assert found, f"{self.place}: a console block begins with `$ `"
                found[-1][1].append(line)
                continue
            open_line += line.removeprefix("$ ") if self.language == "console" and not open_line else line.strip()
            if open_line.endswith("\\"):
                open_line = open_line[:-1]
            elif open_line.strip() and not open_line.startswith("#"):
                found.append((open_line.strip(), []))
                open_line = ""
            else:
                open_line = ""
        return found


def blocks_of(page: Path) -> list[Block]:
    """All code blocks of a Markdown page, in order."""
    lines = page.read_text().splitlines()
    found: list[Block] = []
    marks: dict[str, str] = {}
    number = 0
    in_list = False
    while number < len(lines):
        line = lines[number]
        if line.lstrip().startswith("<!--"):
            end = number
            while "-->" not in lines[end]:
                end += 1
            marks |= {match[1]: match[2] for match in _MARK.finditer("\n".join(lines[number : end + 1]))}
            number = end + 1
        elif fence := _FENCE.match(line):
            end = next(i for i in range(number + 1, len(lines)) if lines[i].strip().startswith("```"))
            text = tuple(row.removeprefix(fence[1]) for row in lines[number + 1 : end])
            found.append(_block(page, number + 2, fence[2], text, marks))
            marks, number = {}, end + 1
        elif line.startswith("    ") and not in_list and not (number and lines[number - 1].strip()):
            end = number
            while end < len(lines) and (lines[end].startswith("    ") or not lines[end].strip()):
                end += 1
            text = tuple("\n".join(row[4:] for row in lines[number:end]).rstrip().splitlines())
            found.append(_block(page, number + 1, "sh", text, marks))
            marks, number = {}, end
        else:
            if line.strip():
                in_list = bool(re.match(r"\s*([-*]|\d+\.)\s", line)) or (in_list and line.startswith(" "))
                marks = {}
            number += 1
    return found


def _block(page: Path, line: int, language: str, lines: tuple[str, ...], marks: dict[str, str]) -> Block:
    return Block(page, line, language, lines, not_run=marks.get("not run", ""), slow=marks.get("slow", ""))


def parts(command: str) -> Iterator[list[str]]:
    """The words of each command of a line, where `&&` stands between them; comments are left out."""
    words: list[str] = []
    for word in shlex.split(command, comments=True):
        if word == "&&":
            yield words
            words = []
        else:
            words.append(word)
    if words:
        yield words


def codedtool_arguments(words: list[str]) -> list[str] | None:
    """The arguments of a call of codedtool, by its name or as a module of python or torchrun; None: no such call."""
    if words[0] == "codedtool":
        return words[1:]
    if words[0] in ("python", "torchrun") and "codedtool" in words and words[words.index("codedtool") - 1] == "-m":
        return words[words.index("codedtool") + 1 :]
    return None


def parse(arguments: list[str]) -> None:
    """Hold a command line to the real application: its verb, flags and values' types. Nothing is executed.

    Raises:
        Exception: the application's own usage error.
    """
    if not arguments or arguments[0].startswith("-"):
        return
    command: Any = typer.main.get_command(app)
    context = command.make_context("codedtool", list(arguments), resilient_parsing=True)
    rest = list(arguments)
    while hasattr(command, "commands") and rest and rest[0] in command.commands:
        command = command.commands[rest.pop(0)]
        if any(word in ("--help", "-h") for word in rest):
            return
        if not (hasattr(command, "commands") and rest and rest[0] in command.commands):
            command.make_context(command.name, rest, parent=context)
            return
    raise ValueError(f"codedtool has no command {' '.join(arguments[:1])!r}")


@dataclass
class House:
    """A folder in which a page's blocks run.

    Attributes:
        path: the folder.
        trained: command lines of trainings that have run already -> what they printed; they are not run again.
        shorten: turns a training's arguments into those that the tests have time for.
        names: of the page's Python blocks.
    """

    path: Path
    trained: dict[str, str] = field(default_factory=dict)
    shorten: Callable[[list[str]], list[str]] = list
    names: dict[str, Any] = field(default_factory=dict)

    def run(self, block: Block) -> None:
        """Execute a block, and compare what it prints with what the page shows."""
        if block.language == "python":
            code = compile("\n" * (block.line - 1) + "\n".join(block.lines), str(block.page), "exec")
            with contextlib.chdir(self.path), contextlib.redirect_stdout(io.StringIO()):
                exec(code, self.names)
        elif block.language == "toml":
            recipe_for("cifar10").with_values(tomllib.loads("\n".join(block.lines)))
        elif block.language in ("sh", "console"):
            for command, shown in block.commands():
                printed = self.print_of(command, fails=bool(shown) and shown[0].startswith("error:"))
                if block.language == "console" and shown:
                    exact = (codedtool_arguments(next(parts(command))) or [""])[0] in _EXACT
                    problem = difference(shown, printed.splitlines(), exact=exact)
                    assert not problem, f"{block.place}: $ {command}\n{problem}\nIt printed:\n{printed}"
        else:
            assert block.language in ("text", "json", "mermaid"), f"{block.place}: {block.language!r} is no known kind"

    def print_of(self, command: str, *, fails: bool = False) -> str:
        """What a command line prints: on stdout, or on stderr where it is to fail."""
        return "".join(self._print_of(words, fails=fails) for words in parts(command))

    def _print_of(self, words: list[str], *, fails: bool) -> str:
        arguments = codedtool_arguments(words)
        if arguments is None:
            assert words[0] in _HARMLESS, f"`{shlex.join(words)}` is not executed by the tests: mark it `not run`"
            done = subprocess.run(words, cwd=self.path, capture_output=True, text=True, check=True)
            return done.stdout
        if (line := shlex.join(["codedtool", *arguments])) in self.trained:
            return self.trained[line]
        with contextlib.chdir(self.path):
            result = CliRunner().invoke(app, self.shorten(arguments))
        if fails:
            assert result.exit_code in (2, 3), f"{line} was to fail:\n{result.output}"
            # What is wrong stands in the last line; the lines before it report progress.
            return result.stderr.splitlines()[-1]
        assert result.exit_code == 0, f"{line}\n{result.output}\n{result.exception!r}"
        return result.stdout


def difference(shown: list[str], printed: list[str], *, exact: bool) -> str:
    """Why what is shown is not what was printed; "" where it is.

    Args:
        shown: lines of the page.
        printed: lines of the command.
        exact: compare figures too (seconds aside); otherwise any number stands for any other.
    """
    # Blank lines, and the rules and corners of tables, say nothing.
    position = 0
    skipping = False
    printed = [line for line in printed if plain(line, exact=exact)]
    for line in shown:
        if not plain(line, exact=exact):
            continue
        if line.strip() == "…":
            skipping = True
            continue
        while skipping and position < len(printed) and not matches(line, printed[position], exact=exact):
            position += 1
        if position == len(printed) or not matches(line, printed[position], exact=exact):
            return f"the page shows {line!r}" + (
                f", the command printed {printed[position]!r}" if position < len(printed) else ""
            )
        skipping = False
        position += 1
    return "" if skipping or position == len(printed) else f"the page leaves out {printed[position]!r}"


def matches(shown: str, printed: str, *, exact: bool) -> bool:
    """Whether a line of a page is a line that was printed."""
    pattern = ".*".join(re.escape(plain(part, exact=exact)) for part in shown.split("…"))
    return re.fullmatch(pattern, plain(printed, exact=exact)) is not None


def plain(line: str, *, exact: bool) -> str:
    """A line without what may differ: spaces, rules of tables, seconds, and unless ``exact`` all numbers."""
    line = re.sub(r"[─━┏┓┗┛┡┩└┘┬┴┼╇┳┻╭╮╰╯│┃|]+", " ", line)
    # A busy machine's speeds have a mark, and a line that explains it.
    line = "" if line.startswith("~: noisy") else re.sub(r"~(?=\d)", "", line)
    line = _SECONDS.sub("# s", line) if exact else _NUMBER.sub("#", line)
    return " ".join(line.split())
