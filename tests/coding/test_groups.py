"""The catalogue of groups: every entry is a group, of the order that it claims, on the columns that it claims."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from codedtool.coding.solvers.algebra.finite_field import finite_field, is_prime_power
from codedtool.coding.solvers.algebra.groups import MAX_ORDER, catalogue

pytestmark = pytest.mark.quick


@pytest.mark.parametrize("length", [2, 3, 5, 8, 12, 14])
def test_every_entry_is_a_group(length: int) -> None:
    for group in catalogue(length):
        elements = group.elements()
        assert elements.shape == (group.order, length)
        assert (np.sort(elements, axis=1) == np.arange(length)).all()
        assert (elements[0] == np.arange(length)).all()
        members = {e.tobytes() for e in elements}
        assert len(members) == group.order <= MAX_ORDER
        some = elements[:: max(1, group.order // 20)]
        for one, other in itertools.product(some, some):
            assert one[other].tobytes() in members


@pytest.mark.parametrize("length", [8, 14, 16])
def test_column_orbits_are_the_images_of_each_column(length: int) -> None:
    for group in catalogue(length):
        elements = group.elements()
        orbits = group.column_orbits()
        assert sorted(itertools.chain(*orbits)) == list(range(length))
        for orbit in orbits:
            for bit in orbit:
                assert set(elements[:, bit].tolist()) == set(orbit)


def test_names_tell_groups_apart() -> None:
    for length in (10, 20, 24, 32, 64):
        names = [group.name for group in catalogue(length)]
        assert len(names) == len(set(names))
        assert names[-1] == "trivial"


def test_groups_that_the_literature_names() -> None:
    orders = {group.name: group.order for group in catalogue(32)}
    assert orders["F2 x F2 x F2 x F2 x F2"] == 32
    assert orders["F16:15 x F2"] == 480
    assert orders["F8:7 x Z4"] == 224
    assert orders["F32:31"] == 992
    assert orders["PSL(2,31)"] == 31 * 32 * 30 // 2
    assert orders["F31:30 + 1"] == 930


def test_psl_is_doubly_transitive() -> None:
    group = next(g for g in catalogue(12) if g.name == "PSL(2,11)")
    elements = group.elements()
    assert len(elements) == 660
    assert len({(int(e[0]), int(e[1])) for e in elements}) == 12 * 11


@pytest.mark.parametrize("size", [2, 3, 4, 5, 7, 8, 9, 16, 25, 27, 32, 49, 64])
def test_fields_are_fields(size: int) -> None:
    field = finite_field(size)
    assert set(field.powers.tolist()) == set(range(1, size))
    everything = np.arange(size)
    for table, neutral in ((field.plus, 0), (field.times, 1)):
        assert (table == table.T).all()
        assert (table[neutral] == everything).all()
        assert (table[table[:, :, None], everything] == table[everything[:, None, None], table[None]]).all()
    assert (np.sort(field.plus, axis=1) == everything).all()
    assert (np.sort(field.times[1:], axis=1) == everything).all()
    left = field.times[everything[:, None, None], field.plus[None]]
    assert (left == field.plus[field.times[:, :, None], field.times[:, None, :]]).all()


def test_prime_powers() -> None:
    assert [q for q in range(40) if is_prime_power(q)] == [
        2, 3, 4, 5, 7, 8, 9, 11, 13, 16, 17, 19, 23, 25, 27, 29, 31, 32, 37,
    ]  # fmt: skip
