"""verify: an independent look at rules A, B, C and at a scheme's record."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from codedtool.coding.scheme import CodingScheme
from codedtool.coding.search import find_scheme
from codedtool.coding.verify import find_scheme_files, verify_scheme
from codedtool.errors import InputError

pytestmark = pytest.mark.quick


@pytest.fixture
def path(scheme: CodingScheme, tmp_path: Path) -> Path:
    return scheme.save(tmp_path / "s.npy", provenance={"method": "given", "greedy_size": None})


def _failed(path: Path, **wanted: int) -> list[str]:
    return [check.rule for check in verify_scheme(path, **wanted).failures]


def test_a_good_scheme_passes_and_its_report_has_the_agreed_keys(path: Path) -> None:
    report = verify_scheme(path, num_classes=10, length=10, act=3, min_distance=4, max_spread=0)
    assert report.passed
    document = report.to_json()
    agreed = (
        "path K N act min_distance s_min s_max spread method greedy_size pairs_at_min distance_histogram "
        "upper_bound hmin_is_optimal seconds"
    )
    assert set(agreed.split()) <= set(document)
    assert document["distance_histogram"] == {"4": 30, "6": 15}


def test_each_wish_that_is_not_met_fails_under_its_own_name(path: Path) -> None:
    assert _failed(path, num_classes=11) == ["K"]
    assert _failed(path, length=12) == ["N"]
    assert _failed(path, act=4) == ["act"]
    assert _failed(path, min_distance=6) == ["C"]


def test_a_distance_that_every_scheme_has_is_refused(path: Path) -> None:
    for distance in (1, 0, -5):
        with pytest.raises(InputError, match=f"`min_distance` must be at least 2 .* got {distance}"):
            verify_scheme(path, min_distance=distance)


def test_rule_b_is_held_to_the_least_possible_spread(table: np.ndarray, tmp_path: Path) -> None:
    rows = table[[0, 2, 5, 6]]  # rK = 1.2: spread 1 is the least possible
    fewer = CodingScheme(rows).save(tmp_path / "fewer.npy")
    spread = CodingScheme(rows).spread
    assert spread > 1
    assert _failed(fewer) == ["B"]
    assert _failed(fewer, max_spread=spread) == []
    assert _failed(fewer, max_spread=spread - 1) == ["B"]


def test_a_record_that_disagrees_fails(path: Path) -> None:
    record_file = path.with_suffix(".json")
    record = json.loads(record_file.read_text())
    for key, lie in (("K", 9), ("s_max", 4), ("sha256", "0" * 64)):
        record_file.write_text(json.dumps(record | {key: lie}))
        assert _failed(path) == ["JSON"], key
    record_file.write_text(json.dumps(record | {"min_distance": 6}))
    assert _failed(path) == ["C", "JSON"]
    for text in ("{", "[]", "\xff"):
        record_file.write_bytes(text.encode("latin-1"))
        assert _failed(path) == ["JSON"], text
    record_file.unlink()
    assert _failed(path) == []


def test_a_record_may_not_claim_more_than_can_be_proved(path: Path) -> None:
    record_file = path.with_suffix(".json")
    record = json.loads(record_file.read_text())
    # Of 10 digits with 3 ones, 13 words are 4 apart and 3 words 6 apart, at most.
    for true in ({"upper_bound": 13}, {"upper_bound": 20}, {"hmin_is_optimal": True}, {"hmin_is_optimal": False}):
        record_file.write_text(json.dumps(record | true))
        report = verify_scheme(path)
        assert report.passed
        assert true.items() <= report.to_json().items()
    wrong: list[dict[str, object]] = [
        {"upper_bound": 12},
        {"method": 3},
        {"greedy_size": "many"},
        {"upper_bound": 13.0},
    ]
    for lie in wrong:
        record_file.write_text(json.dumps(record | lie))
        report = verify_scheme(path)
        assert [check.rule for check in report.failures] == ["JSON"], lie
        assert next(iter(lie)) in report.failures[0].detail
        assert report.to_json()[next(iter(lie))] is None
    for number in ("NaN", "Infinity", "1e999"):
        record_file.write_text(json.dumps(record)[:-1] + f', "upper_bound": {number}}}')
        report = verify_scheme(path)
        assert [check.rule for check in report.failures] == ["JSON"], number
        json.dumps(report.to_json(), allow_nan=False)


def test_a_proof_of_the_highest_distance_is_made_again(tmp_path: Path) -> None:
    """1000 words of 32 digits with 8 ones are 6 apart, and 3452 words 8 apart are not excluded."""
    words = find_scheme(1000, 32, 8, 6, method="lexicode").scheme
    path = words.save(tmp_path / "s.npy", provenance={"hmin_is_optimal": True})
    assert _failed(path) == ["JSON"]


def test_a_file_that_is_no_scheme_is_a_failed_check_not_an_exception(tmp_path: Path) -> None:
    (tmp_path / "broken.npy").write_bytes(b"no")
    report = verify_scheme(tmp_path / "broken.npy")
    assert not report.passed
    assert report.scheme is None
    assert "not a .npy" in report.failures[0].detail


def test_paths_are_files_or_folders_in_order(path: Path, scheme: CodingScheme, tmp_path: Path) -> None:
    first = scheme.save(tmp_path / "a.npy")
    assert find_scheme_files([tmp_path]) == [first, path]
    assert find_scheme_files([path, first]) == [path, first]
    with pytest.raises(InputError, match="does not exist"):
        find_scheme_files([tmp_path / "gone"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"holds no \.npy"):
        find_scheme_files([tmp_path / "empty"])
