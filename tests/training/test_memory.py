"""A step is tried before the first epoch: what fits is found, or refused with figures, and nothing else changes."""

from __future__ import annotations

import errno
import itertools
import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from codedtool.errors import OutOfMemoryError, library_without_memory
from codedtool.models import build_network
from codedtool.models.network import CodedNetwork
from codedtool.training import memory
from codedtool.training.devices import opened_runtime
from codedtool.training.memory import (
    available_bytes,
    fit_micro_batch,
    images_that_fit,
    is_out_of_memory,
    memory_told,
)
from codedtool.training.recipe import Recipe
from codedtool.training.recipes import recipe_for
from codedtool.training.run import Run
from codedtool.training.train import train

RECIPE = recipe_for("digits").with_values({"preset": "resnext_tiny", "device": "cpu", "precision": "fp32"})


FORWARD = CodedNetwork.forward


def tiny() -> CodedNetwork:
    return build_network("resnext_tiny")


def fitted(recipe: Recipe, monkeypatch: pytest.MonkeyPatch, *, free: float | None, most: int = 10**9) -> Recipe:
    """The recipe that fits ``free`` times the bytes of its largest step, where steps of over ``most`` images fail."""
    per_image, fixed = memory._needed_bytes(tiny(), recipe)
    available = None if free is None else int(free * (per_image * recipe.batch_size + fixed))
    monkeypatch.setattr(memory, "available_bytes", lambda device, processes: available)

    def forward(self: CodedNetwork, x: torch.Tensor, *rest: torch.Tensor, **more: object) -> object:
        if len(x) > most:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")
        return FORWARD(self, x, *rest, **more)  # type: ignore[arg-type]  # handed on

    monkeypatch.setattr(CodedNetwork, "forward", forward)
    with opened_runtime(recipe) as runtime:
        return fit_micro_batch(recipe, tiny, runtime)


def test_a_step_that_fits_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for free in (100.0, 1.2, None):
        assert fitted(RECIPE, monkeypatch, free=free) == RECIPE


@pytest.mark.filterwarnings("ignore:a step with")
def test_the_largest_half_that_fits_is_taken_by_count_or_by_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_WORKSPACE_BYTES", 0)
    assert fitted(RECIPE, monkeypatch, free=0.6).micro_batch == 32
    assert fitted(RECIPE, monkeypatch, free=None, most=20).micro_batch == 16
    given = RECIPE.with_values({"micro_batch": 40})
    assert fitted(given, monkeypatch, free=None, most=40) == given
    assert fitted(given, monkeypatch, free=None, most=39).micro_batch == 20


def test_the_warning_and_the_refusal_have_the_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.warns(UserWarning, match=r"MB an image of 8 px .*: `micro_batch` 8 is used, so a step takes 8 passes"):
        fitted(RECIPE, monkeypatch, free=None, most=8)
    with pytest.raises(OutOfMemoryError, match=r"a step with 2 images .* MB are available on cpu; lower `train_size`"):
        fitted(RECIPE, monkeypatch, free=0.01)
    monkeypatch.setattr(memory, "_step_fits", lambda *arguments, spare: False)
    with pytest.raises(OutOfMemoryError, match="memory does not suffice"):
        fitted(RECIPE, monkeypatch, free=None)


def test_no_pass_has_a_single_image() -> None:
    assert memory._candidates(64, 64) == [64, 32, 16, 8, 4, 2]
    for share in range(2, 200):
        for size in memory._candidates(share, share)[1:]:
            assert size >= 2
            assert share % size != 1
    assert memory._candidates(1, 1) == [1]


def test_errors_of_memory_are_told_and_others_pass() -> None:
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"))
    assert is_out_of_memory(RuntimeError("could not create a primitive"))
    assert is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(OutOfMemoryError, match="lower `batch_size`"), memory_told():
        torch.empty(10**15)
    with pytest.raises(RuntimeError, match="shapes"), memory_told():
        raise RuntimeError("shapes")


def test_the_limit_on_the_address_space_counts() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    before = available_bytes(torch.device("cpu"))
    assert before is not None
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    try:
        resource.setrlimit(resource.RLIMIT_AS, (used + 3 * 10**8, hard))
        after = available_bytes(torch.device("cpu"))
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    assert after is not None
    assert 2 * 10**8 < after <= 3 * 10**8


def test_what_torch_keeps_of_a_gpu_is_available_too(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("mem_get_info", (5, 100)), ("memory_reserved", 80), ("memory_allocated", 10)):
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    assert available_bytes(torch.device("cuda")) == 5 + 80 - 10


def test_images_are_halved_until_their_step_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    device = torch.device("cpu")
    for available, expected in ((None, 256), (3 * 256, 256), (3 * 256 - 1, 128), (3 * 64, 64), (0, 1)):
        monkeypatch.setattr(memory, "available_bytes", lambda device, found=available: found)
        assert images_that_fit(1.0, device, 256) == expected


def test_the_copies_of_sync_bn_count_where_they_are_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """In bf16 they are half as large again as what is tried."""
    spares: dict[tuple[bool, str], int] = {}
    for sync_bn, precision in itertools.product((False, True), ("fp32", "bf16")):
        recipe = RECIPE.with_values({"sync_bn": sync_bn, "precision": precision})

        def fits(*arguments: object, spare: int, key: tuple[bool, str] = (sync_bn, precision)) -> bool:
            spares[key] = spare
            return True

        monkeypatch.setattr(memory, "_step_fits", fits)
        monkeypatch.setattr(memory, "available_bytes", lambda device, processes: None)
        with opened_runtime(RECIPE) as runtime:
            monkeypatch.setattr(runtime, "world_size", 2)
            monkeypatch.setattr(runtime, "sum", lambda values: values)
            fit_micro_batch(recipe, tiny, runtime)
            monkeypatch.setattr(runtime, "world_size", 1)
    per_image, _ = memory._needed_bytes(tiny(), RECIPE.with_values({"precision": "bf16"}))
    images = RECIPE.batch_size / 2
    assert spares[True, "fp32"] == spares[False, "fp32"]
    added = spares[True, "bf16"] - spares[False, "bf16"]
    assert added == pytest.approx(0.5 * per_image * images * (1 + memory._SPARE), abs=2)


@pytest.mark.filterwarnings("ignore:a step with")
@pytest.mark.filterwarnings("ignore:`batch_size` 5000")
def test_what_was_fitted_is_stored_with_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = RECIPE.with_values({"epochs": 1, "batch_size": 5000, "lr": 5.0})
    monkeypatch.setattr(memory, "_step_fits", lambda network, num_images, recipe, runtime, spare: num_images < 500)
    monkeypatch.setattr(memory, "available_bytes", lambda device, processes: None)
    result = train(recipe, {}, run_name="one", folder=tmp_path)
    run = Run.load("one", folder=tmp_path)
    assert result.run.recipe == run.recipe
    assert (run.recipe.batch_size, run.recipe.micro_batch) == (1433, 359)
    assert run.recipe.lr == pytest.approx(1.433)
    assert run.recipe.with_values(run.adjusted) == recipe
    train(recipe, {}, run_name="two", folder=tmp_path, given=("lr",))
    assert Run.load("two", folder=tmp_path).recipe.lr == 5.0


@pytest.mark.slow
@pytest.mark.parametrize("free", [300, 1000])
def test_under_a_real_limit_a_step_fits_or_is_refused_without_traceback(free: int, tmp_path: Path) -> None:
    script = f"""
import resource, sys
import codedtool.training.train, codedtool.data.small
from pathlib import Path
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + {free} * 10**6, -1))
from codedtool.cli import app
sys.argv = ["codedtool", "train", "--data", "synthetic:10", "--preset", "resnext29_10x11d", "--train-size", "64",
            "--epochs", "1", "--images-per-class", "7", "--device", "cpu", "--num-workers", "0"]
app()
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    if free == 300:
        assert done.returncode == 3, done.stderr
        assert "MB an image of 64 px" in done.stderr
        assert not (tmp_path / "runs").exists()
    else:
        assert done.returncode == 0, done.stderr
        assert "--micro-batch 2 is used" in done.stderr or "--micro-batch 4 is used" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("kilobytes", [600_000, 2_000_000])
def test_a_limit_that_torch_cannot_be_loaded_under_is_told(kilobytes: int, tmp_path: Path) -> None:
    command = f"ulimit -v {kilobytes}; exec '{sys.executable}' -m codedtool train --data digits --json"
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stderr
    assert "memory does not suffice to load a library" in json.loads(done.stdout)["error"]
    assert not (tmp_path / "runs").exists()


def test_only_a_loader_without_memory_is_told_so() -> None:
    assert library_without_memory(ImportError("libtorch_cpu.so: failed to map segment from shared object"))
    assert library_without_memory(OSError(errno.ENOMEM, "Cannot allocate memory"))
    assert library_without_memory(ImportError("cannot import name 'x'")) is None
    assert library_without_memory(ValueError("Cannot allocate memory")) is None
