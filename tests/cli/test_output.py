"""Where the output goes never ends a command, and ``--json`` is one document whatever happens."""

from __future__ import annotations

import gc
import json
import os
import pty
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from codedtool.analysis.result import Table
from codedtool.cli import app, session, verify
from codedtool.cli.session import print_table, progress_display
from codedtool.coding.result import SchemeResult
from codedtool.coding.search import find_scheme
from tests.cli.test_cli import run

BOUNDS = "bounds --K 10 --N 64 --act 20"


def shell(line: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a line of bash in which ``codedtool`` is this tree's; the exit code is that of its first command."""
    command = f"codedtool() {{ '{sys.executable}' -m codedtool \"$@\"; }}; {line}; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command], cwd=cwd, env=os.environ | environment, capture_output=True, timeout=120, check=False
    )
    return subprocess.CompletedProcess(line, done.returncode, done.stdout.decode("latin-1"), done.stderr.decode())


def test_what_is_printed_goes_where_stdout_leads_while_bars_are_at_the_terminal(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    code = (
        "from codedtool.cli.session import progress_display, say\n"
        "with progress_display(quiet=False) as progress:\n"
        "    progress('working', 1, 2)\n"
        "    say('a result', to_stderr=False)\n"
    )
    with (tmp_path / "stdout").open("wb") as stdout:
        process = subprocess.Popen(
            [sys.executable, "-c", code], env=os.environ | {"TERM": "xterm"}, stdout=stdout, stderr=theirs
        )
    os.close(theirs)
    shown = b""
    # At its end a terminal without a process gives an error instead of nothing.
    with suppress(OSError):
        while part := os.read(ours, 4096):
            shown += part
    os.close(ours)
    assert process.wait(timeout=60) == 0
    assert (tmp_path / "stdout").read_text() == "a result\n"
    assert b"working" in shown
    assert b"a result" not in shown


@pytest.mark.parametrize("end", ["| true", "| head -1", ">&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("flags", ["", "--json -q"])
def test_a_reader_that_goes_away_is_no_error(end: str, flags: str, tmp_path: Path) -> None:
    done = shell(f"codedtool {BOUNDS} {flags} {end}", tmp_path)
    assert done.returncode == 0
    assert "Error" not in done.stderr


def test_a_closed_stream_gives_its_number_to_no_file_of_the_command(tmp_path: Path) -> None:
    words = "--words 0000011111,0111100001,1110011000"
    done = shell(f"codedtool scheme --K 3 --N 10 --act 5 --hmin 6 {words} --out a.npy >&- 2>&-", tmp_path)
    assert done.returncode == 0
    assert run("verify", "a.npy", cwd=tmp_path).returncode == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is full is Linux's")
def test_what_cannot_be_printed_is_said_after_the_work(tmp_path: Path) -> None:
    done = shell(f"codedtool {BOUNDS} -q >/dev/full", tmp_path)
    assert done.returncode == 2
    assert "standard output (No space left on device)" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("line", ["scheme --K 3 --N 6 --act 3 --hmin 4 -q", "scheme --K 3 --N 6 --act 3 --hmin 99 -q"])
def test_the_search_for_cycles_is_off_in_a_search_only(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def search(*arguments: Any, **options: Any) -> SchemeResult:
        seen.append(gc.isenabled())
        return find_scheme(*arguments, **options)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("codedtool.coding.search.find_scheme", search)
    CliRunner().invoke(app, line.split())
    assert (seen, gc.isenabled()) == ([False], True)


@pytest.mark.parametrize("encoding", ["ascii", "cp437", "utf-16"])
def test_any_encoding_of_stdout_will_do(encoding: str, tmp_path: Path) -> None:
    for line in ("sweep --help", BOUNDS):
        done = shell(f"codedtool {line}", tmp_path, PYTHONIOENCODING=encoding)
        assert done.returncode == 0, done.stderr
        assert done.stdout


def test_without_stderr_neither_cpp_code_nor_a_worker_writes_to_it(tmp_path: Path) -> None:
    script = (
        "import os, subprocess, sys\nfrom codedtool.cli.streams import guard_streams, without_stderr\nguard_streams()\n"
        "def write(text):\n    print(text, file=sys.stderr)\n    os.write(2, b'%d' % len(text))\n"
        "    subprocess.run(['sh', '-c', 'echo worker >&2'])\n"
        "with without_stderr():\n    write('hidden')\nwrite('shown')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stderr == "shown\n5worker\n"


def wide_table(num_columns: int = 12) -> Table:
    header = ("file", *(f"column number {number}" for number in range(num_columns)))
    names = ("schemes/a_long_name_first.npy", "schemes/a_long_name_second.npy")
    return Table("caption", header, tuple((name, *("250..250",) * num_columns) for name in names))


@pytest.mark.parametrize("width", [80, 40, 20])
def test_a_narrow_terminal_gets_every_cell_whole(
    width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "_is_terminal", lambda stream: True)
    monkeypatch.setenv("COLUMNS", str(width))
    table = wide_table()
    print_table(table, to_stderr=False)
    text = capsys.readouterr().out
    assert text.count("250..250") == 24
    assert "…" not in text
    # Every part has both names.
    assert text.count(table.rows[0][0]) == text.count(table.rows[1][0]) == text.count("file") > 1
    if width == 80:
        assert max(map(len, text.splitlines())) <= width


def test_a_pipe_gets_a_table_as_wide_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(wide_table(40), to_stderr=False)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert lines[2].count("250..250") == 40


@pytest.mark.parametrize("name", ["[red]cat[/red]", "a[/]", ":smile:", "two\nlines", "\x1b[31mred", "caf\udce9"])
def test_a_name_is_shown_as_it_is(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_table(Table(name, (name, name), ((name, name),)), to_stderr=False)
    session.say(name, to_stderr=False)
    text = capsys.readouterr().out
    shown = name.replace("\n", "\\n").replace("\x1b", "\\x1b").replace("\udce9", "\\xe9")
    assert text.count(shown) >= 4
    assert text.splitlines()[-1] == shown
    assert "\x1b" not in text


def test_a_terminal_of_80_columns_keeps_bar_rate_and_time_left(tmp_path: Path) -> None:
    pty = pytest.importorskip("pty")
    script = (
        "import time\nfrom codedtool.cli.session import progress_display\n"
        "with progress_display(quiet=False) as progress:\n"
        "    progress('[bold]training', 0, 10, 'epoch 1')\n    time.sleep(0.3)\n"
        "    progress('[bold]training', 4.5, 10, '1,234 images/s, ' + 'a long note ' * 9)\n    time.sleep(0.3)\n"
        "    progress.line('epoch 1: a line that stays')\n    time.sleep(0.2)\n"
    )
    (tmp_path / "script.py").write_text(script)
    parent, child = pty.openpty()
    environment = os.environ | {"COLUMNS": "80", "TERM": "xterm"}
    with subprocess.Popen([sys.executable, tmp_path / "script.py"], stderr=child, env=environment) as process:
        os.close(child)
        text = ""
        while True:
            try:
                part = os.read(parent, 65536)
            except OSError:
                break
            if not part:
                break
            text += part.decode()
        process.wait()
    os.close(parent)
    assert process.returncode == 0
    assert "epoch 1: a line that stays" in text
    line = next(line for line in text.replace("\r", "\n").split("\n") if "45%" in line)
    for wanted in ("[bold]training", "━", "left", "1,234 images/s"):
        assert wanted in line


def invoke(*arguments: str) -> tuple[int, dict[str, object], str]:
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, json.loads(result.stdout), result.stderr


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        ("bounds", 2, "Missing option '--K'"),
        ("bounds --K x --N 10 --act 3", 2, "--K"),
        ("bounds --K 10 --N 10 --act 99", 2, "--act must be"),
        ("bounds --nothing", 2, "--nothing"),
        ("nothing", 2, "nothing"),
        ("scheme --K 100 --N 10 --act 3 --hmin 4", 3, "at most 13"),
    ],
)
def test_an_error_is_one_document_and_quiet_is_quiet(line: str, code: int, message: str) -> None:
    exit_code, document, stderr = invoke(*line.split(), "--json", "--quiet")
    assert (exit_code, document["exit_code"], stderr) == (code, code, "")
    assert message in str(document["error"])
    exit_code, document, stderr = invoke(*line.split(), "--json")
    assert (exit_code, document["exit_code"]) == (code, code)
    assert message in stderr


@pytest.mark.parametrize(
    ("ending", "code"),
    [(RuntimeError("a bug"), 1), (KeyboardInterrupt(), 130), (MemoryError("unable to allocate 6.7 GiB"), 3)],
)
def test_a_bug_and_an_interruption_are_one_document_too(
    ending: BaseException, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end(*_: object) -> None:
        raise ending

    monkeypatch.setattr("codedtool.coding.verify.find_scheme_files", end)
    assert verify.verify
    exit_code, document, stderr = invoke("verify", "--json", "-q")
    assert (exit_code, document["exit_code"], stderr) == (code, code, "")
    assert ("traceback" in document) == (code == 1)


def test_a_document_that_json_cannot_hold_is_an_error_document(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("codedtool.coding.verify.VerifyReport.to_json", lambda _: {"method": float("nan")})
    exit_code, document, stderr = invoke("verify", "c10_3of10", "--json", "-q")
    assert (exit_code, document["exit_code"], stderr) == (1, 1, "")
    assert "not JSON compliant" in str(document["error"])


def test_json_does_not_print_the_tables_again() -> None:
    exit_code, document, stderr = invoke("bounds", "--K", "10", "--N", "10", "--act", "3", "--json")
    assert exit_code == 0
    assert document["bounds"]
    assert "Johnson" not in stderr


def test_quiet_shows_no_progress(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_display(quiet=True) as progress:
        progress("training", 1, 2, "note")
        progress.line("line")
    assert capsys.readouterr() == ("", "")
