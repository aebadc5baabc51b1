"""One line that says on what a benchmark ran."""

from __future__ import annotations

import datetime
import os
import platform
from importlib.metadata import version
from pathlib import Path


def describe_machine(*packages: str) -> str:
    """Date, processor, cores, Python and the versions of ``packages``."""
    cpuinfo = Path("/proc/cpuinfo")
    models = [line for line in cpuinfo.read_text().splitlines() if "model name" in line] if cpuinfo.exists() else []
    processor = models[0].split(":", 1)[1].strip() if models else platform.processor() or platform.machine()
    versions = ", ".join(f"{package} {version(package)}" for package in packages)
    today = datetime.datetime.now(tz=datetime.UTC).date()
    return f"{today}, {processor}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}"
