"""What the paper claims, on a real data set that trains in a minute: the coded and the plain network on the digits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from codedtool.analysis.classifier_metrics import CODED, ClassifiersResult, evaluate_classifiers
from codedtool.analysis.decoding import agreement_table, decode
from codedtool.analysis.specialization import specialize
from codedtool.data import Split
from codedtool.training.run import Run
from codedtool.training.subject import Subject, collect_outputs, opened_run
from tests.paths import SCHEMES

pytestmark = pytest.mark.slow

# One thread: other tests share the cores.
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the runs coded and plain, of the default recipe of digits."""
    folder = tmp_path_factory.mktemp("claims")
    schemes = [part for name in ("c10_5of10", "c10_3of10") for part in ("--scheme", str(SCHEMES / f"{name}.npy"))]
    for name, arguments in (("coded", schemes), ("plain", ["--preset", "resnext_tiny"])):
        command = [sys.executable, "-m", "codedtool", "train", *arguments, "--data", "digits", "--run-name", name]
        finished = subprocess.run(
            [*command, "--json", "--quiet"], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False
        )
        assert finished.returncode == 0, finished.stderr
        assert json.loads(finished.stdout)["best_accuracy"] >= 0.95
    return folder / "runs"


@pytest.fixture(scope="module")
def subject(runs: Path) -> Iterator[Subject]:
    # In this process PyTorch's idle threads may spin, which costs far more than they bring.
    torch.set_num_threads(1)
    with opened_run(Run.load(runs / "coded")) as opened:
        yield opened


@pytest.fixture(scope="module")
def classifiers(runs: Path, subject: Subject) -> ClassifiersResult:
    with opened_run(Run.load(runs / "plain")) as plain:
        return evaluate_classifiers(subject, range(10), plain=plain)


def test_binary_classifiers_of_the_coded_network_reach_an_f1_of_90_percent(classifiers: ClassifiersResult) -> None:
    """Section 4.3: without 60% of the network, its paths still tell their class (the paper: 84% on CIFAR-10)."""
    means = {row["source"]: row for row in classifiers.means()}
    assert means[CODED]["val_f1"] >= 0.90


def test_a_class_lives_in_its_active_subnns(subject: Subject) -> None:
    """Figure 2a: without all inactive subNNs of the last block less is lost than without the few active ones."""
    (curves,) = specialize(subject, blocks=[subject.network.block_names[-1]], seed=0).blocks
    assert curves.act < curves.num_subnns - curves.act, "more are removed where less should be lost"
    whole, without_active, without_inactive = curves.active[0], curves.active[-1], curves.inactive[-1]
    assert whole - without_inactive < whole - without_active


def test_deeper_decoders_know_more(subject: Subject) -> None:
    """Figure 4."""
    accuracy = list(decode(subject).decoder_accuracy.values())
    assert accuracy[-1] > accuracy[0] + 0.05


def test_where_the_decoders_agree_the_answer_is_more_often_right(subject: Subject) -> None:
    """Table 3, on noisy digits.

    On the clean ones the network errs too seldom: of the two dozen images with few agreeing decoders all may be right.
    Rows are pooled, for single ones hold a handful of images.
    """
    val = subject.data.val
    assert isinstance(val.images, np.ndarray)
    rng = np.random.default_rng(0)
    draws = [val.images + rng.normal(0, 40, (*val.images.shape[:3], 1)) for _ in range(4)]
    noisy = Split(np.concatenate(draws).clip(0, 255).astype(np.uint8), np.tile(val.targets, 4))
    rows = agreement_table(collect_outputs(subject, noisy))
    layers = len(rows) - 1
    few = [row for row in rows if row.agreeing <= layers / 2]
    num_few, num_all = sum(row.num_images for row in few), rows[-1].num_images
    assert min(num_few, num_all) >= 50
    accuracy_of_few = sum(row.num_images * (row.accuracy or 0) for row in few) / num_few
    assert (rows[-1].accuracy or 0) > accuracy_of_few + 0.1
