"""``report``: every table and figure of a run in one HTML page that needs nothing else, no network either."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from codedtool import __version__
from codedtool.analysis.activations import activations
from codedtool.analysis.artifacts import artifact_path, save_csv, save_figure, save_json
from codedtool.analysis.bc import CODED, FULL, ClassifiersResult, evaluate_classifiers
from codedtool.analysis.calibration import calibrate
from codedtool.analysis.cost import cost
from codedtool.analysis.decoding import decode, save_decoding
from codedtool.analysis.selective import selective
from codedtool.analysis.specialization import specialize
from codedtool.analysis.subject import NotApplicableError, Outputs, Subject, collect_outputs
from codedtool.budget import Progress, silent
from codedtool.data import ImageData
from codedtool.files import refuse_existing, write_atomically
from codedtool.report.figures_calibration import draw_calibration, draw_risk_coverage
from codedtool.report.figures_classifiers import draw_classifiers, draw_scores
from codedtool.report.figures_cost import draw_cost
from codedtool.report.figures_decoding import draw_decoding
from codedtool.report.figures_paths import draw_activations, draw_specialization
from codedtool.report.figures_training import draw_training

Result = TypeVar("Result")

# CSS's.
_PIXELS_PER_INCH = 96

# Hardest confusions named per class.
_CONFUSIONS = 3


@dataclass(frozen=True)
class Table:
    """A table of the page: texts, the first column left, numbers right."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Part:
    """A part of the page.

    Attributes:
        key: its anchor.
        title: its heading.
        text: a sentence on what it shows and where in the paper that is.
        figures: (what it shows for those who do not see it, SVG as a data URI, width in pixels).
        tables: below the figures.
    """

    key: str
    title: str
    text: str
    figures: tuple[tuple[str, str, int], ...] = ()
    tables: tuple[Table, ...] = ()


@dataclass(frozen=True)
class Report:
    """What `write_report` did.

    Attributes:
        path: the page.
        parts: keys of the parts that are in it.
        skipped: parts that are not, each with the reason.
    """

    path: Path
    parts: tuple[str, ...]
    skipped: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
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
    """Run every analysis that applies to the run, save its files in RUN/analysis, and write the page.

    The network sees the validation images once for all analyses that need its outputs alone.

    Args:
        subject: a coded or plain run.
        path: of the page, .html.
        plain: a run of the plain control, for comparison.
        ood: a data set of other classes.
        seed: of everything that is drawn.
        force: overwrite ``path``.

    Raises:
        InputError: the page exists, or the data or checkpoint are missing.
    """
    refuse_existing(path, force=force)
    writer = _Writer(subject, progress)
    outputs = collect_outputs(subject, subject.data.val, progress=progress)
    writer.training()
    classifiers = writer.classifiers(plain, ood, seed)
    writer.specialization(seed)
    writer.decoding(outputs)
    writer.calibration(outputs, seed)
    writer.activations()
    writer.cost()
    accuracy = float((outputs.predictions == outputs.targets).double().mean())
    environment = Environment(
        loader=PackageLoader("codedtool.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    page = environment.get_template("report.html.j2").render(
        run=subject.run,
        recipe=subject.recipe,
        checkpoint=subject.checkpoint,
        data=subject.data,
        accuracy=accuracy,
        num_images=len(outputs.targets),
        schemes=[(stage, scheme) for stage, scheme in subject.run.schemes.items()],
        parts=writer.parts,
        skipped=writer.skipped,
        version=__version__,
        classes=_classes(subject, outputs, classifiers),
        # "</" would end the script element early.
        paths=json.dumps(_paths(subject, outputs), separators=(",", ":")).replace("</", "<\\/"),
    )
    write_atomically(path, page.encode())
    return Report(path, tuple(part.key for part in writer.parts), tuple(writer.skipped))


class _Writer:
    """Runs analyses, saves their files, and gathers the parts of the page; what does not apply is noted."""

    def __init__(self, subject: Subject, progress: Progress) -> None:
        self._subject = subject
        self._progress = progress
        self.parts: list[Part] = []
        self.skipped: list[str] = []

    def training(self) -> None:
        rows = self._subject.run.metrics()
        if not rows:
            self.skipped.append("training curves: the run has no finished epoch in metrics.jsonl")
            return
        figure = draw_training(rows)
        self._add(
            "training",
            "Training",
            "Accuracy, losses and early decoders, epoch by epoch (metrics.csv).",
            [("Accuracy and losses by epoch", figure)],
            [],
        )

    def classifiers(self, plain: Subject | None, ood: ImageData | None, seed: int) -> ClassifiersResult | None:
        classes = range(len(self._subject.classes))
        result = self._try(
            "binary classifiers",
            lambda: evaluate_classifiers(
                self._subject, classes, plain=plain, ood=ood, seed=seed, progress=self._progress
            ),
        )
        if result is None:
            return None
        self.skipped += result.skipped
        self._save("bc", result.to_json(), result.rows())
        sets = [("val", "validation")] + ([("ood", f"negatives of {result.ood}")] if result.ood else [])
        keys = (("precision", "precision"), ("recall", "recall"), ("f1", "F1"), ("average_precision", "AP"))
        table = Table(
            "Mean over classes, %",
            ("", *(f"{title} ({label})" for _, label in sets for _, title in keys)),
            tuple(
                (row["source"], *(_percent(row.get(f"{name}_{key}")) for name, _ in sets for key, _ in keys))
                for row in result.means()
            ),
        )
        self._add(
            "bc",
            "Binary classifiers",
            "A class's subNNs and its row of the linear layer are a classifier of their own; thresholds are those of "
            "highest F1 on the training images (section 4.3, figures 2b, 3, 7, 8).",
            [
                ("Precision and recall of every class's classifier", draw_classifiers(result)),
                ("Histograms of the classifiers' logits for the first classes", draw_scores(result)),
            ],
            [table],
        )
        return result

    def specialization(self, seed: int) -> None:
        result = self._try("specialization", lambda: specialize(self._subject, seed=seed, progress=self._progress))
        if result is None:
            return
        self._save("specialize", result.to_json(), result.rows())
        table = Table(
            "Accuracy, %",
            ("block", "whole", "without all active", "without all inactive"),
            tuple(
                (block.block, *(_percent(value) for value in (block.active[0], block.active[-1], block.inactive[-1])))
                for block in result.blocks
            ),
        )
        self._add(
            "specialize",
            "Specialization",
            "Accuracy without k subNNs of one block that are active, or inactive, for the image's class "
            "(section 4.2, figures 2a and 9).",
            [("Accuracy by the number of removed subNNs, block by block", draw_specialization(result))],
            [table],
        )

    def decoding(self, outputs: Outputs) -> None:
        result = self._try("early decoders", lambda: decode(self._subject, outputs=outputs, progress=self._progress))
        if result is None:
            return
        save_decoding(self._subject.run, result)
        decoders = Table(
            "Early decoders, %",
            ("block", "accuracy"),
            tuple((name, _percent(value)) for name, value in result.decoder_accuracy.items()),
        )
        agreement = Table(
            "Final accuracy by agreeing decoders",
            ("agreeing", "images", "accuracy, %"),
            tuple((str(row.agreeing), str(row.num_images), _percent(row.accuracy)) for row in result.agreement),
        )
        exits = Table(
            "Early exits, %",
            ("rule", "accuracy", "multiply-adds", "measured time"),
            tuple(
                (point.rule, _percent(point.accuracy), _percent(point.macs_ratio), _percent(point.time_ratio))
                for point in result.exits
            ),
        )
        self._add(
            "decode",
            "Early decoders and early exit",
            "Every coded block predicts the class of the codeword nearest to its energies; the more of them agree, the "
            "surer the answer; and an answer may be given before the last block (section 4.4, figure 4, table 3).",
            [("Early decoders, agreement, and accuracy against cost of early exits", draw_decoding(result))],
            [decoders, agreement, exits],
            name="decode",
        )

    def calibration(self, outputs: Outputs, seed: int) -> None:
        result = self._try("calibration", lambda: calibrate(outputs, seed=seed, progress=self._progress))
        chosen = self._try("selective prediction", lambda: selective(outputs, seed=seed))
        if result is None or chosen is None:
            return
        self.skipped += dict.fromkeys((*result.skipped, *chosen.skipped))
        self._save("calibration", result.to_json(), result.rows())
        self._save("selective", chosen.to_json(), chosen.rows())
        errors = Table(
            f"Calibration error, %, {result.repeats} splits: mean ± standard deviation",
            ("method", "images to fit", "ECE", "MCE"),
            tuple(
                (
                    one.method,
                    f"{one.fit_share:.0%}",
                    f"{100 * one.ece_mean:.2f} ± {100 * one.ece_std:.2f}",
                    f"{100 * one.mce_mean:.2f} ± {100 * one.mce_std:.2f}",
                )
                for one in result.methods
            ),
        )
        risks = Table(
            "Selective prediction: error, %, where only the surest images are answered",
            ("score", "area under the curve", "80% answered", "90% answered", "all answered"),
            tuple(
                (curve.score, *(_percent(value) for value in (curve.aurc, *map(curve.risk_at, (0.8, 0.9, 1.0)))))
                for curve in chosen.curves
            ),
        )
        self._add(
            "calibration",
            "Confidence",
            "Temperature scaling with and without the early decoders (appendix C, table 6), and what the network gets "
            "wrong when it may abstain.",
            [("Reliability and calibration error", draw_calibration(result))],
            [errors],
        )
        self._add(
            "selective",
            "Selective prediction",
            "Error among the images that are answered, by how many are (risk-coverage).",
            [("Risk against coverage", draw_risk_coverage(chosen))],
            [risks],
        )

    def activations(self) -> None:
        result = self._try("activations", lambda: activations(self._subject, progress=self._progress))
        if result is None:
            return
        self._save("activations", result.to_json(), result.rows())
        self._add(
            "activations",
            "Activations",
            f"Absolute outputs of the first subNNs of block {result.block}, for images of the classes that a subNN "
            "serves and of the others (appendix F.1, figure 6).",
            [("Distributions of absolute outputs, active against inactive", draw_activations(result))],
            [],
        )

    def cost(self) -> None:
        result = self._try("cost", lambda: cost(self._subject, progress=self._progress))
        if result is None:
            return
        self.skipped += result.skipped
        self._save("cost", result.to_json(), result.rows())
        table = Table(
            f"{result.image_size} px, batch {result.batch_size}, {result.device}",
            ("", "parameters", "multiply-adds, M", "images/s", "trained images/s", "kept MB per image"),
            tuple(
                (
                    one.name,
                    f"{one.parameters:,}",
                    f"{one.macs / 1e6:,.2f}",
                    f"{one.images_per_second:,.0f}",
                    f"{one.training_images_per_second:,.0f}",
                    f"{one.kept_bytes / 1e6:.2f}",
                )
                for one in result.networks
            ),
        )
        self._add(
            "cost",
            "Cost",
            "The run's network beside its plain control and a binary classifier, timed in turn (table 5).",
            [("Cost as per cent of the run's network", draw_cost(result))],
            [table],
        )

    def _try(self, what: str, work: Callable[[], Result]) -> Result | None:
        try:
            return work()
        except NotApplicableError as error:
            self.skipped.append(f"{what}: {error}")
            return None

    def _save(self, name: str, document: Any, rows: list[dict[str, Any]]) -> None:
        save_json(self._subject.run, name, document)
        save_csv(self._subject.run, name, rows)

    def _add(
        self,
        key: str,
        title: str,
        text: str,
        figures: list[tuple[str, Figure]],
        tables: list[Table],
        *,
        name: str | None = None,
    ) -> None:
        """Save the figures (the first under the part's name) and add the part."""
        images = []
        for number, (alt, figure) in enumerate(figures):
            save_figure(self._subject.run, (name or key) + ("_scores" if number else ""), figure)
            svg = artifact_path(self._subject.run, f"{name or key}{'_scores' if number else ''}.svg").read_bytes()
            width = int(figure.get_figwidth() * _PIXELS_PER_INCH)
            images.append((alt, "data:image/svg+xml;base64," + base64.b64encode(svg).decode(), width))
        self.parts.append(Part(key, title, text, tuple(images), tuple(tables)))


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.2f}"


def _classes(subject: Subject, outputs: Outputs, classifiers: ClassifiersResult | None) -> list[dict[str, Any]]:
    """Per class: its numbers, its binary classifier's, and what it is most often taken for."""
    num_classes = len(subject.classes)
    counts_KK = torch.zeros(num_classes, num_classes, dtype=torch.int64)
    counts_KK.index_put_((outputs.targets, outputs.predictions), torch.ones(1, dtype=torch.int64), accumulate=True)
    by_source: dict[str, dict[int, Any]] = {}
    if classifiers is not None:
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
                "accuracy": _percent(float(counts_KK[k, k]) / total if total else None),
                "confusions": [
                    {"name": subject.classes[other], "share": _percent(float(others[other]) / total)}
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
                            _percent(value)
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
    """What the page draws each class's path from: codewords, and mean energies r E(tbar_n) to two digits."""
    network, num_classes = subject.network, len(subject.classes)
    blocks = []
    images_K1 = torch.bincount(outputs.targets, minlength=num_classes).clamp_min(1)[:, None]
    for name, energies_nN in zip(network.block_names, outputs.energies, strict=True):
        scheme = network.schemes[name.partition(".")[0]]
        sums_KN = torch.zeros(num_classes, scheme.length).index_add_(0, outputs.targets, energies_nN.float())
        means_KN = sums_KN / images_K1 * float(scheme.ratio)
        blocks.append(
            {
                "name": name,
                "codewords": ["".join(map(str, row)) for row in scheme.table.tolist()],
                "energies": [[round(value, 2) for value in row] for row in means_KN.tolist()],
            }
        )
    return {"blocks": blocks}
