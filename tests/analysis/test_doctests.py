"""The examples in the docstrings of the analyses give what they show."""

from __future__ import annotations

import doctest
from importlib import import_module

import pytest

pytestmark = pytest.mark.quick

MODULES = {
    "codedtool.analysis.activations": ("StreamingHistogram",),
    "codedtool.analysis.binary": ("best_f1_thresholds", "measure", "share_negatives"),
    "codedtool.analysis.calibration": ("reliability_bins", "expected_calibration_error"),
    "codedtool.analysis.early_exit": ("ExitRule.parse", "margins"),
    "codedtool.analysis.selective": ("risk_coverage",),
    "codedtool.analysis.specialization": ("even_choice",),
    "codedtool.analysis.sweep": ("parse_vary",),
    "codedtool.training.evidence": ("Evidence.confidence", "shared_thresholds"),
    "codedtool.training.subject": ("class_index",),
}


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    module = import_module(name)
    tests = [test for test in doctest.DocTestFinder().find(module) if test.examples]
    assert {test.name.removeprefix(f"{name}.") for test in tests} == set(MODULES[name])
    assert doctest.testmod(module).failed == 0
