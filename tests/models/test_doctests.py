"""The examples in the docstrings of floors 2 and 3 run as written."""

from __future__ import annotations

import doctest
from importlib import import_module

import pytest

pytestmark = pytest.mark.quick


@pytest.mark.parametrize(
    "module",
    [
        "codedtool.data.sources",
        "codedtool.models.coded_sum",
        "codedtool.models.network",
        "codedtool.models.presets",
        "codedtool.training.recipe",
        "codedtool.training.recipes",
        "codedtool.training.run",
    ],
)
def test_the_examples_run(module: str) -> None:
    failed, attempted = doctest.testmod(import_module(module))
    assert attempted
    assert not failed
