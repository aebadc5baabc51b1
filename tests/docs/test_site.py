"""The site: it builds without a warning, fetches nothing, and its pages say what the project is."""

from __future__ import annotations

import ast
import importlib
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import codedtool
from tests.docs.blocks import PAGES, blocks_of
from tests.paths import ROOT

# An address that a browser would fetch from elsewhere when it opens a page: everything but links that one clicks.
FETCHED = re.compile(
    r"""(?:<(?:script|img|iframe|source)\b[^>]*\bsrc|<link\b[^>]*\bhref)=["']?((?:https?:)?//[^"'\s>]+)"""
)
ITEM = re.compile(r"^( *)([A-Za-z_0-9.]+\.(?:py|j2|typed)|[a-z_]+/)(?=\s|$)")


@pytest.mark.quick
def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().split()) <= 1200


@pytest.mark.quick
def test_readme_has_the_two_set_up_commands() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    assert "    pip install . && codedtool scheme --K 1000 --N 32 --act 8 --hmin 6" in lines
    # As .ci/run looks for it.
    assert len([line for line in lines if line.startswith("    pip install -e") and line.endswith("pytest")]) == 1


@pytest.mark.quick
def test_design_names_every_folder_and_every_file_says_what_it_holds() -> None:
    (tree,) = [block for block in blocks_of(ROOT / "docs" / "design.md") if block.lines[0].startswith("codedtool/")]
    named: list[str] = []
    folders: list[str] = []
    for line in tree.lines:
        match = ITEM.match(line)
        assert match is not None, line
        folders = [*folders[: len(match[1]) // 2], match[2]]
        named.append("".join(folders))
    package = ROOT / "codedtool"
    assert sorted(named) == sorted({f"{path.parent.relative_to(ROOT).as_posix()}/" for path in package.rglob("*.py")})
    # The site lists the files by their docstrings (docs/hooks.py).
    for path in package.rglob("*.py"):
        docstring = ast.get_docstring(ast.parse(path.read_text()))
        assert docstring or path.read_text() == "", path


@pytest.mark.quick
def test_the_names_of_the_python_pages_exist() -> None:
    names = [
        name
        for page in PAGES
        if page.parent.name == "api"
        for name in re.findall(r"^::: (\S+)", page.read_text(), flags=re.MULTILINE)
    ]
    assert {f"codedtool.{name}" for name in codedtool.__all__} <= set(names)
    for name in names:
        module, _, attribute = name.rpartition(".")
        found = getattr(importlib.import_module(module), attribute)
        assert found.__doc__, f"{name} has no docstring"


@pytest.mark.quick
def test_pages_link_to_files_that_are_there() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:\s]+)[#)]", page.read_text()):
            # One page per command and the tutorial's page are made when the site is built.
            made = page.parent.name == "commands" or target == "tutorial.md"
            assert made or (page.parent / target).exists(), f"{page.relative_to(ROOT)}: {target}"


@pytest.mark.quick
def test_the_citation_names_the_paper_and_this_version() -> None:
    yaml = pytest.importorskip("yaml")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= citation.keys(), "what the format demands"
    assert (citation["type"], citation["version"]) == ("software", codedtool.__version__)
    assert citation["license"] == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["license"]
    paper = citation["preferred-citation"]
    assert {"type", "title", "authors"} <= paper.keys()
    assert [author["family-names"] for author in paper["authors"]] == ["Avranas", "Kountouris"]
    assert (paper["year"], paper["identifiers"][0]["value"]) == (2022, "arXiv:2202.05343")


@pytest.mark.slow
def test_the_site_builds_and_fetches_nothing(tmp_path: Path) -> None:
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    pages = sorted(tmp_path.rglob("*.html"))
    assert {"index.html", "tutorial.html", "commands/train.html", "api/schemes.html"} <= {
        path.relative_to(tmp_path).as_posix() for path in pages
    }
    for page in pages:
        assert not FETCHED.findall(page.read_text()), page
    for sheet in tmp_path.rglob("*.css"):
        assert not re.findall(r"url\(['\"]?https?:", sheet.read_text()), sheet
    entries = json.loads((tmp_path / "search" / "search_index.json").read_text())["docs"]
    words = {entry["location"]: entry["text"] for entry in entries}
    assert "--hmin" in words["commands/scheme.html#options"]
