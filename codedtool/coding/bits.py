"""Bit tricks, random numbers and copying, shared by the kernels; only ``*_kernels.py`` files import them.

Every importing file records this file's checksum, so that numba compiles it anew after a change here: see
`codedtool.coding.compiled`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from codedtool.coding.compiled import inner_kernel


@inner_kernel
def popcount(bits: np.uint64) -> np.int64:
    """The number of ones of a uint64; written so that LLVM turns it into one instruction."""
    bits = bits - ((bits >> np.uint64(1)) & np.uint64(0x5555555555555555))
    bits = (bits & np.uint64(0x3333333333333333)) + ((bits >> np.uint64(2)) & np.uint64(0x3333333333333333))
    bits = (bits + (bits >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((bits * np.uint64(0x0101010101010101)) >> np.uint64(56))


@inner_kernel
def lowest_bit(bits: np.uint64) -> np.int64:
    """The place of the lowest one of a uint64 that is not 0."""
    return popcount((bits & (~bits + np.uint64(1))) - np.uint64(1))


@inner_kernel
def copy_to(target: NDArray[Any], source: NDArray[Any]) -> None:
    """Copy ``source`` (1-D) to ``target``; unlike ``target[:] = source``, it costs the compiler no seconds."""
    for i in range(len(source)):
        target[i] = source[i]


@inner_kernel
def random_below(state: NDArray[np.uint64], bound: int) -> np.int64:
    """A random whole number from 0 to ``bound`` - 1; advances ``state[0]`` (splitmix64: Steele, Lea, Flood 2014)."""
    state[0] += np.uint64(0x9E3779B97F4A7C15)
    z = state[0]
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return np.int64(z % np.uint64(bound))


@inner_kernel
def xorshift(bits: np.uint64) -> np.uint64:
    """The next state of an xorshift64* generator (S. Vigna 2016)."""
    bits ^= bits >> np.uint64(12)
    bits ^= bits << np.uint64(25)
    bits ^= bits >> np.uint64(27)
    return bits


@inner_kernel
def scrambled(bits: np.uint64) -> np.uint64:
    """The 64 random bits that the state ``bits`` of an xorshift64* generator gives."""
    return bits * np.uint64(0x2545F4914F6CDD1D)


@inner_kernel
def scaled(bits: np.uint64, bound: int | np.int64) -> np.int64:
    """27 random bits (``bits`` < 2^27) as a whole number from 0 to ``bound`` - 1."""
    return np.int64((bits * np.uint64(bound)) >> np.uint64(27))
