"""Floor 2: networks whose information paths follow coding schemes.

The names below are imported on first use, so that the names of architectures (`families`) are known without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from codedtool.models.coded_sum import CodedSum as CodedSum
    from codedtool.models.network import CodedNetwork as CodedNetwork
    from codedtool.models.network import Output as Output
    from codedtool.models.presets import assign_schemes as assign_schemes
    from codedtool.models.presets import build_network as build_network
    from codedtool.models.presets import preset_for as preset_for

_HOME = {
    "CodedNetwork": "codedtool.models.network",
    "CodedSum": "codedtool.models.coded_sum",
    "Output": "codedtool.models.network",
    "assign_schemes": "codedtool.models.presets",
    "build_network": "codedtool.models.presets",
    "preset_for": "codedtool.models.presets",
}

__all__ = ["CodedNetwork", "CodedSum", "Output", "assign_schemes", "build_network", "preset_for"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
