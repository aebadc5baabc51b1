"""The choice of a precision by device, and what becomes of it when a run goes on elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from codedtool.errors import InputError
from codedtool.training import precision
from codedtool.training.devices import opened_runtime
from codedtool.training.precision import as_begun, chosen_precision, with_precision
from codedtool.training.recipe import Recipe
from codedtool.training.recipes import recipe_for
from codedtool.training.run import Run
from codedtool.training.train import resume, train


def machine(monkeypatch: pytest.MonkeyPatch, flags: str, *, bf16_speed: float = 2.0) -> None:
    """A CPU with these instruction sets, whose bf16 products run at ``bf16_speed`` times the speed of fp32 ones."""
    monkeypatch.setattr(precision, "_cpu_flags", lambda: frozenset(flags.split()))
    seconds = {torch.float32: 1.0, torch.bfloat16: 1 / bf16_speed}
    monkeypatch.setattr(precision, "_product_seconds", seconds.__getitem__)


@pytest.mark.parametrize(
    ("flags", "bf16_speed", "channels_last", "expected", "reason"),
    [
        ("avx2 avx512f avx512_bf16", 2.0, True, "bf16", r"AVX512_BF16"),
        ("avx2 amx_bf16 amx_tile", 8.0, True, "bf16", "AMX"),
        ("avx2 avx512_bf16", 0.5, True, "fp32", "AVX512_BF16, but its bf16 products run at 0.50 of the speed"),
        ("avx2 avx512_bf16", 2.0, False, "fp32", "without `channels_last`"),
        ("avx2 avx512f", 2.0, True, "fp32", "neither AVX512_BF16 nor AMX"),
        ("", 2.0, True, "fp32", "neither"),
    ],
)
def test_a_cpu_computes_bf16_where_that_is_fast(
    flags: str,
    bf16_speed: float,
    channels_last: bool,
    expected: str,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine(monkeypatch, flags, bf16_speed=bf16_speed)
    recipe = Recipe(channels_last=channels_last)
    found, why = chosen_precision(recipe, "cpu")
    assert found == expected
    assert reason in why


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), "fp32"), ((8, 0), "bf16"), ((9, 0), "bf16")])
def test_cuda_computes_bf16_from_capability_8(
    capability: tuple[int, int], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    assert chosen_precision(Recipe(), "cuda")[0] == expected


def test_only_recipes_outside_the_paper_choose() -> None:
    chosen = {name: recipe_for(name).precision for name in ("cifar10", "cifar100", "folder:x", "digits", "synthetic:3")}
    assert chosen == {
        "cifar10": "fp32",
        "cifar100": "fp32",
        "folder:x": "fp32",
        "digits": "auto",
        "synthetic:3": "auto",
    }
    own = ("cifar10-cpu", "small", "finetune")
    assert [recipe_for("folder:x", name).precision for name in own] == ["auto", "auto", "auto"]
    assert Recipe().precision == "fp32"
    assert with_precision(Recipe(precision="fp16"), "cuda") == (Recipe(precision="fp16"), None)
    assert as_begun(Recipe(precision="auto"), Recipe(precision="bf16")).precision == "bf16"
    assert as_begun(Recipe(), Recipe(precision="bf16")).precision == "fp32"


def test_a_run_keeps_the_choice_on_another_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, "avx512_bf16")
    recipe = recipe_for("digits").with_values({"preset": "resnext_tiny", "device": "cpu", "epochs": 1})
    lines: list[str] = []
    train(recipe.with_values({"images_per_class": 13}), {}, run_name="fast", folder=tmp_path, tell=lines.append)
    assert "precision bf16: this CPU computes it fast (AVX512_BF16)" in lines
    run = Run.load("fast", folder=tmp_path)
    assert run.recipe.precision == "bf16"
    machine(monkeypatch, "avx2")
    assert resume(run, changes={"precision": "auto"}).run.recipe.precision == "bf16"
    with pytest.raises(InputError, match="`precision` 'fp32' cannot change"):
        resume(run, changes={"precision": "fp32"})


def test_auto_is_resolved_wherever_a_device_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = Recipe(precision="auto", device="cpu")
    for flags, dtype in (("avx512_bf16", torch.bfloat16), ("avx2", torch.float32)):
        machine(monkeypatch, flags)
        with opened_runtime(recipe) as runtime, runtime.autocast():
            assert (torch.zeros(2, 2) @ torch.zeros(2, 2)).dtype is dtype
