"""The number format that ``precision`` auto stands for: bfloat16 where the device computes it fast, else float32."""

from __future__ import annotations

import dataclasses
import time
from functools import cache
from pathlib import Path
from statistics import median

import torch

from codedtool.training.recipe import Recipe

AUTO = "auto"

# Instructions of x86 processors that multiply bfloat16; without them it is emulated, and slower than float32. With them
# it is usually faster, which is measured.
_CPU_FLAGS = {"avx512_bf16": "AVX512_BF16", "amx_bf16": "AMX"}

# CUDA devices of this capability (Ampere) and later multiply bfloat16 in their tensor cores.
_CUDA_CAPABILITY = (8, 0)


# Products that are timed in each format; the first ones are slower.
_PRODUCTS = 9


def chosen_precision(recipe: Recipe, kind: str) -> tuple[str, str]:
    """Choose the precision of a device.

    Args:
        recipe: its ``channels_last`` counts, because bfloat16 is slow on a CPU with the channels first.
        kind: the device: cpu, cuda or xla.

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
    flags = _cpu_flags()
    fast = next((name for flag, name in _CPU_FLAGS.items() if flag in flags), None)
    if fast is None:
        return "fp32", f"this CPU has neither {' nor '.join(_CPU_FLAGS.values())}, so bf16 would be slower"
    if not recipe.channels_last:
        return "fp32", "bf16 is slow on a CPU without `channels_last`"
    ratio = _product_seconds(torch.float32) / _product_seconds(torch.bfloat16)
    if ratio < 1:
        return "fp32", f"this CPU has {fast}, but its bf16 products run at {ratio:.2f} of the speed of fp32 ones"
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


@cache
def _product_seconds(dtype: torch.dtype) -> float:
    """Median time of a product of two matrices of 512 x 512.

    Some processors that have bfloat16's instructions multiply it at half of float32's speed.
    """
    matrix = torch.ones(512, 512, dtype=dtype)
    seconds = []
    for _ in range(_PRODUCTS):
        start = time.perf_counter()
        torch.mm(matrix, matrix)
        seconds.append(time.perf_counter() - start)
    return median(seconds)


def _cpu_flags() -> frozenset[str]:
    """Instruction sets of this machine's processor, as Linux names them; empty where Linux's /proc is not."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line for line in lines if line.startswith("flags")), "").split())
