"""Exported networks run elsewhere and say the same; what goes wrong leaves no file."""

from __future__ import annotations

import copy
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from codedtool import __version__
from codedtool.budget import silent
from codedtool.cli import app
from codedtool.coding.scheme import CodingScheme
from codedtool.data import Normalization
from codedtool.deploy import export as export_module
from codedtool.deploy.classifier_file import BinaryClassifier
from codedtool.deploy.export import (
    METADATA_FILE,
    TOLERANCE,
    ExportResult,
    Kind,
    ParityError,
    export_classifier,
    export_network,
    output_names,
)
from codedtool.errors import InputError
from codedtool.models.network import CodedNetwork, Stage
from codedtool.models.presets import build_network
from codedtool.models.pruning import extract_binary_classifier
from codedtool.training.recipes import recipe_for
from codedtool.training.run import Run
from tests.paths import ROOT, SCHEMES

NORMALIZATION = Normalization(mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))
CLASSES = tuple(f"class {k}" for k in range(10))
SIZE = 16

needs_onnx = pytest.mark.skipif(
    any(export_module.find_spec(name) is None for name in ("onnx", "onnxscript", "onnxruntime")),
    reason="pip install 'codedtool[export]'",
)
KINDS = [pytest.param("onnx", marks=needs_onnx), "torch"]


def shipped_schemes() -> dict[str, CodingScheme]:
    return {
        "s2": CodingScheme.load(SCHEMES / "c10_5of10.npy"),
        "s3": CodingScheme.load(SCHEMES / "c10_3of10.npy"),
    }


def lively(network: CodedNetwork) -> CodedNetwork:
    """With BatchNorms as after training: new ones are identities, and the last of a block switches its block off."""
    generator = torch.Generator().manual_seed(7)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
            nn.init.uniform_(module.bias, -0.3, 0.3, generator=generator)
            nn.init.uniform_(module.running_mean, -0.3, 0.3, generator=generator)
            nn.init.uniform_(module.running_var, 0.5, 2, generator=generator)
    return network.eval()


def tiny(*, coded: bool = True) -> CodedNetwork:
    torch.manual_seed(3)
    return lively(build_network("coded_resnext_tiny", shipped_schemes()) if coded else build_network("resnext_tiny"))


def micro(channels: int = 8) -> CodedNetwork:
    """One coded block: exporting takes a second or two."""
    torch.manual_seed(4)
    schemes = {"s2": shipped_schemes()["s3"]}
    return lively(CodedNetwork({"s2": Stage(channels, 2, 1, 2)}, 10, schemes, num_classes=10, stem_channels=4))


def exported(network: CodedNetwork, path: Path, kind: Kind, **changes: Any) -> ExportResult:
    values: dict[str, Any] = {
        "normalization": NORMALIZATION,
        "image_size": SIZE,
        "crop_part": 0.875,
        "class_names": CLASSES[: network.num_classes],
        "metadata": {"preset": "tiny"},
    }
    return export_network(network, path, kind=kind, **values | changes)


def run_file(path: Path, images: torch.Tensor) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The outputs and metadata of an exported file, as someone without this package would read them."""
    if path.suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        assert session.get_inputs()[0].shape == ["batch", 3, SIZE, SIZE]
        names = [output.name for output in session.get_outputs()]
        values = session.run(None, {"images": images.numpy()})
        metadata = session.get_modelmeta().custom_metadata_map
        return {name: torch.from_numpy(np.asarray(v)) for name, v in zip(names, values, strict=True)}, metadata
    files = {METADATA_FILE: ""}
    program = torch.export.load(path, extra_files=files)
    return program.module()(images), json.loads(files[METADATA_FILE])


def assert_same(path: Path, network: CodedNetwork) -> dict[str, str]:
    """The file agrees with the network, image by image; returns its metadata."""
    images = torch.rand(7, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    outputs, metadata = run_file(path, images)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (NORMALIZATION.mean, NORMALIZATION.std))
    with torch.no_grad():
        output = network((images - mean) / std)
    assert tuple(outputs) == output_names(network)
    for found, expected in zip(outputs.values(), (output.logits, *output.energies), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    return metadata


@pytest.mark.parametrize("kind", KINDS)
def test_a_coded_network_says_the_same_elsewhere(tmp_path: Path, kind: Kind) -> None:
    network = tiny().train()
    path = tmp_path / "new" / f"model{export_module.SUFFIXES[kind]}"
    result = exported(network, path, kind)
    assert network.training
    assert result.path == path
    assert result.bytes == path.stat().st_size
    assert 0 < result.max_difference <= TOLERANCE
    assert result.outputs == ("logits", "energies.s2.1", "energies.s2.2", "energies.s3.1", "energies.s3.2")
    assert json.loads(json.dumps(result.to_json()))["outputs"] == list(result.outputs)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    metadata = assert_same(path, network.eval())
    assert metadata["preset"] == "tiny"
    assert metadata["codedtool"] == __version__
    assert tuple(json.loads(metadata["classes"])) == CLASSES
    assert json.loads(metadata["normalization"]) == {
        "mean": list(NORMALIZATION.mean),
        "std": list(NORMALIZATION.std),
        "built_in": True,
    }
    assert json.loads(metadata["preprocessing"]) == {
        "unchanged_if": [SIZE, SIZE],
        "resize_shorter_side": int(SIZE / 0.875),
        "interpolation": "bicubic",
        "centre_crop": SIZE,
    }
    # Nothing of the machine that exported it.
    assert str(ROOT).encode() not in path.read_bytes()
    assert sys.prefix.encode() not in path.read_bytes()


@pytest.mark.parametrize("kind", [pytest.param("onnx", marks=[needs_onnx, pytest.mark.slow]), "torch"])
def test_a_plain_network_has_logits_only(tmp_path: Path, kind: Kind) -> None:
    network = tiny(coded=False)
    path = tmp_path / f"model{export_module.SUFFIXES[kind]}"
    assert exported(network, path, kind).outputs == ("logits",)
    assert_same(path, network)


@pytest.mark.parametrize("kind", KINDS)
def test_a_binary_classifier_brings_its_threshold(tmp_path: Path, kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    classifier = BinaryClassifier(
        network=extract_binary_classifier(micro(), 4),
        class_name="deer",
        threshold=-0.12345678901234567,
        normalization=NORMALIZATION,
        image_size=SIZE,
        crop_part=1.0,
        metrics={},
        metadata={"preset": "coded_resnext_tiny", "run": "one"},
    )
    monkeypatch.setattr(export_module, "load_binary_classifier", lambda path: classifier)
    result = export_classifier(tmp_path / "deer.safetensors", kind=kind)
    assert result.path == tmp_path / f"deer{export_module.SUFFIXES[kind]}"
    metadata = assert_same(result.path, classifier.network)
    assert float(metadata["threshold"]) == classifier.threshold
    assert json.loads(metadata["classes"]) == ["deer"]
    assert metadata["run"] == "one"


def test_an_existing_file_stays_unless_forced(tmp_path: Path) -> None:
    path = tmp_path / "model.pt2"
    path.write_bytes(b"precious")
    with pytest.raises(InputError, match="`force`"):
        exported(micro(), path, "torch")
    assert path.read_bytes() == b"precious"
    exported(micro(), path, "torch", force=True)
    assert_same(path, micro())


@pytest.mark.parametrize(
    ("kind", "wrong"), [pytest.param("onnx", 1.01, marks=needs_onnx), ("torch", 1.01), ("torch", float("nan"))]
)
def test_a_network_that_says_something_else_is_not_written(
    tmp_path: Path, kind: Kind, wrong: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = export_module.normalize
    monkeypatch.setattr(export_module, "normalize", lambda *arguments: usual(*arguments) * wrong)
    path = tmp_path / "new" / f"model{export_module.SUFFIXES[kind]}"
    with pytest.raises(ParityError, match="differs from the original") as caught:
        exported(micro(), path, kind)
    assert caught.value.exit_code == 3
    assert not list(tmp_path.iterdir())


def test_a_wrong_layer_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever it is: the energies of the first coded block are compared as the logits are."""

    class Swapped(export_module.Deployed):
        def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
            outputs = super().forward(images)
            return outputs | {"energies.s2.1": outputs["energies.s2.1"] * 1.001}

    monkeypatch.setattr(export_module, "Deployed", Swapped)
    with pytest.raises(ParityError):
        exported(micro(), tmp_path / "model.pt2", "torch")
    assert not list(tmp_path.iterdir())


def test_a_logit_near_zero_is_no_reason_to_fail() -> None:
    """Where the terms of a lone logit cancel for every image, rounding is all that is left of it."""
    network = extract_binary_classifier(micro(64), 4)
    other = copy.deepcopy(network)
    features: list[torch.Tensor] = []
    logits: list[torch.Tensor] = []

    def listen(_: nn.Module, given: tuple[torch.Tensor], found: torch.Tensor) -> None:
        features.append(given[0])
        logits.append(found)

    other.fc.register_forward_hook(listen)

    def difference() -> float:
        deployed = export_module.Deployed(other, NORMALIZATION)
        return export_module._largest_difference(deployed, network, NORMALIZATION, image_size=SIZE, progress=silent)

    assert 0 < difference() < TOLERANCE
    cancelling_1C = torch.linalg.svd(torch.cat(features)).Vh[-1:]
    for module in (network, other):
        module.fc.weight = nn.Parameter(cancelling_1C)
    logits.clear()
    assert 0 < difference() < TOLERANCE
    assert torch.cat(logits).abs().max() < 1e-5


def test_bad_input_is_refused_before_anything_is_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = micro()
    with pytest.raises(InputError, match=r"of `kind` onnx must end in \.onnx"):
        exported(network, tmp_path / "model.pt2", "onnx")
    with pytest.raises(InputError, match="9 class names for 10 logits"):
        exported(network, tmp_path / "model.pt2", "torch", class_names=CLASSES[:9])
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "onnxscript", None)
        with pytest.raises(InputError, match=r"needs onnxscript.*codedtool\[export\]"):
            exported(network, tmp_path / "model.onnx", "onnx")
    monkeypatch.setattr(export_module, "find_spec", lambda name: name)
    monkeypatch.setattr(export_module, "_LARGEST_ONNX", 1000)
    with pytest.raises(InputError, match="choose `kind` torch"):
        exported(network, tmp_path / "model.onnx", "onnx")
    assert not list(tmp_path.iterdir())


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run whose trained network is `micro`."""
    monkeypatch.setattr(Run, "load_network", lambda self, which: micro())
    monkeypatch.setattr("codedtool.training.checkpoint.CheckpointStore.index", lambda self: {"best": "epoch-1"})
    recipe = dataclasses.replace(recipe_for("digits"), preset="coded_resnext_tiny", eval_size=SIZE)
    return Run.create(recipe, shipped_schemes(), CLASSES, NORMALIZATION, name="one", folder=tmp_path / "runs")


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["export", *arguments])


def test_the_verb_exports_a_run(run: Run) -> None:
    finished = invoke("--run", str(run.path), "--format", "pt2", "--json")
    assert finished.exit_code == 0, finished.output
    document = json.loads(finished.stdout)
    path = run.path / "export" / "model.pt2"
    assert document["path"] == str(path)
    assert "checking parity" in finished.stderr
    metadata = assert_same(path, micro())
    assert metadata["run"] == "one"
    assert metadata["checkpoint"] == "epoch-1"
    assert metadata["preset"] == "coded_resnext_tiny"
    assert metadata["scheme.s3"] == run.schemes["s3"].sha256
    again = invoke("--run", str(run.path), "--format", "torch", "--json")
    assert again.exit_code == 2
    assert "--force" in json.loads(again.stdout)["error"]


@needs_onnx
def test_json_is_all_that_stdout_gets_from_the_onnx_exporter(run: Run) -> None:
    finished = invoke("--run", str(run.path), "--json", "--quiet")
    assert finished.exit_code == 0, finished.output
    assert json.loads(finished.stdout)["kind"] == "onnx"
    assert finished.stderr == ""


def test_a_classifier_file_takes_no_run(tmp_path: Path) -> None:
    for flags in (("--run", "one"), ("--checkpoint", "last")):
        finished = invoke("--bc", str(tmp_path / "deer.safetensors"), *flags)
        assert finished.exit_code == 2
        assert flags[0] in finished.stderr
    missing = invoke("--bc", str(tmp_path / "deer.safetensors"), "--quiet")
    assert missing.exit_code == 2
    assert "does not exist" in missing.stderr
