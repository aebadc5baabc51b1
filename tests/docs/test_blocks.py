"""The commands and the Python that pages show: they are accepted, they run, and they print what is shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.blocks import PAGES, Block, House, blocks_of, codedtool_arguments, difference, parse, parts
from tests.paths import ROOT

IDS = [str(page.relative_to(ROOT)) for page in PAGES]
SLOW_PAGES = [page for page in PAGES if any(block.slow for block in blocks_of(page))]


@pytest.mark.quick
@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_command_line_is_one_that_the_program_accepts(page: Path) -> None:
    for block in blocks_of(page):
        if block.language not in ("sh", "console"):
            continue
        for command, _ in block.commands():
            for words in parts(command):
                arguments = codedtool_arguments(words)
                if arguments is None:
                    continue
                try:
                    parse(arguments)
                except Exception as error:
                    pytest.fail(f"{block.place}: {command}\n{getattr(error, 'message', error)}")


def execute(page: Path, house: House, *, slow: bool) -> None:
    for block in blocks_of(page):
        if not block.not_run and (slow or not block.slow):
            house.run(block)


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_blocks_run(page: Path, house: House) -> None:
    execute(page, house, slow=False)


@pytest.mark.slow
@pytest.mark.parametrize("page", SLOW_PAGES, ids=[str(page.relative_to(ROOT)) for page in SLOW_PAGES])
def test_all_blocks_run(page: Path, house: House) -> None:
    execute(page, house, slow=True)


@pytest.mark.quick
def test_blocks_are_found_with_their_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "Text:\n\n    codedtool verify\n    codedtool bounds --K 10 \\\n      --N 10  # why\n\n"
        "<!-- not run: needs a GPU -->\n```sh\n# a remark\ncodedtool eval\n```\n"
        "- a list\n\n    goes on\n\n<!-- slow: long -->\n\n```console\n$ codedtool eval\nruns/x\n…\n```\n"
    )
    indented, fenced, console = blocks_of(page)
    assert indented.commands() == [("codedtool verify", []), ("codedtool bounds --K 10 --N 10  # why", [])]
    assert list(parts(indented.commands()[1][0])) == [["codedtool", "bounds", "--K", "10", "--N", "10"]]
    assert (fenced.not_run, fenced.commands()) == ("needs a GPU", [("codedtool eval", [])])
    assert (console.slow, console.commands()) == ("long", [("codedtool eval", ["runs/x", "…"])])


@pytest.mark.quick
@pytest.mark.parametrize(
    "arguments",
    [
        ["scheme", "--classes", "10"],
        ["schema", "--K", "10"],
        ["verify", "--max-spread", "none"],
        ["scheme", "assign", "--similar", "x"],
        ["train", "--epoch", "3"],
    ],
)
def test_a_command_line_that_the_program_would_refuse_is_found(arguments: list[str]) -> None:
    with pytest.raises(Exception, match=r"(?i)no such option|no command|valid integer"):
        parse(arguments)


@pytest.mark.quick
def test_outputs_are_compared_but_for_what_may_differ() -> None:
    printed = ["K=10", "", "│ s2.1 │ 87.6% │", "run x in 3.2 s"]
    assert not difference(["K=10", "s2.1  99%", "run x in 71 s"], printed, exact=False)
    assert not difference(["K=10", "…", "run … in 71 s"], printed, exact=True)
    assert "leaves out" in difference(["K=10"], printed, exact=True)
    assert "s2.1" in difference(["K=10", "s2.1  99%", "…"], printed, exact=True)
    assert "the page shows" in difference(["K=10", "…", "ran"], printed, exact=False)


def test_a_block_that_nobody_marked_has_to_run(house: House) -> None:
    page = ROOT / "page.md"
    with pytest.raises(AssertionError, match="mark it `not run`"):
        house.run(Block(page, 1, "sh", ("pip install codedtool",)))
    with pytest.raises(AssertionError, match="no known kind"):
        house.run(Block(page, 1, "rust", ("fn main() {}",)))
    with pytest.raises(NameError):
        house.run(Block(page, 1, "python", ("nothing_of_this_name",)))
    with pytest.raises(AssertionError, match="No such option"):
        house.run(Block(page, 1, "sh", ("codedtool verify --nonsense",)))
