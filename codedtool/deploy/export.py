"""A trained network as one file that runs without this package: ONNX, or a program of `torch.export`.

Shape suffixes: B images of a batch, C channels, H and W pixels. The file's network takes ``images``, float32
(B, 3, H, W), red, green, blue, scaled to 0..1: B is free, the size is fixed, the normalization is inside. It gives
``logits`` (B, K) and for every coded block, such as s3.1, ``energies.s3.1``: E(tbar_n) of eq. 3, (B, N), or of a binary
classifier (B, N_act).
"""

from __future__ import annotations

import copy
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from torch.export import ExportedProgram

from codedtool import __version__
from codedtool.budget import Progress, silent
from codedtool.data import Normalization, normalize
from codedtool.deploy.classifier_file import load_binary_classifier
from codedtool.errors import CodedtoolError, InputError
from codedtool.files import refuse_existing, write_atomically
from codedtool.models.network import CodedNetwork
from codedtool.training.checkpoint import Which
from codedtool.training.run import Run

Kind = Literal["onnx", "torch"]
Outputs = dict[str, torch.Tensor]

SUFFIXES: Mapping[Kind, str] = {"onnx": ".onnx", "torch": ".pt2"}

# The entry of a .pt2 file that holds the metadata; in ONNX they are the model's metadata_props.
METADATA_FILE = "metadata.json"

# Float32 sums in another order differ by 1e-6 or so; a layer that was translated wrongly differs by far more.
TOLERANCE = 1e-4

_CHECKED_BATCHES = (1, 2, 5)

# protobuf holds no message of 2 GiB or more; the margin is for the graph around the weights.
_LARGEST_ONNX = 2**31 - 2**24


class ParityError(CodedtoolError):
    """The exported network does not compute what the network computes: a failed verification. Exit code 3."""

    exit_code = 3


@dataclass(frozen=True)
class ExportResult:
    """An exported network, checked against the one it came from.

    Attributes:
        path: the file.
        kind: onnx or torch.
        bytes: its size.
        max_difference: the largest difference from the network on random images, relative to the largest value of
            the same output (for logits see `_size_of_terms`); at most `TOLERANCE`.
        outputs: names of the outputs, in order.
    """

    path: Path
    kind: Kind
    bytes: int
    max_difference: float
    outputs: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        return {
            "path": str(self.path),
            "kind": self.kind,
            "bytes": self.bytes,
            "max_difference": self.max_difference,
            "outputs": list(self.outputs),
        }


def export_run(
    run: Run,
    path: Path | None = None,
    *,
    kind: Kind = "onnx",
    checkpoint: Which = "best",
    force: bool = False,
    progress: Progress = silent,
) -> ExportResult:
    """Export the whole network of a trained run; its images have the run's evaluation size.

    Args:
        path: None: RUN/export/model.onnx or model.pt2.

    Raises:
        InputError: no or a damaged checkpoint, and as `export_network`.
    """
    path = path or run.path / "export" / f"model{SUFFIXES[kind]}"
    _check_target(path, kind, force=force)
    return export_network(
        run.load_network(checkpoint),
        path,
        kind=kind,
        normalization=run.normalization,
        image_size=run.recipe.eval_size,
        class_names=run.classes,
        metadata=run.metadata() | {"run": run.name, "checkpoint": run.checkpoints.index()[checkpoint]},
        force=force,
        progress=progress,
    )


def export_classifier(
    classifier: Path,
    path: Path | None = None,
    *,
    kind: Kind = "onnx",
    force: bool = False,
    progress: Progress = silent,
) -> ExportResult:
    """Export a binary classifier that `codedtool bc` saved; its threshold is in the metadata.

    Args:
        classifier: its file.
        path: None: beside ``classifier``, with the suffix of the kind.

    Raises:
        InputError: no binary classifier, and as `export_network`.
    """
    path = path or classifier.with_suffix(SUFFIXES[kind])
    _check_target(path, kind, force=force)
    found = load_binary_classifier(classifier)
    return export_network(
        found.network,
        path,
        kind=kind,
        normalization=found.normalization,
        image_size=found.image_size,
        class_names=(found.class_name,),
        metadata=found.metadata | {"threshold": repr(found.threshold)},
        force=force,
        progress=progress,
    )


def export_network(
    network: CodedNetwork,
    path: Path,
    *,
    kind: Kind,
    normalization: Normalization,
    image_size: int,
    class_names: Sequence[str],
    metadata: Mapping[str, str],
    force: bool = False,
    progress: Progress = silent,
) -> ExportResult:
    """Export a network, coded, plain or a binary classifier, and check the file's parity before it gets its name.

    Args:
        network: on any device, in any mode; it is exported in evaluation mode and left as it is.
        path: ends in the suffix of ``kind`` (`SUFFIXES`).
        kind: onnx, or torch for `torch.export.load`.
        normalization: of the network's images; becomes part of the file's network.
        image_size: side of the images in pixels.
        class_names: of the K logits.
        metadata: kept in the file; the keys of `describe` are added.
        force: overwrite an existing file.

    Raises:
        InputError: ``path`` exists or has another suffix, not K names, packages that are not installed, or a network
            too large for one ONNX file.
        ParityError: the exported network computes something else; no file is written.
    """
    _check_target(path, kind, force=force)
    if len(class_names) != network.num_classes:
        raise InputError(f"{len(class_names)} class names for {network.num_classes} logits: every logit needs one")
    network = copy.deepcopy(network).cpu().eval()
    if kind == "onnx":
        _check_onnx(network)
    document = dict(metadata) | describe(network, normalization, image_size=image_size, class_names=class_names)
    progress(f"exporting ({kind})", 0, None)
    with torch.no_grad(), _quietly():
        program = _trace(Deployed(network, normalization), image_size)
        content = _to_onnx(program, document) if kind == "onnx" else _to_torch(program, document)
        exported = _open_onnx(content) if kind == "onnx" else _open_torch(content)
    difference = _largest_difference(exported, network, normalization, image_size=image_size, progress=progress)
    if not difference <= TOLERANCE:  # also where it is not a number
        raise ParityError(
            f"the exported network differs from the original by {difference:.1e} of its largest output, and at most "
            f"{TOLERANCE:.0e} is rounding: {path} was not written; try the other --format"
        )
    write_atomically(path, content)
    return ExportResult(path, kind, len(content), difference, output_names(network))


def output_names(network: CodedNetwork) -> tuple[str, ...]:
    """``logits``, then ``energies.BLOCK`` of every coded block."""
    return ("logits", *(f"energies.{name}" for name in network.block_names))


def describe(
    network: CodedNetwork, normalization: Normalization, *, image_size: int, class_names: Sequence[str]
) -> dict[str, str]:
    """What a user of the file has to know, as text: version, class names, input, outputs; the lists are JSON."""
    return {
        "codedtool": __version__,
        "classes": json.dumps(list(class_names)),
        "input": f"images: float32 (B, 3, {image_size}, {image_size}), RGB scaled to 0..1, not normalized",
        "image_size": str(image_size),
        "normalization": json.dumps(
            {"mean": list(normalization.mean), "std": list(normalization.std), "built_in": True}
        ),
        "outputs": json.dumps(output_names(network)),
    }


class Deployed(nn.Module):
    """A network with its normalization before it and names for what it gives.

    Args:
        network: in evaluation mode, on the CPU.
        normalization: of its images.
    """

    mean_C11: torch.Tensor
    std_C11: torch.Tensor

    def __init__(self, network: CodedNetwork, normalization: Normalization) -> None:
        super().__init__()
        self.network = network
        self.names = output_names(network)
        self.register_buffer("mean_C11", torch.tensor(normalization.mean)[:, None, None])
        self.register_buffer("std_C11", torch.tensor(normalization.std)[:, None, None])
        self.eval()

    def forward(self, images: torch.Tensor) -> Outputs:
        """The named outputs for (B, 3, H, W) float32 images in 0..1."""
        output = self.network((images - self.mean_C11) / self.std_C11)
        return dict(zip(self.names, (output.logits, *output.energies), strict=True))


def _check_target(path: Path, kind: Kind, *, force: bool) -> None:
    """Before anything is loaded: may the file be written, and can its name be what it is?"""
    if path.suffix != SUFFIXES[kind]:
        raise InputError(f"--out {path}: the file of --format {kind} ends in {SUFFIXES[kind]}")
    refuse_existing(path, force=force)


def _check_onnx(network: CodedNetwork) -> None:
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise InputError(
            f"--format onnx needs {', '.join(missing)}, not installed here: pip install 'codedtool[export]', or "
            "choose --format torch"
        )
    size = sum(tensor.nbytes for tensor in network.state_dict().values())
    if size > _LARGEST_ONNX:
        raise InputError(
            f"the network has {size / 2**30:.1f} GiB of weights, and one ONNX file holds less than 2 GiB: "
            "choose --format torch"
        )


@contextmanager
def _quietly() -> Iterator[None]:
    """Within it, what the exporters print and warn about themselves is dropped: stdout may belong to a document."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _trace(module: Deployed, image_size: int) -> ExportedProgram:
    """The module's operations, for any batch; under no_grad, where what an autograd.Function does is traced."""
    example = torch.zeros(2, 3, image_size, image_size)  # a batch of one would be taken for a constant
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(module, (example,), dynamic_shapes={"images": {0: batch}})
    # Only operations are left: regions such as autocast's, which not every backend of torch.export knows, are inlined.
    program = program.run_decompositions({})
    for node in program.graph.nodes:
        # Names files and folders of the machine that exports.
        node.meta.pop("stack_trace", None)
    return program


def _to_onnx(program: ExportedProgram, document: Mapping[str, str]) -> bytes:
    onnx_program = torch.onnx.export(
        program,
        dynamo=True,
        input_names=["images"],
        output_names=json.loads(document["outputs"]),
        dynamic_shapes={"images": {0: "batch"}},  # the name, in the file, of what is dynamic in the program
        verbose=False,
    )
    assert onnx_program is not None
    onnx_program.model.metadata_props.update(document)
    return onnx_program.model_proto.SerializeToString()


def _to_torch(program: ExportedProgram, document: Mapping[str, str]) -> bytes:
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={METADATA_FILE: json.dumps(document)})
    return buffer.getvalue()


def _open_onnx(content: bytes) -> Callable[[torch.Tensor], Outputs]:
    """The file's network in onnxruntime, on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(images: torch.Tensor) -> Outputs:
        values = session.run(names, {"images": images.numpy()})
        return {name: torch.from_numpy(value) for name, value in zip(names, values, strict=True)}

    return run


def _open_torch(content: bytes) -> Callable[[torch.Tensor], Outputs]:
    """The file's network as `torch.export.load` gives it."""
    return torch.export.load(io.BytesIO(content)).module()


@torch.no_grad()
def _largest_difference(
    exported: Callable[[torch.Tensor], Outputs],
    network: CodedNetwork,
    normalization: Normalization,
    *,
    image_size: int,
    progress: Progress,
) -> float:
    """As `ExportResult.max_difference`, over batches of several sizes; the reference is normalised as in training."""
    generator = torch.Generator().manual_seed(0)
    names = output_names(network)
    found: dict[str, list[torch.Tensor]] = {name: [] for name in names}
    expected: dict[str, list[torch.Tensor]] = {name: [] for name in names}
    features: list[torch.Tensor] = []
    for number, batch in enumerate(_CHECKED_BATCHES):
        progress("checking parity", number, len(_CHECKED_BATCHES))
        pixels_BCHW = torch.randint(0, 256, (batch, 3, image_size, image_size), generator=generator, dtype=torch.uint8)
        outputs = exported(pixels_BCHW.float() / 255)
        with network.fc.register_forward_pre_hook(lambda _, arguments: features.append(arguments[0])):
            output = network(normalize(pixels_BCHW, normalization))
        for name, values in zip(names, (output.logits, *output.energies), strict=True):
            if outputs[name].shape != values.shape:
                return float("inf")
            found[name].append(outputs[name])
            expected[name].append(values)
    differences = []
    for name in names:
        reference = torch.cat(expected[name])
        scale = reference.abs().max()
        if name == "logits":
            scale = torch.maximum(scale, _size_of_terms(torch.cat(features), network.fc.weight))
        # max() of tensors keeps a NaN, where Python's loses it; logits that are all zero are compared as they are.
        differences.append((torch.cat(found[name]) - reference).abs().max() / torch.where(scale > 0, scale, 1.0))
    return float(torch.stack(differences).max())


def _size_of_terms(features_BC: torch.Tensor, weight_KC: torch.Tensor) -> torch.Tensor:
    """The largest root of the sum of squares of a logit's terms, a scalar: its size if their signs were random.

    A binary classifier has one logit, which may be near zero for all images while its terms, and their rounding, are
    not.
    """
    return (features_BC.square() @ weight_KC.square().T).sqrt().max()
