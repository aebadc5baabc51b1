"""Freed memory stays in the process: the next tensor of the size touches no new page of the system."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.paths import ROOT

# Page faults of five tensors of 64 MB in turn, each freed before the next. The first ten are not measured: a free block
# may be a little too small for the next aligned one, and the heap then grows.
SCRIPT = """
import resource, sys, torch
if sys.argv[1] == "runtime":
    from codedtool.training.devices import opened_runtime
    from codedtool.training.recipe import Recipe
    with opened_runtime(Recipe(device="cpu")):
        pass
for _ in range(10):
    torch.ones(1 << 24)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    torch.ones(1 << 24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", SCRIPT, how], cwd=ROOT, capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have another C library")
def test_a_runtime_on_the_cpu_keeps_freed_memory() -> None:
    # 64 MB are 16,384 pages of 4 KiB, or 32 of 2 MiB.
    assert page_faults("runtime") < page_faults("default") / 5
