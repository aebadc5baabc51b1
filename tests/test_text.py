"""Texts from outside: what each target gets of a name that is not plain."""

from __future__ import annotations

import json

import pytest

from codedtool.text import PLAINLY, decode_text, encodable, for_figure, for_script, readable

NAMES = [
    "cat",
    "café",
    "狗",
    "two words",
    "$0_$10",
    "[red]",
    "a\nb",
    "\x1b[31m",
    os_name := "caf\udce9",
    "\ud800",
    "a\\b",
]


@pytest.mark.parametrize("name", NAMES)
def test_every_name_can_be_written_and_stays_on_its_line(name: str) -> None:
    assert encodable(name).encode()
    assert readable(name).encode()
    assert len(readable(name).splitlines()) == 1
    assert "\x1b" not in readable(name)


def test_what_can_be_shown_is_shown_as_it_is() -> None:
    for name in ("cat", "café", "狗", "two words", "$0_$10", "[red]", "no\u00a0break"):
        assert readable(name) == encodable(name) == name
    assert readable(os_name) == r"caf\xe9"
    assert readable("狗" + os_name) == r"狗caf\xe9"


@pytest.mark.parametrize("name", ["$0_$10", "cash $5 or $10", r"a\$b$c", "$", "no dollar"])
def test_matplotlib_shows_dollars_as_they_are(name: str) -> None:
    import io

    from matplotlib import rc_context
    from matplotlib.figure import Figure

    figure = Figure()
    figure.text(0.5, 0.5, for_figure(name))
    picture = io.StringIO()
    with rc_context({"svg.fonttype": "none"}):
        figure.savefig(picture, format="svg")
    assert f">{name}</text>" in picture.getvalue()


def test_a_script_element_cannot_be_ended_from_within() -> None:
    document = {"name": "<!--<script></script>"}
    assert "<" not in for_script(document)
    assert json.loads(for_script(document)) == document


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_text_file_is_read_whatever_editor_saved_it(encoding: str) -> None:
    for end in ("\n", "\r\n", "\r"):
        assert decode_text(f"epochs = 1 # é{end}".encode(encoding)) == "epochs = 1 # é\n"


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "cp437"])
def test_a_stream_of_another_encoding_gets_ascii(encoding: str) -> None:
    assert "狗 … 50 ±".encode(encoding, PLAINLY).startswith(rb"\u72d7 ")
    assert "–".encode("ascii", PLAINLY) == b"-"
