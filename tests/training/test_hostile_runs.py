"""Three hundred hostile run directories: files cut, changed, swapped, gone, of another run: a clear error, or it works.

Where it is an error, no file is changed, and no checkpoint is lost.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from codedtool.analysis.decoding import load_decoding
from codedtool.deploy.prediction import predict
from codedtool.errors import CodedtoolError
from codedtool.report.figures_training import draw_training
from codedtool.training.run import Run
from codedtool.training.subject import opened_run
from codedtool.training.totals import DivergedError
from codedtool.training.train import resume
from tests.hostile import files_of, mutated

NUMBER = 300


def spoil(run: Path, other: Path, chance: random.Random) -> str:
    """Spoil one to three files of a run; returns which and how."""
    said = []
    for _ in range(chance.choice((1, 1, 2, 3))):
        files = sorted(path for path in run.rglob("*") if path.is_file())
        if not files:
            break
        file = chance.choice(files)
        how = chance.choice(("mutate", "mutate", "mutate", "cut", "empty", "swap", "other", "gone", "folder", "link"))
        content = file.read_bytes()
        if how == "mutate":
            file.write_bytes(mutated(content, [path.read_bytes() for path in files], chance))
        elif how == "cut":
            file.write_bytes(content[: chance.randrange(len(content) + 1)])
        elif how == "empty":
            file.write_bytes(b"")
        elif how == "swap":
            second = chance.choice(files)
            file.write_bytes(second.read_bytes())
            second.write_bytes(content)
        elif how == "other":
            theirs = other / file.relative_to(run)
            file.write_bytes((theirs if theirs.is_file() else chance.choice(sorted(other.rglob("*.*")))).read_bytes())
        else:
            file.unlink()
            if how == "folder":
                file.mkdir()
            elif how == "link":
                file.symlink_to(file)
        if chance.random() < 0.5:
            with contextlib.suppress(ValueError, OSError, KeyError, TypeError, AttributeError):
                # As one who knows how: the manifest fits the changed files again.
                manifest = json.loads((file.parent / "manifest.json").read_text())
                for name in manifest["files"]:
                    data = (file.parent / name).read_bytes()
                    manifest["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
                (file.parent / "manifest.json").write_text(json.dumps(manifest))
        said.append(f"{how} {file.relative_to(run)}")
    return ", ".join(said)


def use(folder: Path, image: Path) -> None:
    run = Run.load(folder)
    if rows := run.metrics():
        draw_training(rows)
    with opened_run(run, changes={"device": "cpu"}) as subject:
        load_decoding(subject)
        predict(subject, [image], evidence=subject.evidence())
    with opened_run(run, checkpoint="last") as subject:
        pass
    run.checkpoints.load("last")


def check(trained: Path, folder: Path, seeds: range) -> int:
    """Use one hostile run per seed; returns how many worked."""
    folder.mkdir()
    torch.set_num_threads(1)
    Image.fromarray(np.full((8, 8, 3), 90, np.uint8)).save(folder / "image.png")
    worked = 0
    for seed in seeds:
        chance = random.Random(seed)
        shutil.rmtree(folder / "runs", ignore_errors=True)
        shutil.copytree(trained / "runs" / "coded", folder / "runs" / "hostile")
        (folder / "runs" / "latest").write_text("mine\n")
        how = spoil(folder / "runs" / "hostile", trained / "runs" / "plain", chance)
        before = files_of(folder)
        which = chance.choice(("last", "best", "previous"))
        for work in (
            lambda: use(folder / "runs" / "hostile", folder / "image.png"),
            lambda which=which: resume(Run.load(folder / "runs" / "hostile"), checkpoint=which),
        ):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    work()
                worked += 1
            except DivergedError:
                pass  # weights that can be trained on, and lead nowhere: the training has begun
            except CodedtoolError as error:
                said = str(error)
                assert said, how  # the error is expected, and so is that there is none
                assert files_of(folder) == before, f"{seed}: {how}"
            except Exception as error:
                raise AssertionError(f"seed {seed}, {how}: {error!r}") from error
    return worked


def test_hostile_runs_work_or_are_clear_errors(trained: Path, tmp_path: Path) -> None:
    assert check(trained, tmp_path / "few", range(12)) < 24


@pytest.mark.slow
def test_three_hundred_hostile_runs(trained: Path, tmp_path: Path) -> None:
    assert 0 < check(trained, tmp_path / "many", range(NUMBER)) < 2 * NUMBER
