"""codedtool commands that a benchmark runs, and the files that they leave in a run.

Each command is printed before it runs, so that it can be run by hand.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
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
    wanted = _training(name, arguments)
    if wanted is not None:
        codedtool(*wanted)
    return Run.load(DEFAULT_FOLDER / name)


def train_at_once(trainings: Mapping[str, Sequence[str]]) -> list[Run]:
    """The runs of several names, as `train` makes them, each with its share of the CPU's cores.

    Several trainings on one thread each see more images per second than one after the other on all threads do. Their
    lines are printed with their names; a failure of one ends the benchmark when all have ended.
    """
    wanted = {name: command for name, arguments in trainings.items() if (command := _training(name, arguments))}
    threads = max(1, len(os.sched_getaffinity(0)) // max(1, len(wanted)))
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    processes = {}
    for name, command in wanted.items():
        print(f"$ OMP_NUM_THREADS={threads}", shlex.join(["codedtool", *command]), flush=True)
        processes[name] = subprocess.Popen(
            [sys.executable, "-m", "codedtool", *command],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    readers = [threading.Thread(target=_repeat, args=item) for item in processes.items()]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    failed = [name for name, process in processes.items() if process.wait()]
    if failed:
        raise SystemExit(f"trainings that failed: {', '.join(failed)}")
    return [Run.load(DEFAULT_FOLDER / name) for name in trainings]


def _repeat(name: str, process: subprocess.Popen[str]) -> None:
    """Print the lines of a process with its name before them."""
    assert process.stdout is not None
    for line in process.stdout:
        print(f"{name}: {line}", end="", flush=True)


def _training(name: str, arguments: Sequence[str]) -> list[str] | None:
    """The command that trains the run ``name`` to its end; None: it is trained."""
    try:
        run = Run.load(DEFAULT_FOLDER / name)
    except InputError:
        return ["train", *arguments, "--run-name", name]
    if len(run.metrics()) < run.recipe.epochs:
        return ["train", "--resume", "--run-name", name]
    return None


def analyse(run: Run, verb: str, *arguments: str, device: str, file: str | None = None) -> None:
    """Run the command ``verb`` on a run, unless the file that it leaves there exists (``file``; None: VERB.json)."""
    if not artifact_path(run, file or f"{verb}.json").exists():
        # The last checkpoint, so that no validation image had a say in which; and larger batches than training's.
        shared = ["--checkpoint", "last", "--batch-size", "500", "--device", device]
        codedtool(verb, "--run", str(run.path), *shared, *arguments)


def read_document(run: Run, name: str) -> Any:
    """The JSON document NAME.json that an analysis left in a run."""
    return json.loads(artifact_path(run, f"{name}.json").read_text())
