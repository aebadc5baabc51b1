"""Metropolis' rule without a logarithm per swap, for the two annealings of this folder."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

# The kernels draw a quantile with 10 random bits.
_QUANTILES = 1024


def slacks(temperature: float) -> NDArray[np.int64]:
    """(1024,) how much worse a swap may be at this temperature: quantiles of the exponential distribution, rounded."""
    return np.array(
        [math.floor(-temperature * math.log((i + 0.5) / _QUANTILES)) for i in range(_QUANTILES)], dtype=np.int64
    )
