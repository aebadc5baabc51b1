"""Repeats the commands that pages show, trainings at full length, and writes what they print into the pages.

``python -m tests.docs.refresh [PAGE…]``. A line `…` stays, and stands for the same lines as before. Where a command's
words have changed so that the lines it had are not found again, its whole output is written, and the place is named.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from tests.docs.blocks import PAGES, Block, House, blocks_of, matches
from tests.docs.conftest import furnish
from tests.paths import ROOT


def refreshed(block: Block, house: House) -> list[str]:
    """The lines of a console block with the outputs of now."""
    lines: list[str] = []
    for command, shown in block.commands():
        lines.append(f"$ {command}")
        printed = house.print_of(command, fails=bool(shown) and shown[0].startswith("error:")).splitlines()
        if shown:
            lines += output(shown, printed, block.place)
    return lines


def output(shown: list[str], printed: list[str], place: str) -> list[str]:
    """What a page is to show of what was printed: the lines that it showed before."""
    found: list[str] = []
    position = 0
    for line in shown:
        if line.strip() == "…":
            found.append(line)
            continue
        hit = next((i for i in range(position, len(printed)) if matches(line, printed[i], exact=False)), None)
        if hit is None:
            print(f"{place}: {line!r} is not printed any more; the whole output is written", file=sys.stderr)
            return [row.rstrip() for row in printed]
        # A line that the page shortens stays as it is.
        found.append(line if "…" in line else printed[hit].rstrip())
        position = hit + 1
    return found


def main() -> None:
    """Rewrite the outputs on all pages, or on those named."""
    os.environ |= {"NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "200"}
    pages = [Path(name).resolve() for name in sys.argv[1:]] or PAGES
    with tempfile.TemporaryDirectory() as folder:
        house = furnish(Path(folder) / "house", full_length=True)
        for page in pages:
            lines = page.read_text().splitlines()
            # From the last block to the first, so that the numbers of the lines before stay true. They run in order.
            changes = []
            for block in blocks_of(page):
                if block.not_run:
                    continue
                if block.language == "console":
                    changes.append((block, refreshed(block, house)))
                elif not block.slow:
                    house.run(block)
            for block, new in reversed(changes):
                lines[block.line - 1 : block.line - 1 + len(block.lines)] = new
            page.write_text("\n".join(lines) + "\n")
            print(page.relative_to(ROOT), file=sys.stderr)


if __name__ == "__main__":
    main()
