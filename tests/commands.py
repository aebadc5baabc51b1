"""Commands run within the test's own process, where PyTorch is imported once."""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path

from typer.testing import CliRunner

from codedtool.cli import app


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run ``codedtool`` with --quiet in a folder; the exit code and the streams are those of a process.

    An exception that a user would see as a traceback is raised here.
    """
    with contextlib.chdir(cwd):
        result = CliRunner().invoke(app, [*arguments, "--quiet"])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return subprocess.CompletedProcess(arguments, result.exit_code, result.stdout, result.stderr)
