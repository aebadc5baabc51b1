"""``codedtool report``: all tables and figures of a run on one HTML page, which loads no other file."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jinja2 import Environment, PackageLoader, StrictUndefined

from codedtool import __version__
from codedtool.analysis.artifacts import artifact_path, figure_bytes, write_figure
from codedtool.analysis.bc import BcResult
from codedtool.analysis.catalogue import CATALOGUE, SEED
from codedtool.analysis.classifier_metrics import CODED, FULL
from codedtool.analysis.result import Drawing, Result, Table, percent, save_result
from codedtool.budget import Progress, silent
from codedtool.data import ImageData
from codedtool.files import FileError, refuse_existing, write_atomically
from codedtool.report.figures_training import draw_training
from codedtool.text import for_script, readable
from codedtool.training.run import Run
from codedtool.training.subject import NotApplicableError, Outputs, Subject

# A CSS pixel is 1/96 inch.
_PIXELS_PER_INCH = 96

# For each class, the page names this many classes that it is most often taken for.
_CONFUSIONS = 3


@dataclass(frozen=True)
class Part:
    """A part of the page.

    Attributes:
        key: name of the analysis; links to the part end in #key.
        title: heading of the part.
        text: sentences above the figures: what the part shows, and where the paper has it.
        figures: for each figure its description, its SVG as a data URI, and its width in pixels.
        tables: the tables below the figures.
        lines: the sentences below the tables.
    """

    key: str
    title: str
    text: str
    figures: tuple[tuple[str, str, int], ...] = ()
    tables: tuple[Table, ...] = ()
    lines: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """The page that `write_report` wrote.

    Attributes:
        path: file of the page.
        parts: keys of the page's parts.
        skipped: the parts that were left out, each with the reason.
    """

    path: Path
    parts: tuple[str, ...]
    skipped: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The result in JSON's types."""
        return {"path": str(self.path), "parts": list(self.parts), "skipped": list(self.skipped)}


def write_report(
    subject: Subject,
    path: Path,
    *,
    plain: Subject | None = None,
    ood: ImageData | None = None,
    seed: int = 0,
    force: bool = False,
    progress: Progress = silent,
) -> Report:
    """Run all analyses that apply to a run, save their files in RUN/analysis/, and write one page with all results.

    Analyses that need only the network's outputs for the validation images share one pass over the images.

    Args:
        subject: a coded or plain run. Analyses that need coded blocks are left out for a plain run.
        path: file of the page (.html).
        plain: an opened run of the plain control, as a baseline for the binary classifiers.
        ood: a data set of other classes. Its validation images are out-of-distribution negatives.
        seed: seed of all random draws.
        force: whether an existing page may be overwritten.
        progress: where to report the progress.

    Returns:
        The file, the parts of the page, and the parts that were left out.

    Raises:
        InputError: the page exists already, the data set is missing, or an analysis refuses its input.
    """
    refuse_existing(path, force=force)
    parts, skipped = [], []
    if subject.run.metrics():
        parts.append(_training(subject.run))
    else:
        skipped.append("training curves: the run has no finished epoch in metrics.jsonl")
    results: dict[str, Result] = {}
    for analysis in CATALOGUE:
        options = {"seed": seed} if SEED in analysis.options else {}
        try:
            result = analysis.run(subject, plain=plain, ood=ood, options=options, progress=progress)
        except NotApplicableError as error:
            skipped.append(f"{analysis.title}: {error}")
            continue
        drawings = analysis.draw(result)
        save_result(subject.run, result, drawings)
        results[analysis.name] = result
        skipped += result.left_out()
        images = _images(drawings)
        parts.append(
            Part(analysis.name, analysis.title, analysis.text, images, tuple(result.tables()), tuple(result.lines()))
        )
    outputs = subject.outputs(progress)
    accuracy = float((outputs.predictions == outputs.targets).double().mean())
    environment = Environment(
        loader=PackageLoader("codedtool.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        finalize=lambda value: readable(value) if type(value) is str else value,
    )
    page = environment.get_template("report.html.j2").render(
        run=subject.run,
        recipe=subject.recipe,
        checkpoint=subject.checkpoint,
        data=subject.data,
        accuracy=accuracy,
        num_images=len(outputs.targets),
        schemes=[(stage, scheme) for stage, scheme in subject.run.schemes.items()],
        parts=parts,
        skipped=skipped,
        version=__version__,
        classes=_classes(subject, outputs, results.get("bc")),
        paths=for_script(_paths(subject, outputs)),
    )
    write_atomically(path, page.encode())
    return Report(path, tuple(part.key for part in parts), tuple(dict.fromkeys(skipped)))


def _training(run: Run) -> Part:
    """The part with the training curves, which are drawn from the run's metrics."""
    drawing = Drawing("training", "Accuracy and losses by epoch", draw_training(run.metrics()))
    with suppress(FileError):  # a run that cannot be written to; the analyses' results warn of it
        write_figure(artifact_path(run, "training.png"), drawing.figure)
    text = "Accuracy, losses and accuracy of the early decoders after every epoch (metrics.csv)."
    return Part("training", "Training", text, _images([drawing]))


def _images(drawings: Sequence[Drawing]) -> tuple[tuple[str, str, int], ...]:
    """The figures, in the form of `Part.figures`."""
    found = []
    for drawing in drawings:
        svg = base64.b64encode(figure_bytes(drawing.figure, "svg")).decode()
        width = int(drawing.figure.get_figwidth() * _PIXELS_PER_INCH)
        found.append((drawing.alt, f"data:image/svg+xml;base64,{svg}", width))
    return tuple(found)


def _classes(subject: Subject, outputs: Outputs, result: Result | None) -> list[dict[str, Any]]:
    """For each class: its accuracy, its binary classifier's metrics, and the classes it is most often taken for."""
    num_classes = len(subject.classes)
    counts_KK = torch.zeros(num_classes, num_classes, dtype=torch.int64)
    counts_KK.index_put_((outputs.targets, outputs.predictions), torch.ones(1, dtype=torch.int64), accumulate=True)
    by_source: dict[str, dict[int, Any]] = {}
    if isinstance(result, BcResult):
        classifiers = result.classifiers
        by_source = {source: {one.class_index: one for one in classifiers.of(source)} for source in classifiers.sources}
    found = []
    for k, name in enumerate(subject.classes):
        total = int(counts_KK[k].sum())
        others = counts_KK[k].clone()
        others[k] = 0
        order = others.argsort(descending=True, stable=True)[:_CONFUSIONS].tolist()
        found.append(
            {
                "index": k,
                "name": name,
                "num_images": total,
                "accuracy": percent(float(counts_KK[k, k]) / total if total else None),
                "confusions": [
                    {"name": subject.classes[other], "share": percent(float(others[other]) / total)}
                    for other in order
                    if others[other] > 0
                ],
                "codewords": [
                    (stage, "".join(map(str, scheme.table[k].tolist())))
                    for stage, scheme in subject.run.schemes.items()
                ],
                "classifiers": [
                    {
                        "source": source,
                        "threshold": f"{one.threshold:.3f}",
                        "values": [
                            percent(value)
                            for value in (one.val.precision, one.val.recall, one.val.f1, one.val.average_precision)
                        ],
                    }
                    for source in by_source
                    if source in (CODED, FULL) and (one := by_source[source].get(k)) is not None
                ],
            }
        )
    return found


def _paths(subject: Subject, outputs: Outputs) -> dict[str, Any]:
    """Data of the paths that the page draws: codewords, and mean energies r E(tbar_n) with two decimals."""
    network, num_classes = subject.network, len(subject.classes)
    blocks = []
    images_K1 = torch.bincount(outputs.targets, minlength=num_classes).clamp_min(1)[:, None]
    for block, energies_nN in zip(network.coded_blocks, outputs.energies, strict=True):
        scheme = block.scheme
        sums_KN = torch.zeros(num_classes, scheme.length).index_add_(0, outputs.targets, energies_nN.float())
        means_KN = sums_KN / images_K1 * float(scheme.ratio)
        blocks.append(
            {
                "name": block.name,
                "codewords": ["".join(map(str, row)) for row in scheme.table.tolist()],
                "energies": [[round(value, 2) for value in row] for row in means_KN.tolist()],
            }
        )
    return {"blocks": blocks}
