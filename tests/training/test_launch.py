"""How a process was started: the variables of torchrun and clusters, whole, missing and impossible."""

from __future__ import annotations

import pytest

from codedtool.errors import InputError
from codedtool.training.devices import opened_runtime
from codedtool.training.launch import ALONE, Launch, check_group, read_launch
from codedtool.training.recipe import Recipe
from codedtool.training.torch_runtime import TorchRuntime

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
pytestmark = pytest.mark.quick


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


def setenv(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    for word in text.split():
        name, _, value = word.partition("=")
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ALONE),
        ("RANK= WORLD_SIZE= LOCAL_RANK= MASTER_ADDR=", ALONE),
        ("RANK=0 WORLD_SIZE=1", ALONE),
        ("RANK=3 WORLD_SIZE=4 LOCAL_RANK=1 LOCAL_WORLD_SIZE=2", Launch(3, 4, 1, 2)),
        ("RANK=3 WORLD_SIZE=4 LOCAL_RANK=1", Launch(3, 4, 1, 1)),
        ("WORLD_SIZE=2", Launch(0, 2, 0, 1)),
    ],
)
def test_what_the_variables_say(text: str, expected: Launch, monkeypatch: pytest.MonkeyPatch) -> None:
    setenv(monkeypatch, text)
    assert read_launch() == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("RANK=x", "RANK=x, which is no whole number"),
        ("WORLD_SIZE=2.0", "WORLD_SIZE=2.0, which is no whole number from 1"),
        ("WORLD_SIZE=0", "WORLD_SIZE=0, which is no whole number from 1"),
        ("RANK=-1 WORLD_SIZE=2", "RANK=-1"),
        ("RANK=2 WORLD_SIZE=2", "RANK=2 and WORLD_SIZE=2: RANK must be smaller"),
        ("RANK=1", "RANK=1 and no WORLD_SIZE"),
        ("RANK=1 WORLD_SIZE=4 LOCAL_RANK=2 LOCAL_WORLD_SIZE=2", "LOCAL_RANK=2 and LOCAL_WORLD_SIZE=2"),
        ("RANK=\u0663 WORLD_SIZE=9", "no whole number"),
        ("WORLD_SIZE=" + "9" * 5000, "no whole number"),
    ],
)
def test_impossible_values_are_one_message(text: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    setenv(monkeypatch, text)
    with pytest.raises(InputError, match=message) as caught:
        read_launch()
    assert "unset these variables" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("WORLD_SIZE=2", "RANK and MASTER_ADDR and MASTER_PORT are not set"),
        ("RANK=0 WORLD_SIZE=2 MASTER_PORT=29500", "MASTER_ADDR is not set"),
        ("RANK=0 WORLD_SIZE=2 MASTER_ADDR=localhost", "MASTER_PORT is not set"),
    ],
)
def test_ranks_without_an_address_cannot_train_and_one_process_works(
    text: str, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    setenv(monkeypatch, text)
    with pytest.raises(InputError, match=missing), opened_runtime(Recipe(device="cpu"), is_training=True):
        pass
    with opened_runtime(Recipe(device="cpu", precision="fp32")) as runtime:
        assert (runtime.rank, runtime.world_size) == (0, 1)
    monkeypatch.setenv("WORLD_SIZE", "1")
    check_group(read_launch(), has_gpus=True)


def test_ranks_with_gpus_need_their_number_on_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    setenv(monkeypatch, "RANK=1 WORLD_SIZE=2 MASTER_ADDR=localhost MASTER_PORT=29500")
    check_group(read_launch(), has_gpus=False)
    with pytest.raises(InputError, match="but LOCAL_RANK is not set"):
        check_group(read_launch(), has_gpus=True)


def test_a_master_that_cannot_be_reached_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    setenv(monkeypatch, "RANK=0 WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=x")
    with (
        pytest.raises(InputError, match="rank 0 of 2 cannot join the others at 127.0.0.1:x"),
        opened_runtime(Recipe(device="cpu", precision="fp32"), is_training=True),
    ):
        pass


@pytest.mark.parametrize(("count", "advice"), [(1, "one CUDA device.*LOCAL_RANK=0 for all"), (2, "2 CUDA devices")])
def test_a_rank_without_a_device_of_its_own(count: int, advice: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: count)
    with pytest.raises(InputError, match=f"rank 2 has LOCAL_RANK=2.*{advice}"):
        TorchRuntime(Recipe(), "cuda", Launch(2, 4, 2, 4))
