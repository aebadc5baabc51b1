"""The number format that ``precision`` auto stands for: bfloat16 where the device computes it fast, else float32."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from codedtool.training.recipe import Recipe

AUTO = "auto"

# Instructions of x86 processors that multiply bfloat16; without them it is emulated, and slower than float32.
_CPU_FLAGS = {"avx512_bf16": "AVX512_BF16", "amx_bf16": "AMX"}

# CUDA devices of this capability (Ampere) and later multiply bfloat16 in their tensor cores.
_CUDA_CAPABILITY = (8, 0)


def chosen_precision(recipe: Recipe, kind: str, *, cpu_flags: frozenset[str] | None = None) -> tuple[str, str]:
    """Choose the precision of a device.

    Args:
        recipe: its ``channels_last`` counts, because bfloat16 is slow on a CPU with the channels first.
        kind: the device: cpu, cuda or xla.
        cpu_flags: the processor's instruction sets as Linux names them; None: those of this machine.

    Returns:
        bf16 or fp32, and the reason, for people.
    """
    if kind == "cuda":
        capability = torch.cuda.get_device_capability()
        name = f"CUDA capability {capability[0]}.{capability[1]}"
        if capability >= _CUDA_CAPABILITY:
            return "bf16", f"{name} computes it fast"
        return "fp32", f"{name} is below {_CUDA_CAPABILITY[0]}.{_CUDA_CAPABILITY[1]}, where bf16 becomes fast"
    if kind != "cpu":
        return "fp32", f"the safe choice on {kind}"
    flags = _cpu_flags() if cpu_flags is None else cpu_flags
    fast = next((name for flag, name in _CPU_FLAGS.items() if flag in flags), None)
    if fast is None:
        return "fp32", f"this CPU has neither {' nor '.join(_CPU_FLAGS.values())}, so bf16 would be slower"
    if not recipe.channels_last:
        return "fp32", "bf16 is slow on a CPU without `channels_last`"
    return "bf16", f"this CPU computes it fast ({fast})"


def with_precision(recipe: Recipe, kind: str) -> tuple[Recipe, str | None]:
    """Replace ``precision`` auto by the choice for a device.

    Args:
        kind: the device: cpu, cuda or xla.

    Returns:
        The recipe, and one line about the choice for people; the same recipe and None if its precision is not auto.
    """
    if recipe.precision != AUTO:
        return recipe, None
    precision, reason = chosen_precision(recipe, kind)
    return dataclasses.replace(recipe, precision=precision), f"precision {precision}: {reason}"


def as_begun(recipe: Recipe, begun: Recipe) -> Recipe:
    """Replace ``precision`` auto by the precision that a run was begun with, on whatever machine it goes on."""
    return dataclasses.replace(recipe, precision=begun.precision) if recipe.precision == AUTO else recipe


def _cpu_flags() -> frozenset[str]:
    """Instruction sets of this machine's processor; empty where Linux's /proc is not."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line for line in lines if line.startswith("flags")), "").split())
