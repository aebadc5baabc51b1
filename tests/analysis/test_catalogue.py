"""Every row of the catalogue: its function's arguments, its result, its drawings and its files."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from codedtool.analysis.catalogue import CATALOGUE, Analysis, analysis
from codedtool.analysis.result import Drawing, Result, save_result
from codedtool.training.subject import NotApplicableError, Subject
from tests.subjects import noisy_data, settle, tiny_coded, tiny_plain, tiny_subjects

pytestmark = pytest.mark.quick

# Table 6 takes 41 splits by default.
OPTIONS: dict[str, dict[str, Any]] = {"calibrate": {"repeats": 2}}

# Arguments of a function that are no option of its command. They have defaults.
LIBRARY_ONLY: dict[str, set[str]] = {"activations": {"bins"}, "cost": {"seed"}}

OOD = noisy_data(("x", "y"), train=1, val=7, name="other", seed=3)

rows = pytest.mark.parametrize("row", CATALOGUE, ids=lambda row: row.name)


def named(where: str) -> Any:
    """The function that a row names."""
    module, _, function = where.partition(":")
    return getattr(import_module(f"codedtool.{module}"), function)


@pytest.fixture(scope="module")
def subjects(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Subject, Subject]]:
    """A coded and a plain run on the same noise, without the timing of more than one round."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("codedtool.analysis.cost._TIMED_ROUNDS", 1)
        patch.setattr("codedtool.analysis.cost._TIMED_BATCH", {"cpu": 2})
        patch.setattr("codedtool.analysis.decoding._TIMED_IMAGES", {"cpu": 2})
        subjects = tiny_subjects(tmp_path_factory.mktemp("runs"), tiny_coded(), tiny_plain())
        for subject in subjects:
            images, _ = next(iter(subject.batches(subject.data.val, lambda *_: None, "")))
            settle(subject.network, images)
        yield subjects


@pytest.fixture(scope="module")
def results(subjects: tuple[Subject, Subject]) -> dict[str, Result]:
    """The result of every analysis on the coded run."""
    subject, plain = subjects
    return {row.name: row.run(subject, plain=plain, ood=OOD, options=OPTIONS.get(row.name)) for row in CATALOGUE}


def test_names_are_distinct_and_find_their_row() -> None:
    assert len({row.name for row in CATALOGUE}) == len(CATALOGUE)
    for row in CATALOGUE:
        assert analysis(row.name) is row


@rows
def test_the_function_takes_the_row_s_options_and_needs(row: Analysis) -> None:
    first, *keywords = inspect.signature(named(row.function)).parameters.values()
    assert first.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    assert all(parameter.kind is inspect.Parameter.KEYWORD_ONLY for parameter in keywords)
    defaults = {parameter.name: parameter.default for parameter in keywords}
    expected = {option.name: option.default for option in row.options} | dict.fromkeys(row.inputs)
    assert set(expected) | {"progress"} | LIBRARY_ONLY.get(row.name, set()) == set(defaults)
    for name, default in expected.items():
        assert defaults[name] == default, name
        assert type(defaults[name]) is type(default), name
    assert inspect.Parameter.empty not in defaults.values()


@rows
def test_texts_are_there_and_the_drawing_too(row: Analysis) -> None:
    assert row.title
    assert row.text.endswith(".")
    assert row.help.partition("\n")[0].endswith(".")
    flags = [option.flag for option in row.options]
    assert len(set(flags)) == len(flags)
    for option in row.options:
        assert option.flag.startswith("--")
        assert option.help.endswith(".")
    assert callable(named(row.drawing))


@rows
def test_a_row_that_needs_coded_blocks_refuses_a_plain_run(row: Analysis, subjects: tuple[Subject, Subject]) -> None:
    _, plain = subjects
    options = OPTIONS.get(row.name)
    if "coded" in row.needs:
        with pytest.raises(NotApplicableError, match="was trained without schemes"):
            row.run(plain, ood=OOD, options=options)
    else:
        assert isinstance(row.run(plain, ood=OOD, options=options), Result)


@rows
def test_a_result_is_frozen_and_its_tables_are_text(row: Analysis, results: dict[str, Result]) -> None:
    result = results[row.name]
    assert isinstance(result, Result)
    assert is_dataclass(result)
    with pytest.raises(AttributeError):
        setattr(result, fields(result)[0].name, None)
    assert result.tables()
    for table in result.tables():
        assert table.caption
        assert table.rows
        for cells in (table.header, *table.rows):
            assert len(cells) == len(table.header)
            assert all(isinstance(cell, str) for cell in cells)
    for text in (*result.lines(), *result.left_out()):
        assert isinstance(text, str)
        assert text


@rows
def test_documents_are_json_and_stems_name_files(row: Analysis, results: dict[str, Result]) -> None:
    result = results[row.name]
    json.dumps(result.to_json(), allow_nan=False)
    assert result.documents()
    assert result.rows()
    for stem, document in result.documents().items():
        assert stem
        assert json.loads(json.dumps(document, allow_nan=False))
    for stem, flat in result.rows().items():
        assert stem
        assert flat
        for one in flat:
            assert all(value is None or isinstance(value, str | int | float) for value in one.values())


@rows
def test_exactly_the_result_s_files_are_written(
    row: Analysis, results: dict[str, Result], subjects: tuple[Subject, Subject], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Rendering takes seconds; the tests of the page look at the rendered figures.
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda self, file, **_: file.write(b"picture"))
    result, drawings = results[row.name], row.draw(results[row.name])
    run = subjects[0].run
    folder = run.path / "analysis"
    before = {path.name for path in folder.iterdir()} if folder.exists() else set()
    written = save_result(run, result, drawings)
    expected = {f"{stem}.json" for stem in result.documents()} | {f"{stem}.csv" for stem in result.rows()}
    assert all(isinstance(drawing, Drawing) and drawing.stem and drawing.alt for drawing in drawings)
    assert bool(drawings) == (row.drawing is not None)
    pictures = {f"{drawing.stem}.png" for drawing in drawings}
    assert [path.parent for path in written] == [folder] * len(written)
    assert sorted(path.name for path in written) == sorted(expected | pictures)
    vectors = {Path(name).with_suffix(".svg").name for name in pictures}
    assert {path.name for path in folder.iterdir()} - before == (expected | pictures | vectors) - before
    assert all(path.stat().st_size for path in folder.iterdir())
