"""Finite fields of at most a few hundred elements, as tables; numpy only."""

from __future__ import annotations

from functools import cache
from itertools import product

import numpy as np
from numpy.typing import NDArray


class FiniteField:
    """The field of q = p^m elements; an element is the integer whose base-p digits are a polynomial's coefficients.

    Attributes:
        size: q.
        characteristic: p.
        powers: (q-1,) int64, powers[i] = x^i for a primitive element x (1 for q = 2).
        plus: (q, q) int64 addition table.
        times: (q, q) int64 multiplication table.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.characteristic, degree = _prime_power(size)
        digits = np.array([_digits(a, self.characteristic, degree) for a in range(size)])
        weights = self.characteristic ** np.arange(degree)
        self.plus = ((digits[:, None] + digits[None]) % self.characteristic @ weights).astype(np.int64)
        self.powers = _primitive_powers(self.characteristic, degree)
        logarithm = np.zeros(size, dtype=np.int64)
        logarithm[self.powers] = np.arange(size - 1)
        self.times = self.powers[(logarithm[:, None] + logarithm[None]) % (size - 1)]
        self.times[0] = self.times[:, 0] = 0


@cache
def finite_field(size: int) -> FiniteField:
    """The field of ``size`` elements; ``size`` must be a prime power."""
    return FiniteField(size)


def is_prime_power(size: int) -> bool:
    """Whether a field of ``size`` elements exists."""
    return size >= 2 and _prime_power(size)[1] > 0


def _prime_power(size: int) -> tuple[int, int]:
    """(p, m) with p the least prime factor and p^m = ``size``, or m = 0 where ``size`` is no prime power."""
    prime = next(p for p in range(2, size + 1) if size % p == 0)
    degree, rest = 0, size
    while rest % prime == 0:
        degree, rest = degree + 1, rest // prime
    return prime, degree if rest == 1 else 0


def _digits(number: int, base: int, count: int) -> list[int]:
    return [number // base**i % base for i in range(count)]


def _primitive_powers(prime: int, degree: int) -> NDArray[np.int64]:
    """All powers of the primitive element x, modulo the first polynomial of its degree that makes x primitive."""
    size = prime**degree
    for tail in product(range(prime), repeat=degree):
        # x^degree = sum of tail[i] x^i; for degree 1 that is the constant tail[0] itself.
        element, powers = [1] + [0] * (degree - 1), []
        for _ in range(size - 1):
            powers.append(sum(digit * prime**i for i, digit in enumerate(element)))
            carry = element[-1]
            shifted = [0, *element[:-1]]
            element = [(s + carry * t) % prime for s, t in zip(shifted, tail, strict=True)]
        if len(set(powers)) == size - 1 and 0 not in powers:
            return np.array(powers, dtype=np.int64)
    raise AssertionError(f"no primitive polynomial of degree {degree} over F_{prime}")
