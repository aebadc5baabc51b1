"""Predictions of image files: the pixels are those of the evaluation, the answers those of the network."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from codedtool.analysis.decoding import (
    decode,
)
from codedtool.data import choose_crop_part, eval_batches, load_dataset
from codedtool.deploy.prediction import predict, read_images
from codedtool.errors import InputError
from codedtool.models import build_network
from codedtool.training.recipes import recipe_for
from codedtool.training.run import Run
from codedtool.training.subject import Subject, collect_outputs
from tests.subjects import (
    DIGITS,
    NORMALIZATION,
    make_subject,
    noisy_data,
    randomize,
    settled_subject,
    tiny_schemes,
)

pytestmark = pytest.mark.quick

TABLES = [torch.from_numpy(tiny_schemes()[stage].table.copy()) for stage in ("s2", "s2", "s3", "s3")]


@pytest.fixture
def subject(tmp_path: Path) -> Subject:
    return settled_subject(tmp_path)


@pytest.mark.parametrize("sizes", [[(8, 8)], [(20, 13), (9, 30), (8, 8), (224, 256)]])
def test_pixels_of_image_files_are_those_of_the_evaluation(sizes: list[tuple[int, int]], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            (tmp_path / split / name).mkdir(parents=True)
            for number, (width, height) in enumerate(sizes):
                pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / split / name / f"{number}.png")
    split = load_dataset(f"folder:{tmp_path}", data_dir=tmp_path).val
    part = choose_crop_part(split, 8)
    (batch,) = eval_batches(split, size=8, batch_size=100, crop_part=part)
    paths = [tmp_path / "val" / name / f"{number}.png" for name in ("cat", "dog") for number in range(len(sizes))]
    images = read_images(paths, 8, crop_part=part)
    assert images.dtype == torch.uint8
    assert torch.equal(images, batch.images)
    assert len(images.unique()) > 10


def test_a_run_keeps_its_crop_part(tmp_path: Path) -> None:
    def begun(name: str, changes: dict[str, int], crop_part: float | None) -> Run:
        recipe = recipe_for("digits").with_values({"preset": "resnext_tiny", **changes})
        run = Run.create(recipe, {}, DIGITS, NORMALIZATION, name=name, folder=tmp_path, crop_part=crop_part)
        assert Run.load(run.path).crop_part == run.crop_part
        return run

    assert begun("given", {}, 0.5).crop_part == 0.5
    old = {"whole": ({}, 1.0), "resized": ({"eval_size": 16}, 0.875)}
    for name, (changes, part) in old.items():
        run = begun(name, changes, None)
        assert run.crop_part == part
        document = json.loads((run.path / "config.json").read_text())
        del document["crop_part"]
        (run.path / "config.json").write_text(json.dumps(document))
        assert Run.load(run.path).crop_part == part
        for bad in (0, 2, "1", None, True):
            (run.path / "config.json").write_text(json.dumps({**document, "crop_part": bad}))
            with pytest.raises(InputError, match="describes no run: .*crop_part"):
                Run.load(run.path)


def test_grey_and_transparent_files_are_read_as_rgb(tmp_path: Path) -> None:
    Image.new("L", (8, 8), 77).save(tmp_path / "grey.png")
    Image.new("RGBA", (8, 8), (1, 2, 3, 255)).save(tmp_path / "rgba.png")
    images = read_images([tmp_path / "grey.png", tmp_path / "rgba.png"], 8, crop_part=1.0)
    assert images[0].unique().tolist() == [77]
    assert images[1, :, 0, 0].tolist() == [1, 2, 3]


@pytest.mark.parametrize("content", [None, b"", b"not an image", b"\x89PNG\r\n\x1a\nhalf"])
def test_a_file_that_is_no_image_is_named(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "broken.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"broken\.png"):
        read_images([path], 8, crop_part=1.0)
    with pytest.raises(InputError, match="cannot read the image"):
        read_images([tmp_path], 8, crop_part=1.0)


def test_predictions_are_the_network_s_outputs_in_words(
    subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = tuple(f"class {digit}" for digit in DIGITS)
    data = replace(subject.data, classes=names)
    subject = replace(subject, run=replace(subject.run, classes=names), find_data=lambda: data)
    # Several batches of files.
    monkeypatch.setattr("codedtool.deploy.prediction._BATCH", 7)
    paths = []
    for number, pixels in enumerate(subject.data.val.images):
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(pixels).save(paths[-1])
    outputs = collect_outputs(subject, subject.data.val)
    evidence = subject.measure_evidence()
    predictions = predict(subject, paths, evidence=evidence)
    assert [prediction.image for prediction in predictions] == [str(path) for path in paths]
    for number, prediction in enumerate(predictions):
        probabilities = outputs.logits[number].double().softmax(0)
        best = int(outputs.logits[number].argmax())
        assert prediction.class_name == names[best]
        assert prediction.probability == pytest.approx(float(probabilities[best]), abs=1e-5)
        ranked = sorted(range(10), key=lambda k: -float(outputs.logits[number, k]))
        assert [name for name, _ in prediction.alternatives] == [names[k] for k in ranked[1:3]]
        assert prediction.alternatives[0][1] == pytest.approx(float(probabilities[ranked[1]]), abs=1e-5)
        agreeing = outputs.decoded[number].tolist().count(best)
        assert prediction.agreeing == agreeing
        # Table 3 gives the counts; a row of few images does not speak for itself.
        assert prediction.confidence == evidence.confidence()[agreeing].value
        assert prediction.confidence_images == evidence.confidence()[agreeing].num_images
        assert [part.block for part in prediction.path] == ["s2.1", "s2.2", "s3.1", "s3.2"]
        for layer, part in enumerate(prediction.path):
            table = TABLES[layer]
            assert part.decoder == names[int(outputs.decoded[number, layer])]
            assert part.codeword == "".join(str(bit) for bit in table[best].tolist())
            assert sum(part.energies) == pytest.approx(float(table[0].sum()), rel=1e-4)
            scaled = outputs.energies[layer][number] * float(table[0].sum()) / 10
            assert part.energies == pytest.approx(scaled.tolist(), abs=1e-4)
            if min(abs(float(value) - 0.5) for value in scaled) > 1e-3:
                assert part.fired == "".join("1" if value > 0.5 else "0" for value in scaled.tolist())
            fired = [bit for bit, mark in zip(part.codeword, part.fired, strict=True) if mark == "1"]
            assert part.own == (fired.count("1"), part.codeword.count("1"))
            assert part.others == (fired.count("0"), part.codeword.count("0"))
        energy = float(outputs.logits[number].double().logsumexp(0))
        assert prediction.scores["high energy score"].value == pytest.approx(energy, abs=1e-4)
        assert prediction.scores["low energy score"].value == pytest.approx(-energy, abs=1e-4)
        assert {name: score.threshold for name, score in prediction.scores.items()} == evidence.thresholds
        above = tuple(name for name, score in prediction.scores.items() if score.value > score.threshold)
        assert prediction.unlike == above
        json.dumps(prediction.to_json(), allow_nan=False)
    assert len({prediction.agreeing for prediction in predictions}) > 1
    decoding = decode(subject)
    rows = [(row.num_images, round(row.num_images * (row.accuracy or 0))) for row in decoding.agreement]
    assert tuple(rows) == evidence.agreement
    # Of the validation images that gave the thresholds, at most 5% lie above one.
    assert sum(bool(prediction.unlike) for prediction in predictions) <= 0.05 * len(predictions)


def test_a_plain_network_predicts_without_a_path(tmp_path: Path) -> None:
    network = randomize(build_network("resnext_tiny"))
    plain = make_subject(
        tmp_path, network, noisy_data(DIGITS, train=1, val=1), schemes={}, preset="resnext_tiny", name="plain"
    )
    Image.new("RGB", (8, 8)).save(tmp_path / "black.png")
    (prediction,) = predict(plain, [tmp_path / "black.png"], evidence=None)
    assert (prediction.agreeing, prediction.confidence, prediction.path) == (None, None, ())
    assert (prediction.confidence_images, prediction.unlike, prediction.actual) == (None, None, None)
    assert prediction.scores == {}
    (prediction,) = predict(plain, [tmp_path / "black.png"], evidence=plain.measure_evidence())
    assert (prediction.confidence, prediction.confidence_images) == (None, None)
    assert prediction.unlike, "a black image is unlike noise"
