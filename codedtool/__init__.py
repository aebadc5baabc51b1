"""codedtool: coding schemes, and image classifiers whose information paths follow them.

The names below are imported on first use, so that ``import codedtool`` and ``codedtool --help`` stay light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from codedtool.coding.bounds import bounds_table as bounds_table
    from codedtool.coding.bounds import upper_bound as upper_bound
    from codedtool.coding.extension import extend_scheme as extend_scheme
    from codedtool.coding.result import SchemeResult as SchemeResult
    from codedtool.coding.scheme import CodingScheme as CodingScheme
    from codedtool.coding.search import find_scheme as find_scheme
    from codedtool.coding.verify import verify_scheme as verify_scheme

__version__ = "0.1.0"

_HOME = {
    "CodingScheme": "codedtool.coding.scheme",
    "SchemeResult": "codedtool.coding.result",
    "bounds_table": "codedtool.coding.bounds",
    "extend_scheme": "codedtool.coding.extension",
    "find_scheme": "codedtool.coding.search",
    "upper_bound": "codedtool.coding.bounds",
    "verify_scheme": "codedtool.coding.verify",
}

__all__ = [
    "CodingScheme",
    "SchemeResult",
    "bounds_table",
    "extend_scheme",
    "find_scheme",
    "upper_bound",
    "verify_scheme",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
