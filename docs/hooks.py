"""MkDocs hooks: pages whose text lives elsewhere in the repository, so that it stands once.

README, CONTRIBUTING, CHANGELOG and the pages of benchmarks/ become pages of the site; the notebook becomes one with its
outputs; every command of the application becomes one. Links between them are written as GitHub needs them and turned
into links of the site here.
"""

from __future__ import annotations

import ast
import base64
import json
import os
import posixpath
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, get_type_hints

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]

# A file of the repository -> where it is on the site. Folders end in "/".
MOVED = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
    "CITATION.cff": "CITATION.cff",
    "LICENSE": "LICENSE.txt",
    "benchmarks/README.md": "benchmarks.md",
    "benchmarks/cifar10/README.md": "results/index.md",
    "benchmarks/cifar10/": "results/",
    "docs/tutorial.ipynb": "tutorial.md",
    "docs/": "",
}

_LINK = re.compile(r"(\]\()([^)#:\s]+)((?:#[^)\s]*)?\))")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the commands' pages to the navigation."""
    for entry in config.nav or []:
        if "Commands" in entry:
            entry["Commands"] += [{title: page} for title, page, _ in _command_pages()]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages and pictures that do not live in docs/."""
    for source in (
        "README.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "SECURITY.md",
        "CITATION.cff",
        "LICENSE",
        "benchmarks/README.md",
    ):
        _add(files, config, _site_path(source), (ROOT / source).read_bytes())
    for path in sorted((ROOT / "benchmarks" / "cifar10").iterdir()):
        if path.suffix in (".md", ".png", ".json", ".toml"):
            _add(files, config, _site_path(f"benchmarks/cifar10/{path.name}"), path.read_bytes())
    for name, content in _notebook(ROOT / "docs" / "tutorial.ipynb"):
        _add(files, config, name, content)
    for _, page, text in _command_pages():
        _add(files, config, page, text.encode())
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links to files of the repository into links to pages of the site."""
    if page.file.src_uri == "commands/index.md":
        markdown = markdown.replace("<!-- the commands -->", _overview())
    elif page.file.src_uri == "design.md":
        markdown = markdown.replace("<!-- the files -->", _files())
    elif page.file.src_uri == "api/analysis.md":
        markdown = markdown.replace("<!-- the analyses -->", _analyses())
    source = next((old for old, new in MOVED.items() if new == page.file.src_uri), None)
    if source is None:
        source = page.file.src_uri.replace("results/", "benchmarks/cifar10/", 1)
        source = source if source.startswith("benchmarks/") else f"docs/{source}"

    def moved(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), match[2]))
        return match[1] + posixpath.relpath(_site_path(target), posixpath.dirname(page.file.src_uri) or ".") + match[3]

    return _outside_code(markdown, lambda text: _LINK.sub(moved, text))


def _outside_code(markdown: str, change: Any) -> str:
    """``markdown`` with its text changed and its fenced code as it is."""
    pieces = re.split(r"(^```.*?^```$)", markdown, flags=re.DOTALL | re.MULTILINE)
    return "".join(piece if piece.startswith("```") else change(piece) for piece in pieces)


def _site_path(source: str) -> str:
    """Where a file of the repository is on the site."""
    if source in MOVED:
        return MOVED[source]
    folder = next((folder for folder in MOVED if folder.endswith("/") and source.startswith(folder)), None)
    return source if folder is None else MOVED[folder] + source.removeprefix(folder)


def _add(files: Files, config: MkDocsConfig, name: str, content: bytes) -> None:
    if existing := files.get_file_from_path(name):
        files.remove(existing)
    files.append(File.generated(config, name, content=content))


def _notebook(path: Path) -> Iterator[tuple[str, bytes]]:
    """The notebook as a page with the outputs that it was saved with, and its pictures."""
    text: list[str] = []
    for number, cell in enumerate(json.loads(path.read_text())["cells"]):
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            text.append(source)
            continue
        language = "sh" if source.startswith("%%bash") else "python"
        text.append(f"```{language}\n{source.removeprefix('%%bash').strip()}\n```")
        for output in cell["outputs"]:
            data = output.get("data", {})
            if "image/png" in data:
                picture = f"images/tutorial-{number}.png"
                yield picture, base64.b64decode("".join(data["image/png"]))
                text.append(f"![Output of the cell above]({picture})")
            elif printed := "".join(output.get("text") or data.get("text/plain", "")).rstrip():
                text.append(f"```text\n{printed}\n```")
    yield "tutorial.md", "\n\n".join(text).encode()


def _commands() -> Iterator[tuple[str, Any, Any]]:
    """The full name of every command, the command and its context, in the order of `codedtool --help`."""
    # A help page would be cut to the terminal's width and coloured.
    os.environ |= {"NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "200"}
    import typer.main

    from codedtool.cli import app

    def below(command: Any, name: str, parent: Any) -> Iterator[tuple[str, Any, Any]]:
        context = command.make_context(name.split()[-1], [], parent=parent, resilient_parsing=True)
        if parent is not None:
            yield name, command, context
        for child in command.list_commands(context) if hasattr(command, "commands") else ():
            yield from below(command.commands[child], f"{name} {child}", context)

    yield from below(typer.main.get_command(app), "codedtool", None)


def _command_pages() -> Iterator[tuple[str, str, str]]:
    """Title, place and text of one page per command."""
    for name, command, context in _commands():
        title = name.removeprefix("codedtool ")
        # A command that has commands of its own is called without them here.
        usage = context.get_usage().removeprefix("Usage: ").replace("COMMAND [ARGS]...", "")
        lines = [f"# {name}", "", _paragraphs(command.help or ""), "", f"```text\n{usage.strip()}\n```", ""]
        panels: dict[str, list[tuple[str, str]]] = {}
        for parameter in command.get_params(context):
            record = parameter.get_help_record(context)
            if record is not None:
                kind = "Options" if record[0].startswith("-") else "Arguments"
                panel = parameter.rich_help_panel
                panels.setdefault(panel if isinstance(panel, str) else kind, []).append(record)
        for panel, records in panels.items():
            lines += [f"## {panel}", "", "| name | meaning |", "|---|---|"]
            # A bar in code does not end a cell.
            lines += [f"| `{option}` | {_cell(_escaped(text))} |" for option, text in records]
            lines.append("")
        yield title, f"commands/{title.replace(' ', '-')}.md", "\n".join(lines)


def _overview() -> str:
    """All commands in their groups, one line each."""
    lines: list[str] = []
    group = None
    for name, command, _ in _commands():
        panel = command.rich_help_panel
        if isinstance(panel, str) and panel != group and name.count(" ") == 1:
            group = panel
            lines += ["", f"**{panel}**", ""]
        if not lines or lines[-1] == "":
            lines += ["| command | does |", "|---|---|"]
        page = name.removeprefix("codedtool ").replace(" ", "-") + ".md"
        first = (command.help or "").split("\n\n")[0]
        lines.append(f"| [`{name}`]({page}) | {_cell(_escaped(first))} |")
    return "\n".join(lines)


def _files() -> str:
    """Every module of the package with the first sentence of its docstring, folder by folder."""
    lines: list[str] = []
    folder = None
    for path in sorted((ROOT / "codedtool").rglob("*.py"), key=lambda path: (path.parent, path.name)):
        if path.name == "__init__.py" and not ast.get_docstring(ast.parse(path.read_text())):
            continue
        if path.parent != folder:
            folder = path.parent
            lines += ["", f"**{folder.relative_to(ROOT).as_posix()}/**", "", "| file | holds |", "|---|---|"]
        text = (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n\n")[0]
        lines.append(f"| `{path.name}` | {_cell(_escaped(text))} |")
    return "\n".join(lines)


def _analyses() -> str:
    """The function of every row of the catalogue, and the class of its result, as mkdocstrings reads them."""
    from codedtool.analysis.catalogue import CATALOGUE

    names: list[str] = []
    for row in CATALOGUE:
        module, _, function = row.function.partition(":")
        found = getattr(import_module(f"codedtool.{module}"), function)
        result = get_type_hints(found)["return"]
        names += [f"codedtool.{module}.{function}", f"{result.__module__}.{result.__qualname__}"]
    return "\n\n".join(f"::: {name}" for name in names)


def _paragraphs(text: str) -> str:
    return "\n\n".join(_escaped(" ".join(part.split())) for part in text.replace("\b", "").split("\n\n"))


def _escaped(text: str) -> str:
    return re.sub(r"([<>*_\[\]])", r"\\\1", text)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("default: (required)", "required")
