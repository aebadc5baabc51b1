"""The scheme's door: what is let in, what is refused and in which words, and that files survive hostility."""

from __future__ import annotations

import io
import json
import pickle
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from codedtool.coding.scheme import CodingScheme, best_spread
from codedtool.coding.words import distance_histogram, table_to_words, words_to_table
from codedtool.errors import InputError

pytestmark = pytest.mark.quick


def test_table4_says_what_the_paper_says_of_it(scheme: CodingScheme) -> None:
    assert (scheme.num_classes, scheme.length, scheme.act, scheme.min_distance) == (10, 10, 3, 4)
    assert (scheme.s_min, scheme.s_max, scheme.spread) == (3, 3, 0)
    assert scheme.distance_histogram == {4: 30, 6: 15}
    assert scheme.pairs_at_min == 30
    assert scheme.words[0] == 0b1001001000  # column 0 is the most significant bit


def test_scheme_is_immutable_and_keeps_no_view(table: np.ndarray) -> None:
    scheme = CodingScheme(table)
    table[0, 0] ^= 1
    assert scheme.table[0, 0] == 1
    with pytest.raises(ValueError, match="read-only"):
        scheme.table[0, 0] = 0
    with pytest.raises(ValueError, match="read-only"):
        scheme.words[0] = 0


def test_equal_tables_are_equal_schemes(table: np.ndarray) -> None:
    same, other = CodingScheme(table.astype(bool)), CodingScheme(table[::-1])
    assert CodingScheme(table) == same
    assert hash(CodingScheme(table)) == hash(same)
    assert CodingScheme(table) != other


def _broken(table: np.ndarray, **changes: object) -> np.ndarray:
    array = table.astype(np.int64)
    for place, value in changes.items():
        row, column = (int(part) for part in place.split("_")[1:])
        array[row, column] = value
    return array


def test_every_broken_rule_is_named_with_its_place(table: np.ndarray) -> None:
    with pytest.raises(InputError, match="row 4, column 1 holds 7"):
        CodingScheme(_broken(table, at_4_1=7))
    with pytest.raises(InputError, match="row 0, column 2 holds -1"):
        CodingScheme(_broken(table, at_0_2=-1))
    with pytest.raises(InputError, match="rule A.*row 0 has 3, row 6 has 4"):
        CodingScheme(_broken(table, at_6_0=1))
    with pytest.raises(InputError, match="rows 1 and 5 are both 0110001000"):
        CodingScheme(np.vstack([table[:5], table[1:2], table[6:]]))
    with pytest.raises(InputError, match="row 0 has 0 of N=10"):
        CodingScheme(np.zeros((3, 10), dtype=np.uint8))
    with pytest.raises(InputError, match="row 0 has 10 of N=10"):
        CodingScheme(np.ones((3, 10), dtype=np.uint8))
    with pytest.raises(InputError, match="2 to 64 digits.*these have 65"):
        CodingScheme(np.eye(65, dtype=np.uint8))
    with pytest.raises(InputError, match="at least 2 classes.*this one has 1"):
        CodingScheme(table[:1])
    with pytest.raises(InputError, match="2 dimensions"):
        CodingScheme(table[0])
    with pytest.raises(TypeError, match="float64"):
        CodingScheme(table.astype(np.float64))
    with pytest.raises(TypeError, match="object"):
        CodingScheme(table.astype(object))


def test_save_then_load_gives_the_same_scheme_with_its_record(scheme: CodingScheme, tmp_path: Path) -> None:
    path = scheme.save(tmp_path / "new" / "s.npy", provenance={"method": "given"})
    assert CodingScheme.load(path) == scheme
    assert np.array_equal(np.load(path, allow_pickle=False), scheme.table)
    record = json.loads(path.with_suffix(".json").read_text())
    assert record["method"] == "given"
    assert record["sha256"] == scheme.sha256
    assert (record["K"], record["N"], record["act"], record["min_distance"]) == (10, 10, 3, 4)
    path.with_suffix(".json").unlink()
    assert CodingScheme.load(path) == scheme
    assert [p.name for p in path.parent.iterdir()] == ["s.npy"]


def test_save_overwrites_only_with_force(scheme: CodingScheme, tmp_path: Path) -> None:
    path = tmp_path / "s.npy"
    path.write_bytes(b"precious")
    with pytest.raises(InputError, match="exists already"):
        scheme.save(path)
    assert path.read_bytes() == b"precious"
    scheme.save(path, force=True)
    assert CodingScheme.load(path) == scheme
    with pytest.raises(InputError, match=r"must end in \.npy"):
        scheme.save(tmp_path / "s.txt")


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def _with_header(header: str, data: bytes = b"") -> bytes:
    text = header.encode("latin-1").ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


HOSTILE = {
    "empty": (b"", "not a .npy"),
    "text": (b"1 0 1\n0 1 1\n", "not a .npy"),
    "pickle": (pickle.dumps([1, 2]), "not a .npy"),
    "zip": (b"PK\x03\x04" + bytes(60), "not a .npy"),
    "version": (b"\x93NUMPY\x09\x00" + bytes(40), "unknown version"),
    "objects": (_npy(np.array([[1, None]], dtype=object)), "'\\|O'"),
    "float": (_npy(np.full((3, 4), np.nan)), "'<f8'"),
    "wide": (_npy(np.eye(4, dtype=np.int64)), "'<i8'"),
    "bool": (_npy(np.eye(4, dtype=bool)), "'\\|b1'"),
    "one dimension": (_npy(np.zeros(4, dtype=np.uint8)), "2 dimensions"),
    "three dimensions": (_npy(np.zeros((2, 2, 2), dtype=np.uint8)), "2 dimensions"),
    "fortran": (_npy(np.asfortranarray(np.eye(4, dtype=np.uint8)[:3])), "C order"),
    "truncated header": (_npy(np.eye(4, dtype=np.uint8))[:40], "truncated inside its .npy header"),
    "truncated data": (_npy(np.eye(4, dtype=np.uint8))[:-3], "truncated: shape \\(4, 4\\) needs 16 bytes.*has 13"),
    "longer": (_npy(np.eye(4, dtype=np.uint8)) + b"x", "longer than it should be"),
    "huge shape": (
        _with_header("{'descr': '|u1', 'fortran_order': False, 'shape': (10**3, 64), }"),
        "header cannot be read",
    ),
    "absurd shape": (
        _with_header("{'descr': '|u1', 'fortran_order': False, 'shape': (9223372036854775807, 64), }"),
        "truncated: shape",
    ),
    "negative shape": (
        _with_header("{'descr': '|u1', 'fortran_order': False, 'shape': (-4, 4), }", bytes(16)),
        "impossible shape",
    ),
    "long header": (b"\x93NUMPY\x02\x00" + (1 << 30).to_bytes(4, "little") + b"{", "claims 1073741824 bytes"),
    "code in header": (_with_header("__import__('os').system('true')"), "header cannot be read"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_file_is_refused_by_name_and_reason(name: str, tmp_path: Path) -> None:
    content, reason = HOSTILE[name]
    path = tmp_path / "hostile.npy"
    path.write_bytes(content)
    with pytest.raises(InputError, match=reason) as caught:
        CodingScheme.load(path)
    assert str(caught.value).startswith(str(path))


def test_missing_file_and_folder_are_input_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.npy: cannot be read"):
        CodingScheme.load(tmp_path / "absent.npy")
    with pytest.raises(InputError, match="cannot be read"):
        CodingScheme.load(tmp_path)


@settings(deadline=None, max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_mutated_files_give_only_clean_errors(data: st.DataObject, scheme: CodingScheme, tmp_path: Path) -> None:
    content = bytearray(scheme.to_npy())
    for _ in range(data.draw(st.integers(1, 6))):
        kind = data.draw(st.sampled_from(["set", "cut", "insert", "repeat"]))
        at = data.draw(st.integers(0, max(0, len(content) - 1)))
        if kind == "set" and content:
            content[at] = data.draw(st.integers(0, 255))
        elif kind == "cut":
            del content[at:]
        elif kind == "insert":
            content[at:at] = data.draw(st.binary(max_size=12))
        else:
            content[at:at] = content[at : at + 8]
    path = tmp_path / "mutated.npy"
    path.write_bytes(bytes(content))
    try:
        loaded = CodingScheme.load(path)
    except InputError as error:
        assert str(path) in str(error)  # noqa: PT017 - most mutations are refused, a few stay schemes
    else:
        assert set(np.unique(loaded.table)) == {0, 1}
        assert len(set(loaded.table.sum(axis=1))) == 1


@settings(deadline=None)
@given(st.lists(st.integers(0, 2**64 - 1), min_size=2, max_size=40, unique=True))
def test_words_and_tables_are_inverse_and_distances_are_counted(integers: list[int]) -> None:
    words = np.array(integers, dtype=np.uint64)
    table = words_to_table(words, 64)
    assert ["".join(map(str, row)) for row in table] == [format(word, "064b") for word in integers]
    assert np.array_equal(table_to_words(table), words)
    expected: dict[int, int] = {}
    for one, other in combinations(integers, 2):
        distance = (one ^ other).bit_count()
        expected[distance] = expected.get(distance, 0) + 1
    assert distance_histogram(words) == dict(sorted(expected.items()))


def test_distance_histogram_over_several_blocks_matches_one_matrix() -> None:
    words = np.random.default_rng(3).integers(0, 2**63, 5000, dtype=np.uint64)
    upper = np.bitwise_count(words[:, None] ^ words[None, :])[np.triu_indices(5000, 1)]
    distances, counts = np.unique(upper, return_counts=True)
    assert distance_histogram(words) == dict(zip(distances.tolist(), counts.tolist(), strict=True))


def test_best_spread_is_zero_exactly_when_rk_is_an_integer() -> None:
    assert best_spread(1000, 32, 8) == 0
    assert best_spread(1001, 32, 8) == 1
    assert best_spread(10, 10, 3) == 0
