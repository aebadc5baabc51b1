"""A trained network as one file that runs without this package: ONNX, or a program of `torch.export`.

The exported network has one input, ``images``: float32 (B, 3, H, W), RGB scaled to 0..1. The batch size B is free, the
image size is fixed, and the network normalizes the images itself. Its outputs are ``logits`` (B, K) and, for every
coded block such as s3.1, ``energies.s3.1``: the energies E(tbar_n) of eq. 3, (B, N), or (B, N_act) for a binary
classifier.

Shape suffixes: B images of a batch, K classes, C channels, H and W pixels.
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
from codedtool.files import check_target, write_atomically
from codedtool.models.network import CodedNetwork
from codedtool.training.checkpoint import Which
from codedtool.training.inductor import prepare_inductor
from codedtool.training.run import Run

Kind = Literal["onnx", "torch"]
Outputs = dict[str, torch.Tensor]

SUFFIXES: Mapping[Kind, str] = {"onnx": ".onnx", "torch": ".pt2"}

# The entry of a .pt2 file that holds the metadata. An ONNX file holds them in the model's metadata_props.
METADATA_FILE = "metadata.json"

# Another order of float32 sums changes values by about 1e-6; a wrongly translated layer changes them by far more.
TOLERANCE = 1e-4

_CHECKED_BATCHES = (1, 2, 5)

# A protobuf message must be below 2 GiB. The margin is for the graph around the weights.
_LARGEST_ONNX = 2**31 - 2**24


class ParityError(CodedtoolError):
    """The exported network computes other values than the original. Exit code 3: a failed verification."""

    exit_code = 3


@dataclass(frozen=True)
class ExportResult:
    """The file of an exported network, checked against the original.

    Attributes:
        path: path of the file.
        kind: "onnx" or "torch".
        bytes: size of the file.
        max_difference: largest difference from the original network on random images, relative to the largest value of
            the same output (for logits see `_size_of_terms`); at most `TOLERANCE`.
        outputs: names of the network's outputs, in order.
    """

    path: Path
    kind: Kind
    bytes: int
    max_difference: float
    outputs: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The result in JSON's types."""
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
    """Export the whole network of a trained run. Its input images have the run's evaluation size.

    Args:
        run: from `Run.load`.
        path: the file to write; None: RUN/export/model.onnx or RUN/export/model.pt2.
        kind: "onnx", or "torch" for `torch.export.load`.
        checkpoint: "best", "last" or "previous".
        force: whether an existing file may be overwritten.
        progress: where to report the progress.

    Returns:
        The file and its largest difference from the network.

    Raises:
        InputError: the checkpoint is missing or damaged, or `export_network` refuses an input.
        ParityError: the exported network computes other values; no file is written.
    """
    path = path or run.path / "export" / f"model{SUFFIXES[kind]}"
    _check_target(path, kind, force=force)
    return export_network(
        run.load_network(checkpoint),
        path,
        kind=kind,
        normalization=run.normalization,
        image_size=run.recipe.eval_size,
        crop_part=run.crop_part,
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
    """Export a binary classifier that ``codedtool bc`` wrote. Its threshold goes into the file's metadata.

    Args:
        classifier: the classifier's .safetensors file.
        path: the file to write; None: beside ``classifier``, with the suffix of ``kind``.
        kind: "onnx", or "torch" for `torch.export.load`.
        force: whether an existing file may be overwritten.
        progress: where to report the progress.

    Returns:
        The file and its largest difference from the classifier.

    Raises:
        InputError: ``classifier`` is not a binary classifier's file, or `export_network` refuses an input.
        ParityError: the exported network computes other values; no file is written.
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
        crop_part=found.crop_part,
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
    crop_part: float,
    class_names: Sequence[str],
    metadata: Mapping[str, str],
    force: bool = False,
    progress: Progress = silent,
) -> ExportResult:
    """Export a network, and compare its outputs with the original's before the file is written.

    Args:
        network: a coded network, a plain network or a binary classifier, on any device. A copy in evaluation mode is
            exported.
        path: the file to write; it ends in the suffix of ``kind`` (`SUFFIXES`).
        kind: "onnx", or "torch" for `torch.export.load`.
        normalization: mean and standard deviation of the network's images; becomes part of the exported network.
        image_size: side of the images in pixels.
        crop_part: part of the shorter side that is kept of an image of another size.
        class_names: names of the K logits.
        metadata: texts to keep in the file; those of `describe` are added.
        force: whether an existing file may be overwritten.
        progress: where to report the progress.

    Returns:
        The file and its largest difference from the network.

    Raises:
        InputError: ``path`` exists or has another suffix, there are not K names, packages are not installed, or the
            network is too large for one ONNX file.
        ParityError: the exported network computes other values; no file is written.
    """
    _check_target(path, kind, force=force)
    if len(class_names) != network.num_classes:
        raise InputError(f"{len(class_names)} class names for {network.num_classes} logits: every logit needs one")
    network = copy.deepcopy(network).cpu().eval()
    if kind == "onnx":
        _check_onnx(network)
    document = dict(metadata) | describe(
        network, normalization, image_size=image_size, crop_part=crop_part, class_names=class_names
    )
    progress(f"exporting ({kind})", 0, None)
    prepare_inductor()
    with torch.no_grad(), _quietly():
        program = _trace(Deployed(network, normalization), image_size)
        content = _to_onnx(program, document) if kind == "onnx" else _to_torch(program, document)
        exported = _open_onnx(content) if kind == "onnx" else _open_torch(content)
    difference = _largest_difference(exported, network, normalization, image_size=image_size, progress=progress)
    if not difference <= TOLERANCE:  # this also refuses NaN
        raise ParityError(
            f"the exported network differs from the original by {difference:.1e} of its largest output; rounding "
            f"explains at most {TOLERANCE:.0e}. {path} was not written; try the other `kind`"
        )
    write_atomically(path, content)
    return ExportResult(path, kind, len(content), difference, output_names(network))


def output_names(network: CodedNetwork) -> tuple[str, ...]:
    """Names of the outputs: ``logits``, then ``energies.BLOCK`` for every coded block."""
    return ("logits", *(f"energies.{name}" for name in network.block_names))


def describe(
    network: CodedNetwork,
    normalization: Normalization,
    *,
    image_size: int,
    crop_part: float,
    class_names: Sequence[str],
) -> dict[str, str]:
    """The metadata that users of the file need, as text: version, class names, input and outputs. Lists are JSON.

    ``preprocessing`` says how an image becomes the network's input: one of the network's size is left as it is; another
    is resized (bicubic) until its shorter side has this length, and the centre is cropped.
    """
    return {
        "codedtool": __version__,
        "classes": json.dumps(list(class_names)),
        "input": f"images: float32 (B, 3, {image_size}, {image_size}), RGB scaled to 0..1, not normalized",
        "image_size": str(image_size),
        "preprocessing": json.dumps(
            {
                "unchanged_if": [image_size, image_size],
                "resize_shorter_side": int(image_size / crop_part),
                "interpolation": "bicubic",
                "centre_crop": image_size,
            }
        ),
        "normalization": json.dumps(
            {"mean": list(normalization.mean), "std": list(normalization.std), "built_in": True}
        ),
        "outputs": json.dumps(output_names(network)),
    }


class Deployed(nn.Module):
    """A network that normalizes its images itself and returns its outputs by name.

    Args:
        network: a network in evaluation mode, on the CPU.
        normalization: mean and standard deviation of its images.
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
        """The outputs by name, for (B, 3, H, W) float32 images in 0..1."""
        output = self.network((images - self.mean_C11) / self.std_C11)
        return dict(zip(self.names, (output.logits, *output.energies), strict=True))


def _check_target(path: Path, kind: Kind, *, force: bool) -> None:
    """Refuse an existing file or a wrong suffix, before anything is loaded."""
    if path.suffix != SUFFIXES[kind]:
        raise InputError(f"{path}: the name of a file of `kind` {kind} must end in {SUFFIXES[kind]}")
    check_target(path, force=force)


def _check_onnx(network: CodedNetwork) -> None:
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise InputError(
            f"`kind` onnx needs {', '.join(missing)}, not installed here: pip install 'codedtool[export]', or "
            "choose `kind` torch"
        )
    size = sum(tensor.nbytes for tensor in network.state_dict().values())
    if size > _LARGEST_ONNX:
        raise InputError(
            f"the network has {size / 2**30:.1f} GiB of weights, and one ONNX file holds less than 2 GiB: "
            "choose `kind` torch"
        )


@contextmanager
def _quietly() -> Iterator[None]:
    """Drop the output and warnings of the exporters: stdout may belong to a JSON document."""
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
    """Trace the module for any batch size. Under no_grad, the operations inside an autograd.Function are traced too."""
    example = torch.zeros(2, 3, image_size, image_size)  # torch would take a batch of 1 for a constant
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(module, (example,), dynamic_shapes={"images": {0: batch}})
    # Inline regions such as autocast's, which not every consumer of exported programs supports.
    program = program.run_decompositions({})
    for node in program.graph.nodes:
        # A stack trace names files and folders of the exporting machine.
        node.meta.pop("stack_trace", None)
    return program


def _to_onnx(program: ExportedProgram, document: Mapping[str, str]) -> bytes:
    onnx_program = torch.onnx.export(
        program,
        dynamo=True,
        input_names=["images"],
        output_names=json.loads(document["outputs"]),
        dynamic_shapes={"images": {0: "batch"}},  # name of the free dimension in the file
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
    """Open the exported network in onnxruntime, on the CPU."""
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
    """Open the exported network with `torch.export.load`."""
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
    """`ExportResult.max_difference`, over several batch sizes. The original's images are normalized as in training."""
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
        # max() of a tensor keeps NaN; Python's does not. Outputs that are all zero are compared absolutely.
        differences.append((torch.cat(found[name]) - reference).abs().max() / torch.where(scale > 0, scale, 1.0))
    return float(torch.stack(differences).max())


def _size_of_terms(features_BC: torch.Tensor, weight_KC: torch.Tensor) -> torch.Tensor:
    """The typical size of a logit if the signs of its terms were random: the largest root of the terms' sum of squares.

    The only logit of a binary classifier may be near zero for all images although its terms, and so the rounding error,
    are not small.
    """
    return (features_BC.square() @ weight_KC.square().T).sqrt().max()
