"""codedtool commands that a benchmark runs, and the files that they leave in a run.

Each command is printed before it runs, so that it can be run by hand.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from contextlib import suppress
from typing import Any

from codedtool.analysis.artifacts import artifact_path
from codedtool.errors import InputError
from codedtool.training.run import DEFAULT_FOLDER, Run


def codedtool(*arguments: str) -> None:
    """Run one command; a failure ends the benchmark."""
    print("$", shlex.join(["codedtool", *arguments]), flush=True)
    subprocess.run([sys.executable, "-m", "codedtool", *arguments], check=True)


def train(name: str, *arguments: str) -> Run:
    """The run ``name``, trained to its end: from nothing, or from where an earlier call stopped."""
    run = None
    with suppress(InputError):
        run = Run.load(DEFAULT_FOLDER / name)
    if run is None:
        codedtool("train", *arguments, "--run-name", name)
    elif len(run.metrics()) < run.recipe.epochs:
        codedtool("train", "--resume", "--run-name", name)
    return Run.load(DEFAULT_FOLDER / name)


def analyse(run: Run, verb: str, *arguments: str, device: str, file: str | None = None) -> None:
    """Run the command ``verb`` on a run, unless the file that it leaves there exists (``file``; None: VERB.json)."""
    if not artifact_path(run, file or f"{verb}.json").exists():
        # The last checkpoint, so that no validation image had a say in which; and larger batches than training's.
        shared = ["--checkpoint", "last", "--batch-size", "500", "--device", device]
        codedtool(verb, "--run", str(run.path), *shared, *arguments)


def read_document(run: Run, name: str) -> Any:
    """The JSON document NAME.json that an analysis left in a run."""
    return json.loads(artifact_path(run, f"{name}.json").read_text())
