"""The data of the page's paths and sample images, against numpy and against `codedtool predict`."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from codedtool.analysis.evaluation import evaluate
from codedtool.budget import silent
from codedtool.data import ImageData, Split
from codedtool.deploy.prediction import predict_sample
from codedtool.models import build_network
from codedtool.report.page import write_report
from codedtool.report.parts import Part
from codedtool.report.paths import coded_structure, confused_pairs, path_details, shared_subnns, sparse_rows
from codedtool.report.rendering import page_script, render_page
from codedtool.report.samples import NUM_SAMPLES, choose_samples, sample_details
from codedtool.training.torch_runtime import TorchRuntime
from tests.subjects import (
    DIGITS,
    NORMALIZATION,
    make_subject,
    randomize,
    settled_subject,
    shipped,
    tiny_coded,
    tiny_plain,
    tiny_schemes,
    tiny_subjects,
)

pytestmark = pytest.mark.quick


@pytest.mark.parametrize("name", ["c10_5of10", "c100_4of20", "in1k_16of32"])
def test_shared_subnns_are_the_ones_of_both_codewords(name: str) -> None:
    scheme = shipped(name)
    for one, other in np.random.default_rng(0).integers(len(scheme.table), size=(50, 2)).tolist():
        expected = [n for n in range(scheme.length) if scheme.table[one][n] == 1 and scheme.table[other][n] == 1]
        assert list(shared_subnns(scheme, one, other)) == expected
        # Two words of the same weight differ in twice the positions that they do not share.
        differ = int((scheme.table[one] != scheme.table[other]).sum())
        assert len(expected) == scheme.act - differ // 2


def test_every_coded_block_has_the_codewords_of_its_place(tmp_path: Path) -> None:
    schemes = {"s2.1": shipped("c10_5of10"), "s3": shipped("c10_3of10"), "s2.2": shipped("c10_3of10")}
    network = randomize(build_network("coded_resnext_tiny", schemes))
    data = ImageData("noise", DIGITS, *[Split(np.zeros((10, 8, 8, 3), np.uint8), np.arange(10))] * 2, NORMALIZATION)
    found = coded_structure(make_subject(tmp_path, network, data, schemes=schemes))
    assert [one["place"] for one in found["schemes"]] == list(schemes)
    for described, block in zip(found["blocks"], network.coded_blocks, strict=True):
        assert described["name"] == block.name
        codewords = found["schemes"][described["scheme"]]["codewords"]
        assert [[int(bit) for bit in word] for word in codewords] == block.scheme.table.tolist()


def test_the_paths_count_the_same_confusions_as_eval(tmp_path: Path) -> None:
    subject = settled_subject(tmp_path)
    found = path_details(subject, subject.outputs())["confusion"]
    confusion = evaluate(subject).confusion
    assert found == sparse_rows(confusion)
    whole = np.zeros((10, 10), int)
    for i, row in enumerate(found):
        whole[i, row[::2]] = row[1::2]
    assert whole.tolist() == [list(row) for row in confusion]
    (table,) = confused_pairs(subject.classes, confusion, tiny_schemes())
    for of, taken_for, images, share, s2, s3 in table.rows:
        i, j = int(of), int(taken_for)
        assert i != j
        assert int(images) == whole[i, j]
        assert share == f"{100 * whole[i, j] / whole[i].sum():.2f}"
        for text, scheme in zip((s2, s3), tiny_schemes().values(), strict=True):
            assert text == f"{int((scheme.table[i] & scheme.table[j]).sum())} of {scheme.act}"
    images_of_rows = [int(row[2]) for row in table.rows]
    off_diagonal = whole[~np.eye(10, dtype=bool)]
    assert images_of_rows == sorted(off_diagonal[off_diagonal > 0].tolist(), reverse=True)[:20]
    assert confused_pairs(subject.classes, np.eye(10, dtype=int).tolist(), {}) == ()


def test_a_plain_run_has_no_paths_and_its_samples_have_none(tmp_path: Path) -> None:
    _, plain = tiny_subjects(tmp_path, tiny_coded(), tiny_plain())
    report = write_report(plain, tmp_path / "page.html", only=("paths", "samples"))
    assert any(reason.startswith("Paths: the drawing of the paths needs coded blocks") for reason in report.skipped)
    assert 'id="path-view"' not in (tmp_path / "page.html").read_text()
    samples = sample_details(plain, plain.outputs(), seed=0, progress=silent)["samples"]
    assert len(samples) == NUM_SAMPLES
    assert all(one["path"] == [] and one["agreeing"] is None and one["confidence"] is None for one in samples)


def test_sample_images_have_the_answers_and_paths_of_predict(tmp_path: Path) -> None:
    subject = settled_subject(tmp_path)
    found = sample_details(subject, subject.outputs(), seed=3, progress=silent)["samples"]
    evidence = subject.measure_evidence()
    by_name = {
        one.image.removeprefix(f"{subject.data.name}, "): one
        for one in predict_sample(subject, len(subject.data.val), evidence=evidence)
    }
    for one in found:
        expected = by_name[one["name"]]
        assert DIGITS[one["actual"]] == expected.actual
        assert DIGITS[one["predicted"]] == expected.class_name
        assert one["agreeing"] == expected.agreeing
        assert (one["confidence"], one["confidence_images"]) == (expected.confidence, expected.confidence_images)
        assert one["unlike"] == list(expected.unlike or ())
        for drawn, part in zip(one["path"], expected.path, strict=True):
            assert drawn["fired"] == part.fired
            assert DIGITS[drawn["decoder"]] == part.decoder
            np.testing.assert_allclose(drawn["energies"], part.energies, atol=0.0051)
        number = int(one["name"].rpartition(" ")[2])
        picture = Image.open(io.BytesIO(base64.b64decode(one["picture"]["uri"].partition(",")[2])))
        np.testing.assert_array_equal(np.asarray(picture), subject.data.val.images[number])


@pytest.mark.parametrize(("wrong", "expected"), [(0, 0), (2, 2), (50, 4), (95, 7), (100, 12)])
def test_a_third_of_the_sample_images_are_wrong_answers_if_there_are_as_many(wrong: int, expected: int) -> None:
    targets = np.arange(100) % 10
    predictions = np.where(np.arange(100) < wrong, (targets + 1) % 10, targets)
    rows = choose_samples(targets, predictions, seed=1)
    assert len(rows) == NUM_SAMPLES
    assert rows.tolist() == sorted(set(rows.tolist()))
    assert int((targets[rows] != predictions[rows]).sum()) == expected
    assert choose_samples(targets, predictions, seed=1).tolist() == rows.tolist()
    assert len(set(targets[rows].tolist())) >= 8
    assert choose_samples(targets[:5], predictions[:5], seed=1).tolist() == [0, 1, 2, 3, 4]


def test_large_images_are_shrunk_and_unreadable_ones_passed_over(tmp_path: Path) -> None:
    files = []
    for number in range(12):
        files.append(str(tmp_path / f'{number}<x-name onclick="alert(1)">.png'))
        Image.new("RGB", (300, 240), (20 * number, 0, 255)).save(files[-1])
    Path(files[3]).write_bytes(b"no image")
    split = Split(tuple(files), np.arange(12) % 10, skip_bad_images=True)
    data = ImageData("folder:images", DIGITS, split, split, NORMALIZATION)
    subject = make_subject(tmp_path, tiny_coded(), data, schemes=tiny_schemes())
    recipe = subject.recipe.with_values({"eval_size": 112, "num_workers": 0})
    subject = replace(subject, recipe=recipe, runtime=TorchRuntime(recipe, "cpu"))
    with pytest.warns(UserWarning, match="3<x-name"):
        outputs = subject.outputs()
    assert outputs.numbers is not None
    assert outputs.numbers.tolist() == [0, 1, 2, *range(4, 12)]
    with pytest.warns(UserWarning, match="3<x-name"):
        samples = sample_details(subject, outputs, seed=0, progress=silent)["samples"]
    assert [one["name"] for one in samples] == [Path(file).name for file in files[:3] + files[4:]]
    for one in samples:
        picture = Image.open(io.BytesIO(base64.b64decode(one["picture"]["uri"].partition(",")[2])))
        assert picture.size == (96, 96)
        assert picture.getpixel((50, 50)) == (20 * int(one["name"].partition("<")[0]), 0, 255)
    # Names of files are texts on the page.
    text = render_page(subject, {"samples": Part("samples", details={"samples": samples})}, [])
    assert "x-name onclick=" in text
    assert "<x-name" not in text


def test_a_part_that_fails_leaves_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("surprise")

    monkeypatch.setattr("codedtool.report.page.sample_details", fail)
    subject = settled_subject(tmp_path)
    report = write_report(subject, tmp_path / "page.html", only=("paths", "samples", "classes"))
    assert [failure.part for failure in report.failed] == ["Sample images"]
    text = (tmp_path / "page.html").read_text()
    assert 'id="path-view"' in text
    assert 'id="sample-view"' not in text
    assert "Sample images: " in text
    monkeypatch.undo()
    report = write_report(subject, tmp_path / "page.html", only=("paths", "samples", "classes"), force=True)
    assert report.reused == ("paths", "classes")
    assert report.parts == ("paths", "samples", "classes")
    report = write_report(subject, tmp_path / "page.html", only=("paths", "samples"), seed=1, force=True)
    assert report.reused == ("paths",)


def test_the_script_cannot_end_its_element_and_loads_nothing() -> None:
    script = page_script()
    for word in ("</", "<!--", "innerHTML", "eval(", "fetch(", "import(", "http://", "https://"):
        assert word not in script.replace("http://www.w3.org/2000/svg", ""), word
