"""One line that says on what a benchmark ran."""

from __future__ import annotations

import datetime
import os
import platform
from importlib.metadata import version
from pathlib import Path


def describe_machine(*packages: str, device: str = "cpu") -> str:
    """Date, processor, cores, the GPU if ``device`` is one, Python and the versions of ``packages``."""
    cpuinfo = Path("/proc/cpuinfo")
    models = [line for line in cpuinfo.read_text().splitlines() if "model name" in line] if cpuinfo.exists() else []
    processor = models[0].split(":", 1)[1].strip() if models else platform.processor() or platform.machine()
    versions = ", ".join(f"{package} {version(package)}" for package in packages)
    cores = f"{os.cpu_count()} cores"
    if device.startswith("cuda"):
        import torch  # only here: the solver's benchmarks do without

        cores += f", {torch.cuda.get_device_name()}"
    today = datetime.datetime.now(tz=datetime.UTC).date()
    return f"{today}, {processor}, {cores}, Python {platform.python_version()}, {versions}"
