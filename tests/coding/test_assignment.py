"""Assigning classes to codewords by similarity: all orders of a few classes as the witness, hostile matrices."""

from __future__ import annotations

import io
import json
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from codedtool.budget import Budget
from codedtool.cli.assign import assign
from codedtool.coding.orders import assignment
from codedtool.coding.orders.assignment import assign_classes, check_similarity, load_similarity
from codedtool.coding.scheme import CodingScheme
from codedtool.errors import InputError

pytestmark = pytest.mark.quick


def overlap(table: np.ndarray, similarity: np.ndarray) -> float:
    """The definition, pair by pair."""
    total = weight = 0.0
    for i in range(len(table)):
        for k in range(i):
            total += similarity[i, k] * int((table[i] & table[k]).sum())
            weight += abs(similarity[i, k])
    return total / weight


def random_similarity(num_classes: int, seed: int) -> np.ndarray:
    matrix = np.random.default_rng(seed).normal(size=(num_classes, num_classes))
    return matrix + matrix.T


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), num_classes=st.integers(3, 6), repel=st.booleans())
def test_few_classes_reach_the_best_of_all_orders(seed: int, num_classes: int, repel: bool) -> None:
    table = np.random.default_rng(seed).permutation(
        np.array([[0, 0, 1, 1], [0, 1, 0, 1], [1, 0, 0, 1], [0, 1, 1, 0], [1, 0, 1, 0], [1, 1, 0, 0]], dtype=np.uint8)
    )[:num_classes]
    similarity = random_similarity(num_classes, seed)
    # A hundredth of the steps is plenty for 720 orders.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assignment, "_ANNEALING_STEPS", 40_000)
        found = assign_classes(CodingScheme(table), similarity, repel=repel)
    every = [overlap(table[list(order)], similarity) for order in permutations(range(num_classes))]
    assert found.overlap == pytest.approx(overlap(found.scheme.table, similarity), abs=1e-4)
    assert found.overlap == pytest.approx(min(every) if repel else max(every), abs=1e-4)


def test_figures_are_those_of_the_returned_order(scheme: CodingScheme) -> None:
    similarity = random_similarity(10, 1)
    found = assign_classes(scheme, similarity, seed=4)
    assert np.array_equal(found.scheme.table, scheme.table[found.permutation])
    assert sorted(found.scheme.words.tolist()) == sorted(scheme.words.tolist())
    assert found.given_overlap == pytest.approx(overlap(scheme.table, similarity), abs=1e-5)
    assert found.overlap == pytest.approx(overlap(found.scheme.table, similarity), abs=1e-5)
    assert found.overlap > found.random_mean + 2 * found.random_std
    assert found.num_beaten == found.num_random
    again = assign_classes(scheme, similarity, seed=4)
    assert again == found
    assert np.array_equal(again.permutation, found.permutation)
    repelled = assign_classes(scheme, similarity, repel=True)
    assert repelled.overlap < found.random_mean - 2 * found.random_std
    # The mean over all orders is known: every pair of classes gets every pair of rows equally often.
    above = np.triu_indices(10, 1)
    shared = (scheme.table.astype(int) @ scheme.table.T)[above].mean()
    expected = shared * similarity[above].sum() / np.abs(similarity[above]).sum()
    assert found.random_mean == pytest.approx(expected, abs=4 * found.random_std / found.num_random**0.5)


def test_a_planted_assignment_is_found() -> None:
    """Similarities that are the overlaps of a shuffled scheme: un-shuffling is optimal (Cauchy-Schwarz)."""
    rng = np.random.default_rng(0)
    table = np.eye(40, dtype=np.uint8) + np.roll(np.eye(40, dtype=np.uint8), 1, axis=1)
    shuffled = table[rng.permutation(40)]
    similarity = (shuffled.astype(float) @ shuffled.T) * (1 - np.eye(40))
    found = assign_classes(CodingScheme(table), similarity)
    assert found.overlap <= 1.0
    assert found.overlap > 0.8
    assert found.given_overlap < 0.3


def test_interruption_returns_a_valid_order() -> None:
    scheme = CodingScheme(np.eye(64, dtype=np.uint8))
    budget = Budget()

    def interrupt(phase: str, done: float, total: float | None, note: str = "") -> None:
        if note == "annealing":
            budget.interrupt()

    found = assign_classes(scheme, random_similarity(64, 0), budget=budget, progress=interrupt)
    assert found.stopped == "interrupted"
    assert sorted(found.permutation.tolist()) == list(range(64))


def test_a_confusion_matrix_is_normalised_by_rows_and_symmetrised() -> None:
    confusion = np.array([[8, 2, 0], [0, 5, 5], [0, 0, 0]])
    expected = np.array([[0, 0.1, 0], [0.1, 0, 0.25], [0, 0.25, 0]])
    assert np.allclose(check_similarity(confusion, 3), expected)
    symmetric = np.array([[9.0, -1.0], [-1.0, 7.0]])
    assert np.array_equal(check_similarity(symmetric, 2), [[0.0, -1.0], [-1.0, 0.0]])


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.ones((3, 2)), r"K=3 as in the scheme, got shape \(3, 2\)"),
        (np.ones(9), r"got shape \(9,\)"),
        (np.ones((3, 3), dtype=complex), "real numbers, got dtype complex128"),
        (np.array([["a"] * 3] * 3), "real numbers, got dtype <U1"),
        (np.array([[0, 1, np.nan], [1, 0, 1], [1, 1, 0]]), "finite, but row 0, column 2 holds nan"),
        (np.array([[0, 1, 1], [1, 0, np.inf], [1, np.inf, 0]]), "finite, but row 1, column 2 holds inf"),
        (np.array([[0, 1, 1], [-2, 0, 1], [1, 1, 0]]), "confusion matrix, whose entries are >= 0, but row 1, column 0"),
        (np.eye(3), "every similarity of two different classes is 0"),
    ],
)
def test_matrices_that_break_a_rule_are_refused(matrix: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_similarity(matrix, 3)


def npy(array: np.ndarray, *, allow_pickle: bool = False) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=allow_pickle)
    return stream.getvalue()


def archive() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, matrix=np.ones((3, 3)))
    return stream.getvalue()


HUGE = npy(np.ones((3, 3))).replace(b"(3, 3), }" + b" " * 20, b"(3000000000, 3000000000), }  ")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a matrix",
        npy(np.ones((3, 3)))[:-5],
        npy(np.ones((3, 3)))[:20],
        npy(np.array([[{}] * 3] * 3, dtype=object), allow_pickle=True),
        archive(),
        archive()[:60],
        HUGE,
        b"\x93NUMPY\x01\x00\x10\x00{'descr': 'x'   ",
    ],
)
def test_hostile_files_are_refused_by_name(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "M.npy"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"M\.npy"):
        load_similarity(path, 3)


def test_a_missing_file_and_a_folder_are_refused_by_name(tmp_path: Path) -> None:
    for path in (tmp_path / "none.npy", tmp_path):
        with pytest.raises(InputError, match=str(path)):
            load_similarity(path, 3)


def run_assign(*arguments: object) -> tuple[int, str]:
    app = typer.Typer()
    app.command()(assign)
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return done.exit_code, done.stdout


def test_the_verb_writes_a_permutation_and_its_record(scheme: CodingScheme, tmp_path: Path) -> None:
    given, matrix = tmp_path / "s.npy", tmp_path / "M.npy"
    scheme.save(given)
    np.save(matrix, random_similarity(10, 2))
    code, text = run_assign("--scheme", given, "--similarity", matrix, "--json", "--quiet")
    assert code == 0
    document = json.loads(text)
    written = CodingScheme.load(tmp_path / "s_assigned.npy")
    record = json.loads((tmp_path / "s_assigned.json").read_text())
    assert document["path"] == str(tmp_path / "s_assigned.npy")
    assert record["input_sha256"] == scheme.sha256
    assert record["sha256"] == written.sha256
    assert np.array_equal(written.table, scheme.table[record["permutation"]])
    assert run_assign("--scheme", given, "--similarity", matrix)[0] == 2
    assert (
        run_assign("--scheme", given, "--similarity", matrix, "--force", "--repel", "--out", tmp_path / "r.npy")[0] == 0
    )
    assert run_assign("--scheme", given, "--similarity", tmp_path / "none.npy", "--out", tmp_path / "x.npy")[0] == 2
    assert not (tmp_path / "x.npy").exists()
