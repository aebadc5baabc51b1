"""A catalogue of permutation groups on N columns, for codes that are unions of orbits of words.

Most are affine groups of rings: the ring R is a product of fields F_q and of residue rings Z_n, and x -> u x + b with b
in R and u from a group of units acts on N = |R| columns, on several copies of R at once, or beside fixed columns.
With R = F_2^m these are the translations and their extensions, with R = Z_N the cyclic group and its multipliers, with
R = Z_a x Z_b the shifts of a grid. PSL(2, q) acts on q + 1 columns. Most of the records in tables of constant weight
codes were found as unions of orbits of such groups.
(A. Brouwer, J. Shearer, N. Sloane, W. Smith, A new table of constant weight codes, IEEE Trans. IT 36, 1990;
K. Nurmela, M. Kaikkonen, P. Ostergard, New constant weight codes from linear permutation groups, IEEE Trans. IT 43,
1997.)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import product
from math import gcd, prod

import numpy as np
from numpy.typing import NDArray

from codedtool.coding.solvers.algebra.finite_field import finite_field, is_prime_power

# PSL(2, 31) has 14,880 elements; larger groups leave too few orbits to choose from.
MAX_ORDER = 20_000

_Ring = tuple[str, int]  # ("F", q) or ("Z", n)


@dataclass(frozen=True)
class PermutationGroup:
    """A group of permutations of N columns.

    Attributes:
        name: the group, such as "F16:15 x F2" or "Z31<2> + 1".
        order: the number of its elements.
        length: N.
        generators: permutations that generate it; generators[i][c] is the bit to which bit c goes, bit 0 being the
            least significant of a word.
    """

    name: str
    order: int
    length: int
    generators: tuple[tuple[int, ...], ...] = field(repr=False)

    def elements(self) -> NDArray[np.uint8]:
        """(order, N) uint8, all permutations, the identity first."""
        return _closure(self.generators, self.length, self.order)

    def column_orbits(self) -> list[list[int]]:
        """The sets of bits that are carried into one another, each ascending."""
        orbit = list(range(self.length))
        changed = True
        while changed:
            changed = False
            for generator in self.generators:
                for bit, image in enumerate(generator):
                    low = min(orbit[bit], orbit[image])
                    if orbit[bit] != low or orbit[image] != low:
                        orbit[bit] = orbit[image] = low
                        changed = True
        return [[b for b in range(self.length) if orbit[b] == low] for low in sorted(set(orbit))]


def catalogue(length: int) -> list[PermutationGroup]:
    """The groups tried on ``length`` columns, each once, by descending order; the last is trivial.

    On at most four copies of a ring and beside at most two fixed columns, and with at most `MAX_ORDER` elements.
    """
    found: dict[tuple[object, ...], PermutationGroup] = {}
    for num_fixed in range(min(3, length - 1)):
        moved = length - num_fixed
        for copies in (1, 2, 3, 4):
            if moved % copies == 0 and moved // copies > 1:
                for group in _affine_groups(moved // copies, copies, num_fixed):
                    found.setdefault((group.order, group.generators), group)
        if is_prime_power(moved - 1) and moved > 3:
            linear = _projective_group(moved - 1, num_fixed)
            found.setdefault((linear.order, linear.generators), linear)
    trivial = PermutationGroup("trivial", 1, length, ())
    return [*sorted(found.values(), key=lambda g: -g.order), trivial]


def _affine_groups(size: int, copies: int, num_fixed: int) -> Iterator[PermutationGroup]:
    """x -> u x + b on ``copies`` of every ring of ``size`` elements, for the groups of units of `_unit_groups`."""
    for rings in _rings(size):
        for chosen in product(*(_unit_groups(ring) for ring in rings)):
            order = size * prod(unit_order for unit_order, _ in chosen)
            if order > MAX_ORDER or any(map(_splits, rings, chosen)):
                continue
            places = [_places(rings, axis) for axis in range(len(rings))]
            maps: list[NDArray[np.int64]] = []
            for axis, (ring, (_, unit)) in enumerate(zip(rings, chosen, strict=True)):
                maps += [_along(places, rings, axis, _translate(ring, b)) for b in _generators_of_addition(ring)]
                if unit != 1:
                    maps.append(_along(places, rings, axis, _multiply(ring, unit)))
            name = " x ".join(map(_name, rings, chosen))
            name += f", {copies} copies" if copies > 1 else ""
            name += f" + {num_fixed}" if num_fixed else ""
            length = copies * size + num_fixed
            yield PermutationGroup(name, order, length, tuple(_extend(m, copies, length) for m in maps))


def _projective_group(size: int, num_fixed: int) -> PermutationGroup:
    """PSL(2, q) on the q + 1 points of the projective line over F_q; point q is infinity."""
    ring = ("F", size)
    line = finite_field(size)
    infinity = size
    square = int(line.powers[2 % (size - 1)])
    maps = [np.append(_translate(ring, b), infinity) for b in _generators_of_addition(ring)]
    maps.append(np.append(_multiply(ring, square), infinity))
    minus_inverse = np.zeros(size + 1, dtype=np.int64)
    minus_inverse[0], minus_inverse[infinity] = infinity, 0
    minus_one = int(np.flatnonzero(line.plus[1] == 0)[0])
    for a in range(1, size):
        inverse = int(np.flatnonzero(line.times[a] == 1)[0])
        minus_inverse[a] = line.times[minus_one, inverse]
    maps.append(minus_inverse)
    length = size + 1 + num_fixed
    order = size * (size * size - 1) // gcd(2, size - 1)
    name = f"PSL(2,{size})" + (f" + {num_fixed}" if num_fixed else "")
    return PermutationGroup(name, order, length, tuple(_extend(m, 1, length) for m in maps))


def _closure(generators: tuple[tuple[int, ...], ...], length: int, order: int) -> NDArray[np.uint8]:
    """All products of the generators, found breadth first; there must be ``order`` of them."""
    steps = [np.array(g, dtype=np.uint8) for g in generators]
    identity = np.arange(length, dtype=np.uint8)
    elements = {identity.tobytes(): identity}
    frontier = [identity]
    while frontier:
        fresh = []
        for element in frontier:
            for step in steps:
                image = step[element]
                if image.tobytes() not in elements:
                    elements[image.tobytes()] = image
                    fresh.append(image)
        frontier = fresh
    if len(elements) != order:
        raise AssertionError(f"a group of order {order} came out with {len(elements)} elements")
    return np.array(list(elements.values()))


@cache
def _rings(size: int) -> tuple[tuple[_Ring, ...], ...]:
    """Products of fields and residue rings with ``size`` elements, each factor once per kind."""

    def factors(rest: int, largest: int) -> Iterator[tuple[int, ...]]:
        if rest == 1:
            yield ()
        for factor in range(min(rest, largest), 1, -1):
            if rest % factor == 0:
                for others in factors(rest // factor, factor):
                    yield (factor, *others)

    found = []
    for sizes in factors(size, size):
        kinds = [["F"] if _is_prime(n) else ["F", "Z"] if is_prime_power(n) else ["Z"] for n in sizes]
        for chosen in product(*kinds):
            ring = tuple(sorted(zip(chosen, sizes, strict=True), key=lambda r: (-r[1], r[0])))
            if ring not in found:
                found.append(ring)
    return tuple(found)


@cache
def _unit_groups(ring: _Ring) -> tuple[tuple[int, int], ...]:
    """(order, generator) of the cyclic groups of units of ``ring``, the trivial one included."""
    kind, size = ring
    if kind == "F":
        powers = finite_field(size).powers
        return tuple((d, int(powers[(size - 1) // d % (size - 1)])) for d in range(1, size) if (size - 1) % d == 0)
    groups: dict[frozenset[int], tuple[int, int]] = {}
    for unit in range(1, size):
        if gcd(unit, size) == 1:
            members, power = [1], unit
            while power != 1:
                members.append(power)
                power = power * unit % size
            groups.setdefault(frozenset(members), (len(members), unit))
    return tuple(groups.values())


def _splits(ring: _Ring, units: tuple[int, int]) -> bool:
    """Whether no units hold ``ring`` together: its shifts are those of a product, which the catalogue has too."""
    kind, size = ring
    return units[0] == 1 and (not _is_prime(size) if kind == "F" else not is_prime_power(size))


def _name(ring: _Ring, units: tuple[int, int]) -> str:
    """Such as F32, F32:31 with the units of order dividing 31, Z32, Z32<7> with the units generated by 7."""
    kind, size = ring
    suffix = "" if units[0] == 1 else f":{units[0]}" if kind == "F" else f"<{units[1]}>"
    return f"{kind}{size}{suffix}"


def _is_prime(size: int) -> bool:
    return all(size % p for p in range(2, size))


def _generators_of_addition(ring: _Ring) -> list[int]:
    kind, size = ring
    if kind == "Z":
        return [1]
    prime = finite_field(size).characteristic
    return [prime**i for i in range(size) if prime**i < size]


def _translate(ring: _Ring, by: int) -> NDArray[np.int64]:
    kind, size = ring
    return (np.arange(size) + by) % size if kind == "Z" else finite_field(size).plus[by].copy()


def _multiply(ring: _Ring, unit: int) -> NDArray[np.int64]:
    kind, size = ring
    return np.arange(size) * unit % size if kind == "Z" else finite_field(size).times[unit].copy()


def _places(rings: tuple[_Ring, ...], axis: int) -> NDArray[np.int64]:
    """Component ``axis`` of each element of the product, elements numbered in mixed radix."""
    sizes = [size for _, size in rings]
    return np.arange(prod(sizes)) // prod(sizes[axis + 1 :]) % sizes[axis]


def _along(
    places: list[NDArray[np.int64]], rings: tuple[_Ring, ...], axis: int, permutation: NDArray[np.int64]
) -> NDArray[np.int64]:
    """The permutation of the product that acts on one component."""
    stride = prod(size for _, size in rings[axis + 1 :])
    return np.arange(len(places[axis])) + (permutation[places[axis]] - places[axis]) * stride


def _extend(permutation: NDArray[np.int64], copies: int, length: int) -> tuple[int, ...]:
    """``permutation`` on each of ``copies`` blocks of bits; the bits above them stay where they are."""
    size = len(permutation)
    image = np.arange(length)
    for block in range(copies):
        image[block * size : (block + 1) * size] = block * size + permutation
    return tuple(int(b) for b in image)
