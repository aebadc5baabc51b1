"""The examples in the docstrings of the public API give what they show."""

from __future__ import annotations

import doctest
from importlib import import_module

import pytest

pytestmark = pytest.mark.quick

MODULES = {
    "codedtool.coding.bounds.upper": ("upper_bound", "bounds_table"),
    "codedtool.coding.extension": ("extend_scheme",),
    "codedtool.coding.problem": ("Problem",),
    "codedtool.coding.result": ("SchemeResult",),
    "codedtool.coding.scheme": ("CodingScheme", "CodingScheme.shipped"),
    "codedtool.coding.search": ("find_scheme",),
    "codedtool.coding.shipped": ("shipped_names", "scheme_path"),
    "codedtool.coding.solvers.levels": ("levels_beside",),
    "codedtool.coding.verify": ("verify_scheme",),
}


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    module = import_module(name)
    tests = [test for test in doctest.DocTestFinder().find(module) if test.examples]
    assert {test.name.removeprefix(f"{name}.") for test in tests} == set(MODULES[name])
    assert doctest.testmod(module).failed == 0
