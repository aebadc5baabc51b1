"""Devices that a machine lacks, and how ranks leave their group."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import cast

import pytest
import torch
import torch.distributed as dist

from codedtool.errors import InputError
from codedtool.training import devices
from codedtool.training.devices import opened_runtime
from codedtool.training.recipe import Recipe
from codedtool.training.run import Run
from codedtool.training.runtime import Interrupted
from codedtool.training.subject import opened_run
from codedtool.training.torch_runtime import TorchRuntime
from codedtool.training.train import resume, train
from tests.subjects import tiny_schemes

RECIPE = Recipe(
    data="digits", preset="coded_resnext_tiny", epochs=1, batch_size=600, warmup_epochs=0, device="cpu", num_workers=0
)
no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="the machine has a GPU")


@no_gpu
@pytest.mark.parametrize("precision", ["auto", "fp32", "bf16", "fp16"])
def test_cuda_without_a_gpu_is_one_message_in_every_precision(precision: str, tmp_path: Path) -> None:
    recipe = RECIPE.with_values({"device": "cuda", "precision": precision})
    with pytest.raises(InputError, match="sees no CUDA device"):
        train(recipe, tiny_schemes(), folder=tmp_path)


@no_gpu
def test_a_run_from_a_gpu_works_without_one(tmp_path: Path) -> None:
    train(RECIPE, tiny_schemes(), run_name="one", folder=tmp_path)
    config = tmp_path / "one" / "config.json"
    document = json.loads(config.read_text())
    document["recipe"] |= {"device": "cuda", "precision": "fp16"}
    config.write_text(json.dumps(document))
    run = Run.load("one", folder=tmp_path)
    with (
        pytest.warns(UserWarning, match="`device` cpu is used"),
        pytest.warns(UserWarning, match="`precision` fp32 is used"),
        opened_run(run) as subject,
    ):
        assert (subject.runtime.device.type, subject.runtime.precision) == ("cpu", "fp32")
    with pytest.raises(InputError, match="sees no CUDA device"), opened_run(run, changes={"device": "cuda"}):
        pass
    with (
        pytest.warns(UserWarning, match="`device` cpu is used"),
        pytest.raises(InputError, match="begun in fp16 goes on with CUDA only"),
    ):
        resume(run)
    document["recipe"] |= {"precision": "fp32"}
    config.write_text(json.dumps(document))
    with pytest.warns(UserWarning, match="`device` cpu is used"):
        assert resume(Run.load("one", folder=tmp_path)).epochs == 1


@pytest.mark.parametrize(
    ("error", "is_together"), [(None, True), (Interrupted("saved"), True), (InputError("no data"), False)]
)
def test_a_rank_that_fails_does_not_wait_for_the_others_to_leave(
    error: Exception | None, is_together: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NCCL's group is left by all ranks at once; the failed rank's message would come after its time limit."""
    left = []
    runtime = cast(TorchRuntime, object.__new__(TorchRuntime))
    runtime.world_size = 2
    monkeypatch.setattr(devices, "_open_runtime", lambda recipe, launch: runtime)
    monkeypatch.setattr(dist, "destroy_process_group", lambda: left.append(dist.get_backend()))
    for backend in ("gloo", "nccl"):
        monkeypatch.setattr(dist, "get_backend", lambda backend=backend: backend)
        with contextlib.suppress(Interrupted, InputError), opened_runtime(Recipe(device="cpu", precision="fp32")):
            if error is not None:
                raise error
    assert left == (["gloo", "nccl"] if is_together else ["gloo"])
