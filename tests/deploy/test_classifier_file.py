"""A binary classifier's two files: they give the same logits elsewhere, and damaged ones are refused."""

from __future__ import annotations

import json
import pickletools
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from codedtool.analysis.classifiers import BinaryClassifiers
from codedtool.deploy.classifier_file import load_binary_classifier, save_binary_classifier
from codedtool.errors import InputError
from codedtool.models import build_network
from codedtool.models.pruning import keep_masks_of_class
from codedtool.training.subject import Subject
from tests.subjects import (
    DIGITS,
    make_subject,
    noisy_data,
    randomize,
    tiny_coded,
    tiny_plain,
    tiny_schemes,
    tiny_subjects,
)

READ_SCRIPT = """
import json, sys
import torch
from codedtool.deploy.classifier_file import load_binary_classifier
classifier = load_binary_classifier(sys.argv[1])
x = torch.load(sys.argv[2], weights_only=True)
with torch.no_grad():
    logits = classifier.network(x).logits[:, 0]
print(json.dumps({
    "logits": logits.tolist(), "accepts": classifier.accepts(logits).tolist(), "class": classifier.class_name,
    "training": classifier.network.training, "size": classifier.image_size, "threshold": classifier.threshold,
    "mean": classifier.normalization.mean, "metadata": classifier.metadata, "metrics": classifier.metrics,
}))
"""


@pytest.fixture(scope="module")
def subjects(tmp_path_factory: pytest.TempPathFactory) -> tuple[Subject, Subject]:
    """A coded and a plain run on the same noise."""
    return tiny_subjects(tmp_path_factory.mktemp("runs"), tiny_coded(), tiny_plain())


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def saved(subjects: tuple[Subject, Subject], tmp_path: Path) -> Path:
    """The file of class 3."""
    path = tmp_path / "out" / "three.safetensors"
    return save_binary_classifier(subjects[0], 3, path, threshold=0.25, metrics={"val_f1": 0.5})


def test_a_file_gives_the_same_logits_in_a_fresh_process(
    saved: Path, subjects: tuple[Subject, Subject], images: torch.Tensor, tmp_path: Path
) -> None:
    torch.save(images, tmp_path / "x.pt")
    arguments = [sys.executable, "-c", READ_SCRIPT, str(saved), str(tmp_path / "x.pt")]
    finished = subprocess.run(arguments, capture_output=True, text=True, check=True, timeout=120)
    document = json.loads(finished.stdout)
    subject = subjects[0]
    with torch.no_grad():
        expected = subject.network(images, keep_masks=keep_masks_of_class(subject.network, 3)).logits[:, 3]
    assert document["logits"] == pytest.approx(expected.tolist(), rel=1e-5, abs=1e-5)
    assert document["accepts"] == (expected >= 0.25).tolist()
    assert (document["class"], document["training"], document["size"]) == ("3", False, 8)
    assert (document["threshold"], document["metrics"]) == (0.25, {"val_f1": 0.5})
    assert document["mean"] == list(subject.run.normalization.mean)
    assert document["metadata"]["scheme.s3"] == tiny_schemes()["s3"].sha256
    assert document["metadata"]["checkpoint"] == subject.checkpoint


def test_the_run_s_preprocessing_goes_with_the_classifier(saved: Path) -> None:
    assert load_binary_classifier(saved).crop_part == 1.0, "digits of 8x8 pixels are evaluated whole"
    description = saved.with_suffix(".json")
    document = json.loads(description.read_text())
    del document["crop_part"]
    description.write_text(json.dumps(document))
    assert load_binary_classifier(saved).crop_part == 0.875, "that of the versions that stored none"


def test_neither_file_holds_a_pickle(saved: Path) -> None:
    weights = saved.read_bytes()
    length = int.from_bytes(weights[:8], "little")
    header = json.loads(weights[8 : 8 + length])
    sizes = [entry["data_offsets"] for key, entry in header.items() if key != "__metadata__"]
    assert max(end for _, end in sizes) == len(weights) - 8 - length, "nothing behind the tensors"
    assert header["__metadata__"] == {"class": "3"}
    with pytest.raises(ValueError, match=r".*"):
        list(pickletools.genops(weights))
    json.loads(saved.with_suffix(".json").read_text())
    assert sorted(path.name for path in saved.parent.iterdir()) == ["three.json", "three.safetensors"]


def test_an_existing_file_of_the_two_is_kept_unless_forced(saved: Path, subjects: tuple[Subject, Subject]) -> None:
    before = {path: path.read_bytes() for path in saved.parent.iterdir()}
    for gone in (None, saved):
        if gone is not None:
            gone.unlink()
        with pytest.raises(InputError, match="exists already"):
            save_binary_classifier(subjects[0], 4, saved, threshold=0, metrics={})
    assert saved.with_suffix(".json").read_bytes() == before[saved.with_suffix(".json")]
    save_binary_classifier(subjects[0], 4, saved, threshold=0, metrics={}, force=True)
    assert load_binary_classifier(saved.with_suffix(".json")).class_name == "4"
    with pytest.raises(InputError, match=r"\.safetensors file"):
        save_binary_classifier(subjects[0], 4, saved.with_suffix(".pt"), threshold=0, metrics={})


def edit(path: Path, **changes: object) -> None:
    """Change keys of a JSON document; None removes one."""
    document = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in document.items() if value is not None}))


def test_what_is_damaged_or_does_not_fit_together_is_named(
    saved: Path, subjects: tuple[Subject, Subject], tmp_path: Path
) -> None:
    description = saved.with_suffix(".json")
    whole = {path: path.read_bytes() for path in (saved, description)}
    other = tmp_path / "other.safetensors"
    save_binary_classifier(subjects[0], 5, other, threshold=1, metrics={})

    def refused(match: str) -> None:
        with pytest.raises(InputError, match=match):
            load_binary_classifier(saved)
        for path, content in whole.items():
            path.write_bytes(content)
        load_binary_classifier(saved)

    wrong: list[dict[str, object]] = [{"crop_part": part} for part in (0, -1, 2, "x")]
    wrong += [{"image_size": side} for side in (0, -8, 10_000_000, 8.0, "8")]
    for statistic in ("mean", "std"):
        for values in ([0.2, 0.2], ["a", "b", "c"], [1e999, 1, 1], 3):
            normalization = json.loads(description.read_text())["normalization"]
            wrong.append({"normalization": normalization | {statistic: values}})
    wrong += [{"normalization": {"mean": [0, 0, 0], "std": [0, 1, 1]}}, {"class": ["a"]}, {"class": ""}]
    for changes in wrong:
        edit(description, **changes)
        refused("are not one binary classifier|is no number of JSON")
    saved.write_bytes(whole[saved][: len(whole[saved]) // 2])
    refused("is damaged")
    saved.write_bytes(b"")
    refused("is damaged")
    flipped = bytearray(whole[saved])
    flipped[-1] ^= 0x40
    saved.write_bytes(flipped)
    refused("another SHA-256")
    # Of the same shapes: nothing but the SHA-256 can tell.
    description.write_bytes(other.with_suffix(".json").read_bytes())
    refused("another SHA-256")
    saved.write_bytes(other.read_bytes())
    refused("another SHA-256")
    description.write_text("{")
    refused("is damaged")
    description.write_bytes(b"\xff\xfe")
    refused("is damaged")
    description.write_text("[1]")
    refused("are not one binary classifier")
    description.unlink()
    refused("three.json does not exist")
    saved.unlink()
    refused("three.safetensors does not exist")
    edit(description, format=7)
    refused("format 7")
    edit(description, format=None)
    refused("are not one binary classifier: 'format'")
    for key in ("threshold", "codewords", "normalization", "weights_sha256", "provenance"):
        edit(description, **{key: None})
        refused(f"are not one binary classifier: '{key}'")
    edit(description, preset="coded_resnext_tinny")
    refused("did you mean coded_resnext_tiny")
    edit(description, preset="coded_resnext29_20x6d")
    refused("N=20")
    edit(description, preset="coded_resnext29_10x11d")
    refused("are not one binary classifier")
    edit(description, codewords={"s2": [1] * 6 + [0] * 4, "s3": [1] * 3 + [0] * 7})
    refused("are not one binary classifier")
    for word in ("1010", [300] * 10, [[1, 0], [1]], [1] * 10):
        edit(description, codewords={"s2": word})
        refused("are not one binary classifier|codeword|0 or 1")
    edit(description, threshold="much")
    refused("are not one binary classifier")


def test_classes_with_any_name_go_into_a_file_and_come_back(
    tmp_path: Path, subjects: tuple[Subject, Subject], images: torch.Tensor
) -> None:
    subject = subjects[0]
    names = ("great grey/owl", "..", "é ü", 'quo"te', *DIGITS[4:])
    named = replace(subject, run=replace(subject.run, classes=names))
    for k, name in enumerate(names[:4]):
        path = tmp_path / f"{k}.safetensors"
        save_binary_classifier(named, k, path, threshold=0, metrics={})
        assert load_binary_classifier(path).class_name == name


def test_a_run_with_one_coded_stage_goes_into_a_file_too(tmp_path: Path, images: torch.Tensor) -> None:
    schemes = {"s2": tiny_schemes()["s2"]}
    network = randomize(build_network("coded_resnext_tiny", schemes))
    subject = make_subject(tmp_path, network, noisy_data(DIGITS, train=1, val=1), schemes=schemes, name="half")
    classifier = load_binary_classifier(
        save_binary_classifier(subject, 8, tmp_path / "a.safetensors", threshold=0, metrics={})
    )
    with torch.no_grad():
        expected = network(images, keep_masks=keep_masks_of_class(network, 8)).logits[:, 8]
        assert torch.allclose(classifier.network(images).logits[:, 0], expected, atol=1e-5)
        assert torch.allclose(BinaryClassifiers(network, [8]).scores(images)[:, 0], expected, atol=1e-5)
