"""``codedtool train`` and ``eval`` as a user meets them: kills, resumes, several processes, XLA, and errors."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from codedtool.cli import app
from codedtool.cli.runs import prepare_torch
from codedtool.coding.scheme import CodingScheme
from codedtool.training.recipes import recipe_for
from codedtool.training.run import Run

# Table 4, r = 5/10, in the order of CIFAR-10's classes.
TABLE4_5OF10 = (
    "1010100011",
    "0101010101",
    "1101100010",
    "0011001101",
    "1010010101",
    "1001001110",
    "1011101000",
    "0100011110",
    "0110111000",
    "0100110011",
)

# In bfloat16, which some machines choose by themselves, rounding would hide what the tests compare.
SHORT = ("--data", "digits", "--epochs", "2", "--batch-size", "120", "--precision", "fp32", "--quiet")

GENTLE = ("--lr", "0.005")

# One thread: several processes share the cores, and the sums of one thread have one order everywhere.
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with table 4's two schemes in schemes/, where every command of this file runs."""
    folder = tmp_path_factory.mktemp("house")
    from tests.conftest import TABLE4_3OF10

    for name, words in (("c10_5of10", TABLE4_5OF10), ("c10_3of10", TABLE4_3OF10)):
        table = np.array([[int(digit) for digit in word] for word in words], dtype=np.uint8)
        CodingScheme(table).save(folder / "schemes" / f"{name}.npy")
    return folder


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "codedtool", *arguments]


def train_command(name: str, *more: str) -> list[str]:
    return command("train", "--scheme", "schemes/c10_3of10.npy", *SHORT, "--run-name", name, *more)


def run(arguments: list[str], cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        arguments, cwd=cwd, env=ENVIRONMENT | environment, capture_output=True, text=True, timeout=900, check=False
    )


def done(arguments: list[str], cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    finished = run(arguments, cwd, **environment)
    assert finished.returncode == 0, finished.stderr
    return finished


def here(arguments: list[str], cwd: Path) -> Result:
    """Run a command in this process, which has PyTorch loaded already; with one thread, as `run` does."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with contextlib.chdir(cwd):
            return CliRunner().invoke(app, arguments[3:])
    finally:
        torch.set_num_threads(threads)


def done_here(arguments: list[str], cwd: Path) -> Result:
    finished = here(arguments, cwd)
    assert finished.exit_code == 0, finished.output
    return finished


def load(house: Path, name: str) -> Run:
    return Run.load(house / "runs" / name)


def rows(house: Path, name: str) -> list[dict[str, Any]]:
    """The metrics without the one column that a clock decides."""
    return [{k: v for k, v in row.items() if k != "images_per_second"} for row in load(house, name).metrics()]


def assert_same_run(house: Path, one: str, other: str) -> None:
    """Weights and metrics agree bit for bit."""
    first, second = (load(house, name).checkpoints.load("last") for name in (one, other))
    assert first.name == second.name
    assert first.weights.keys() == second.weights.keys()
    for key, tensor in first.weights.items():
        assert torch.equal(tensor, second.weights[key]), key
    assert rows(house, one) == rows(house, other)


def close(first: list[dict[str, Any]], second: list[dict[str, Any]], key: str, tolerance: float) -> bool:
    return all(abs(a[key] - b[key]) <= tolerance for a, b in zip(first, second, strict=True))


@pytest.fixture(scope="module")
def straight(house: Path) -> str:
    """Name of a run that nothing disturbed."""
    done_here(train_command("straight"), house)
    return "straight"


@pytest.fixture(scope="module")
def gentle(house: Path) -> str:
    """Name of a run whose steps are so small that rounding does not grow: what other devices are compared with."""
    done_here(train_command("gentle", *GENTLE), house)
    return "gentle"


def test_a_run_describes_itself(house: Path, straight: str) -> None:
    trained = load(house, straight)
    assert trained.classes == tuple("0123456789")
    assert (trained.recipe.data, trained.recipe.epochs) == ("digits", 2)
    network = trained.load_network("best")
    assert not network.training
    with (house / "runs" / straight / "metrics.csv").open() as stream:
        table = list(csv.DictReader(stream))
    assert [row["epoch"] for row in table] == ["1", "2"]
    assert [float(row["val_loss"]) for row in table] == [row["val_loss"] for row in trained.metrics()]


def test_eval_gives_the_numbers_of_the_training(house: Path, straight: str) -> None:
    document = json.loads(done_here(command("eval", "--run", straight, "--checkpoint", "last", "--json"), house).stdout)
    last = load(house, straight).metrics()[-1]
    assert document["accuracy"] == last["val_accuracy"]
    assert document["loss"] == pytest.approx(last["val_loss"], rel=1e-6)
    for block, value in document["decoder_accuracy"].items():
        assert value == last[f"val_decoder_accuracy_{block}"]
    assert document["num_images"] > 300


def test_kill_9_at_any_moment_and_resume_is_the_undisturbed_run(house: Path, straight: str) -> None:
    chance = random.Random(3)
    index = house / "runs" / "killed" / "checkpoints" / "index.json"
    arguments = train_command("killed", "--checkpoint-minutes", "0")
    names = []
    for _ in range(3):
        before = index.read_bytes() if index.exists() else b""
        process = subprocess.Popen(arguments, cwd=house, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
        while not index.exists() or index.read_bytes() == before:
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        names.append(load(house, "killed").checkpoints.index()["last"])
        arguments = command("train", "--resume", "--run-name", "killed", "--checkpoint-minutes", "0", "--quiet")
    assert any(not name.endswith("s000000") for name in names), "no kill fell within an epoch"
    done(command("train", "--resume", "--run-name", "killed", "--quiet"), house)
    assert_same_run(house, straight, "killed")
    assert (house / "runs" / "killed" / "metrics.csv").read_text().count("epoch,") == 1


@pytest.mark.slow
def test_ctrl_c_saves_first_ends_with_130_and_resumes_to_the_same_end(house: Path, straight: str) -> None:
    folder = house / "runs" / "interrupted"
    arguments = train_command("interrupted", "--ema-decay", "0")
    process = subprocess.Popen(arguments, cwd=house, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    while not (folder / "metrics.csv").exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    text = process.communicate(timeout=60)[1]
    assert process.returncode == 130, text
    assert "--resume" in text
    assert load(house, "interrupted").checkpoints.index()["last"] != "e0002s000000"
    done(command("train", "--resume", "--run-name", "interrupted", "--quiet"), house)
    assert_same_run(house, straight, "interrupted")


@pytest.mark.slow
def test_a_damaged_checkpoint_is_refused_and_the_previous_one_resumes(house: Path, straight: str) -> None:
    done(train_command("damaged"), house)
    checkpoints = load(house, "damaged").checkpoints
    path = checkpoints.folder / checkpoints.index()["last"] / "weights.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    refused = run(command("train", "--resume", "--run-name", "damaged", "--quiet"), house)
    assert refused.returncode == 2
    assert "--checkpoint previous" in refused.stderr
    assert path.read_bytes() == data
    done(command("train", "--resume", "--run-name", "damaged", "--checkpoint", "previous", "--quiet"), house)
    assert_same_run(house, straight, "damaged")


def test_two_processes_with_synchronised_statistics_are_the_single_process(house: Path, gentle: str) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    more = ("--sync-bn", "--json")
    finished = done([*torchrun, "-m", *train_command("two", *GENTLE, *more)[2:]], house)
    document = json.loads(finished.stdout)
    assert document["epochs"] == 2
    for key in [key for key in rows(house, gentle)[0] if "loss" in key]:
        assert close(rows(house, gentle), rows(house, "two"), key, 1e-4), key


def test_only_rank_0_does_and_prints_what_is_no_training(house: Path, straight: str) -> None:
    evaluate = command("eval", "--run", straight, "--json", "--quiet")
    first = done(evaluate, house, RANK="0", WORLD_SIZE="2", LOCAL_RANK="0")
    assert "accuracy" in json.loads(first.stdout)
    second = done(evaluate, house, RANK="1", WORLD_SIZE="2", LOCAL_RANK="1")
    assert (second.stdout, second.stderr) == ("", "")
    told = done(command("verify", "schemes"), house, RANK="1", WORLD_SIZE="2")
    assert told.stdout == ""
    assert told.stderr == "rank 1 of 2: rank 0 does this alone\n"


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE=2, but RANK and MASTER_ADDR and MASTER_PORT are not set"),
        ({"WORLD_SIZE": "2", "RANK": "0", "MASTER_PORT": "1"}, "WORLD_SIZE=2, but MASTER_ADDR is not set"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE=two, which is no whole number"),
    ],
)
def test_what_a_cluster_left_in_the_environment_is_one_message(
    variables: dict[str, str], message: str, house: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    before = sorted(house.rglob("*"))
    scheme = ("--scheme", "schemes/c10_3of10.npy")
    grid = command("sweep", "--vary", "mu=0,1", "--name", "left", *scheme, *SHORT)
    for arguments in (train_command("left"), grid):
        finished = here(arguments, house)
        assert finished.exit_code == 2, finished.output
        assert message.split(",")[0] in finished.stderr
        assert "unset these variables" in finished.stderr
    assert message in json.loads(here(train_command("left", "--json"), house).stdout)["error"]
    assert sorted(house.rglob("*")) == before


@pytest.mark.parametrize(
    ("set_before", "afterwards"),
    [
        ({}, {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "1000"}),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, {"OMP_WAIT_POLICY": "ACTIVE"}),
        ({"GOMP_SPINCOUNT": "5"}, {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "5"}),
    ],
)
def test_idle_threads_wait_for_a_short_time_unless_the_user_says_how(
    set_before: dict[str, str], afterwards: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    for name in names:
        # A variable that is set and then removed is restored, as it was, at the end.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    for name, value in set_before.items():
        monkeypatch.setenv(name, value)
    prepare_torch()
    assert {name: os.environ[name] for name in names if name in os.environ} == afterwards


@pytest.mark.slow
def test_the_failure_of_one_rank_ends_all_with_its_message(house: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    finished = run([*torchrun, "-m", *train_command("straight")[2:]], house)
    assert finished.returncode != 0
    assert "exists already" in finished.stderr


@pytest.mark.slow
def test_xla_trains_like_the_cpu(house: Path, gentle: str) -> None:
    done(train_command("xla", *GENTLE, "--device", "xla"), house, PJRT_DEVICE="CPU")
    for key in [key for key in rows(house, gentle)[0] if "loss" in key]:
        assert close(rows(house, gentle), rows(house, "xla"), key, 1e-3), key
    evaluated = done(command("eval", "--run", "xla", "--device", "xla", "--json"), house, PJRT_DEVICE="CPU")
    assert json.loads(evaluated.stdout)["accuracy"] == load(house, "xla").metrics()[-1]["val_accuracy"]


def test_a_loss_that_is_not_finite_stops_with_step_and_term_and_leaves_no_run(house: Path, straight: str) -> None:
    before = (house / "runs" / "latest").read_text()
    finished = here(train_command("diverged", "--lr", "1e30"), house)
    assert finished.exit_code == 3
    assert not (house / "runs" / "diverged").exists()
    assert (house / "runs" / "latest").read_text() == before
    message = " ".join(finished.stderr.split())
    assert "is not finite in epoch 1, step" in message
    assert "no checkpoint yet" in message
    assert "lower --lr" in message


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--config", "typo.toml"], "'epocs' is unknown; did you mean 'epochs'"),
        (["--preset", "coded_resnet_tiny"], "did you mean coded_resnext_tiny"),
        (["--stages", "s9"], "has no stage 's9'"),
        (["--config", "missing.toml"], "missing.toml: cannot be read"),
        (["--batch-size", "0"], "--batch-size must be at least 1, got 0"),
        (["--device", "tpu"], "--device must be one of"),
        (["--data", "cifar1"], "did you mean 'cifar10'"),
        (["--data", "synthetic:7"], "K = 10"),
        (["--run-name", "a/b"], "must be the name of one folder"),
        (["--scheme", "nothing.npy"], "nothing.npy"),
        (["--resume"], "--scheme and --resume exclude each other"),
        (["--checkpoint", "best"], "--checkpoint needs --resume"),
        (["--init", "nothing"], "there is no run nothing"),
        (["--init", "nothing.pth"], "nothing.pth: cannot be read"),
        (["--init", "torchvision"], "torchvision has no weights of this architecture"),
    ],
)
def test_bad_input_gets_one_message_and_leaves_nothing(
    more: list[str], message: str, house: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(house)
    (house / "typo.toml").write_text("epocs = 3\n")
    before = sorted(house.rglob("*"))
    finished = CliRunner().invoke(app, train_command("bad", *more)[3:])
    assert finished.exit_code == 2, finished.output
    assert message in " ".join(finished.output.split())
    assert sorted(house.rglob("*")) == before


def test_flags_win_over_the_config_file_which_wins_over_the_recipe(house: Path, tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text('scheme = ["schemes/c10_3of10.npy"]\ndata = "digits"\nepochs = 7\nlr = 0.25\nwarmup_lr = 0.1\n')
    arguments = ["train", "--config", str(config), "--epochs", "1", "--run-name", "configured", "--quiet"]
    finished = done_here(command(*arguments), house)
    assert "s2 r = 5/10 schemes/c10_5of10.npy, the sibling" in " ".join(finished.stdout.split())
    assert "warning: --warmup-lr has no effect" in finished.stderr
    recipe = load(house, "configured").recipe
    assert (recipe.epochs, recipe.lr, recipe.batch_size) == (1, 0.25, recipe_for("digits").batch_size)
    assert (house / "runs" / "latest").read_text() == "configured\n"


@pytest.mark.slow
def test_the_default_recipe_of_digits_reaches_97_percent(house: Path) -> None:
    finished = done(command("train", "--scheme", "schemes/c10_5of10.npy", "--data", "digits", "--json"), house)
    assert json.loads(finished.stdout)["last"]["val_accuracy"] >= 0.97


def test_a_resumed_run_cannot_change_what_decides_its_result(house: Path, straight: str) -> None:
    finished = here(command("train", "--resume", "--run-name", straight, "--lr", "0.5"), house)
    assert finished.exit_code == 2
    assert "--lr 0.5 cannot change" in " ".join(finished.stderr.split())


def test_more_epochs_are_a_new_run_with_the_weights_of_the_old(house: Path, straight: str) -> None:
    refused = here(command("train", "--resume", "--run-name", straight, "--epochs", "9"), house)
    assert refused.exit_code == 2
    assert f"begin a new run with its weights: --init {straight}" in " ".join(refused.stderr.split())
    finished = done_here(train_command("further", *GENTLE, "--init", straight), house)
    count = len(load(house, straight).load_network().state_dict())
    assert f"initial weights: {count} tensors of run runs/{straight}, best checkpoint" in finished.stdout
    assert "rows of the linear layer kept by class name: 0, 1, 2, 3, 4 and 5 more" in finished.stdout
    assert load(house, "further").metrics()[0]["val_loss"] < load(house, straight).metrics()[0]["val_loss"]
    assert load(house, "further").origin()["init"]["from"] == straight
    refused = here(command("train", "--resume", "--run-name", "further", "--init", straight), house)
    assert "--init and --resume exclude each other" in " ".join(refused.stderr.split())


@pytest.mark.slow
def test_two_processes_begin_with_the_same_weights_and_statistics_as_one(house: Path) -> None:
    plain = ("--preset", "resnext_tiny", *SHORT, "--run-name", "plain")
    done_here(command("train", *plain), house)
    more = (*GENTLE, "--sync-bn", "--init", "plain")
    done_here(train_command("one-begun", *more), house)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    finished = done([*torchrun, "-m", *train_command("two-begun", *more)[2:]], house)
    assert finished.stdout.count("estimated again on training images") == 1
    for key in [key for key in rows(house, "one-begun")[0] if "loss" in key]:
        assert close(rows(house, "one-begun"), rows(house, "two-begun"), key, 1e-3), key


def test_eval_without_a_run_says_how_to_get_one(tmp_path: Path) -> None:
    finished = here(command("eval", "--json"), tmp_path)
    assert finished.exit_code == 2
    assert "no run yet" in json.loads(finished.stdout)["error"]
