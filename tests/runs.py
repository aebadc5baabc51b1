"""Short real trainings for several test files: each is done once, whatever number of processes runs the tests."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from filelock import FileLock

from tests.paths import SCHEMES


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs/coded and runs/plain: three epochs on scikit-learn's digits. To be copied, not written to."""
    base = tmp_path_factory.getbasetemp()
    # pytest-xdist gives every worker a folder of its own within the session's.
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder = shared / "trained"
    with FileLock(shared / "trained.lock"):
        if not (folder / "whole").exists():
            _train(folder)
            (folder / "whole").touch()
    return folder


def _train(folder: Path) -> None:
    import torch

    from codedtool.coding.scheme import CodingScheme
    from codedtool.training.recipes import recipe_for
    from codedtool.training.train import train

    # In this process PyTorch's idle threads may spin, which costs far more than they bring.
    torch.set_num_threads(1)
    schemes = {
        stage: CodingScheme.load(SCHEMES / f"{name}.npy") for stage, name in (("s2", "c10_5of10"), ("s3", "c10_3of10"))
    }
    recipe = recipe_for("digits").with_values({"epochs": 3, "device": "cpu", "precision": "fp32"})
    for name, preset, own in (("coded", "coded_resnext_tiny", schemes), ("plain", "resnext_tiny", {})):
        train(recipe.with_values({"preset": preset}), own, run_name=name, folder=folder / "runs")


def copy_of(trained: Path, folder: Path) -> Path:
    """A copy of the trained runs, in ``folder``, to be written to."""
    shutil.copytree(trained / "runs", folder / "runs")
    return folder
