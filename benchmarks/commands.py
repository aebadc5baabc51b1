"""codedtool commands that a benchmark runs, each printed before it runs, so that each can be run by hand."""

from __future__ import annotations

import shlex
import subprocess
import sys

from codedtool.errors import InputError
from codedtool.training.run import DEFAULT_FOLDER, Run


def codedtool(*arguments: str) -> None:
    """Run one command; a failure ends the benchmark."""
    print("$", shlex.join(["codedtool", *arguments]), flush=True)
    subprocess.run([sys.executable, "-m", "codedtool", *arguments], check=True)


def train(name: str, *arguments: str) -> Run:
    """The run ``name``, trained to its end: from nothing, or from where an earlier call stopped."""
    try:
        run = Run.load(DEFAULT_FOLDER / name)
    except InputError:
        codedtool("train", *arguments, "--run-name", name)
    else:
        if len(run.metrics()) < run.recipe.epochs:
            codedtool("train", "--resume", "--run-name", name)
    return Run.load(DEFAULT_FOLDER / name)
