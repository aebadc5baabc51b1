"""Shared by all tests: a terminal that does not depend on where the tests run, small schemes, trained runs."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest
from hypothesis import settings

from codedtool.cli.runs import prepare_torch
from codedtool.coding.scheme import CodingScheme
from tests.runs import trained as trained

# A shell that starts the tests in the background lets them, and the commands that they start, ignore Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The first example pays for imports and compilers, and machines are noisy: no test asserts a time.
settings.register_profile("codedtool", deadline=None)
settings.load_profile("codedtool")

# As the commands do: beside another busy process, threads that spin for long slow small networks down tenfold.
prepare_torch()
if "PYTEST_XDIST_WORKER" in os.environ:
    # One test process per core: threads of their own would only wait for each other.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# Table 4, r = 3/10, in the order of CIFAR-10's classes.
TABLE4_3OF10 = (
    "1001001000",
    "0110001000",
    "1010000001",
    "0000001110",
    "0001010100",
    "0010100100",
    "0000110010",
    "0100010001",
    "0001100001",
    "1100000010",
)


@pytest.fixture(autouse=True)
def _plain_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def table() -> np.ndarray:
    """Table 4's 3/10 scheme as a (10, 10) uint8 array."""
    return np.array([[int(digit) for digit in word] for word in TABLE4_3OF10], dtype=np.uint8)


@pytest.fixture
def scheme(table: np.ndarray) -> CodingScheme:
    """Table 4's 3/10 scheme."""
    return CodingScheme(table)
