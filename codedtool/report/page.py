"""``codedtool report``: all tables and figures of a run on one HTML page, which loads no other file."""

from __future__ import annotations

import base64
import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import torch
from jinja2 import Environment, PackageLoader, StrictUndefined

from codedtool import __version__
from codedtool.analysis.artifacts import artifact_path, write_figure
from codedtool.analysis.bc import BcResult
from codedtool.analysis.catalogue import CATALOGUE, SEED, analysis
from codedtool.analysis.classifier_metrics import CODED, FULL
from codedtool.analysis.evaluation import EvalResult
from codedtool.analysis.result import Drawing, Result, percent, save_result
from codedtool.budget import Progress, silent
from codedtool.data import ImageData
from codedtool.errors import Failure, InputError
from codedtool.files import FileError, refuse_existing, write_atomically
from codedtool.report.figures_training import draw_training
from codedtool.report.parts import Part, ingredients, part_of, store_part, stored_part
from codedtool.text import for_script, readable
from codedtool.training.memory import memory_told
from codedtool.training.run import Run
from codedtool.training.subject import NotApplicableError, Outputs, Subject

# For each class, the page names this many classes that it is most often taken for.
_CONFUSIONS = 3

TRAINING, CLASSES = "training", "classes"

# The parts in the page's order.
PARTS = (TRAINING, *(row.name for row in CATALOGUE), CLASSES)

_TITLES = {TRAINING: "Training", **{row.name: row.title for row in CATALOGUE}, CLASSES: "Class by class"}
_TEXTS = {
    TRAINING: "Accuracy, losses and accuracy of the early decoders after every epoch (metrics.csv).",
    **{row.name: row.text for row in CATALOGUE},
}


@dataclass(frozen=True)
class Report:
    """The page that `write_report` wrote.

    Attributes:
        path: file of the page.
        parts: names of the analyses on the page, and "training".
        skipped: the parts that were left out, each with the reason.
        reused: names of the parts that were finished before and not computed again.
        failed: the parts without which the page is not what was asked for: those that ``only`` names, and those that
            ended in a bug or for lack of memory.
    """

    path: Path
    parts: tuple[str, ...]
    skipped: tuple[str, ...]
    reused: tuple[str, ...]
    failed: tuple[Failure, ...]

    def to_json(self) -> dict[str, Any]:
        """The result in JSON's types."""
        return {
            "path": str(self.path),
            "parts": list(self.parts),
            "skipped": list(self.skipped),
            "reused": list(self.reused),
            "failed": [failure.to_json() for failure in self.failed],
        }


def chosen_parts(only: Sequence[str] = (), skip: Sequence[str] = ()) -> tuple[str, ...]:
    """The names of the wanted parts, in the page's order.

    Args:
        only: names of `PARTS`; empty: all.
        skip: names of `PARTS` to leave out.

    Raises:
        InputError: there is no such part (the message names the nearest), or none is left.

    Example:
        >>> chosen_parts(only=("bc", "eval"), skip=("bc",))
        ('eval',)
    """
    for argument, names in (("only", only), ("skip", skip)):
        for name in names:
            if name not in PARTS:
                near = difflib.get_close_matches(name, PARTS, n=1, cutoff=0.4)
                hint = f"did you mean {near[0]}? " if near else ""
                raise InputError(f"`{argument}` {name!r}: there is no such part; {hint}The parts: {', '.join(PARTS)}")
    chosen = tuple(name for name in PARTS if (not only or name in only) and name not in skip)
    if not chosen:
        raise InputError("`only` and `skip` leave no part of the page")
    return chosen


def write_report(
    subject: Subject,
    path: Path,
    *,
    plain: Subject | None = None,
    ood: ImageData | None = None,
    seed: int = 0,
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
    force: bool = False,
    progress: Progress = silent,
) -> Report:
    """Run all analyses that apply to a run, save their files in RUN/analysis/, and write one page with all results.

    An analysis that fails is left out of the page with its reason. A part that was finished by an earlier report with
    the same weights, images and options is used again, so that a report that was stopped goes on.
    Analyses that need only the network's outputs for the validation images share one pass over the images.

    Args:
        subject: a coded or plain run. Analyses that need coded blocks are left out for a plain run.
        path: file of the page (.html).
        plain: an opened run of the plain control, as a baseline.
        ood: a data set of other classes. Its validation images are out-of-distribution negatives.
        seed: seed of all random draws.
        only: names of the wanted parts, of `PARTS`; empty: all.
        skip: names of parts to leave out.
        force: whether an existing page may be overwritten.
        progress: where to report the progress.

    Returns:
        The file, the parts of the page, and the parts that were left out.

    Raises:
        InputError: the page exists already or cannot be written, or there is no part of a given name.
    """
    refuse_existing(path, force=force)
    chosen = chosen_parts(only, skip)
    data, missing = None, ""
    try:
        data = subject.data
    except InputError as error:
        missing = str(error)
        # Not to look for it, or fetch it, once for every part.
        subject = replace(subject, find_data=partial(_fail, missing))
    parts: dict[str, Part] = {}
    reused: list[str] = []
    reasons = {key: "not asked for" for key in PARTS if key not in chosen}
    failed = []
    for key in chosen:
        try:
            if key == TRAINING:
                parts[key] = _training(subject.run)
                continue
            options = {"seed": seed} if key != CLASSES and SEED in analysis(key).options else {}
            made_of = ingredients(subject, data, plain=plain, ood=ood, options=options)
            found = stored_part(subject.run, key, made_of)
            if found is not None:
                reused.append(key)
            else:
                with memory_told():
                    found = _made(key, subject, plain, ood, options, progress)
                store_part(subject.run, found, made_of)
            parts[key] = found
        except Exception as error:
            failure = Failure.of(_TITLES[key], error)
            reasons[key] = failure.reason
            if key in only or not isinstance(error, InputError):
                failed.append(failure)
    unsure = (
        [f"the images of the parts that are used again were not looked at: {missing}"] if missing and reused else []
    )
    skipped = [*_grouped(reasons), *unsure, *(reason for part in parts.values() for reason in part.left_out)]
    write_atomically(path, _rendered(subject, parts, skipped).encode())
    shown = tuple(key for key in parts if key != CLASSES)
    return Report(path, shown, tuple(dict.fromkeys(skipped)), tuple(reused), tuple(failed))


def _fail(message: str) -> NoReturn:
    raise InputError(message)


def _made(
    key: str,
    subject: Subject,
    plain: Subject | None,
    ood: ImageData | None,
    options: dict[str, Any],
    progress: Progress,
) -> Part:
    """Compute a part, and write its figures and data to RUN/analysis/, if that can be written to."""
    if key == CLASSES:
        return Part(key, details=_class_details(subject, subject.outputs(progress)))
    row = analysis(key)
    result = row.run(subject, plain=plain, ood=ood, options=options, progress=progress)
    drawings = row.draw(result)
    return part_of(key, drawings, save_result(subject.run, result, drawings), result, _details(result))


def _training(run: Run) -> Part:
    """The part with the training curves, which are drawn from the run's metrics."""
    if not run.metrics():
        raise NotApplicableError("the run has no finished epoch in metrics.jsonl")
    drawing = Drawing("training", "Accuracy and losses by epoch", draw_training(run.metrics()))
    path = artifact_path(run, "training.png")
    try:
        write_figure(path, drawing.figure)
    except FileError:  # a run that cannot be written to; the analyses' results warn of it
        return part_of(TRAINING, [drawing], ())
    return part_of(TRAINING, [drawing], [path])


def _grouped(reasons: dict[str, str]) -> list[str]:
    """One text for each reason, with the titles of the parts that it left out."""
    titles: dict[str, list[str]] = {}
    for key in PARTS:
        if key in reasons:
            titles.setdefault(reasons[key], []).append(_TITLES[key])
    return [f"{', '.join(names)}: {reason}" for reason, names in titles.items()]


def _rendered(subject: Subject, parts: dict[str, Part], skipped: Sequence[str]) -> str:
    """The text of the page."""
    environment = Environment(
        loader=PackageLoader("codedtool.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        finalize=lambda value: readable(value) if type(value) is str else value,
    )
    by_class = parts[CLASSES].details if CLASSES in parts else {}
    evaluated = parts["eval"].details if "eval" in parts else {}
    whole = by_class or evaluated
    return environment.get_template("report.html.j2").render(
        run=subject.run,
        recipe=subject.recipe,
        checkpoint=subject.checkpoint,
        accuracy=whole.get("accuracy"),
        num_images=whole.get("num_images"),
        plain_accuracy=evaluated.get("plain_accuracy"),
        schemes=[(stage, scheme) for stage, scheme in subject.run.schemes.items()],
        parts=[
            {
                "key": key,
                "title": _TITLES[key],
                "text": _TEXTS[key],
                "figures": [(one.alt, _data_uri(one.svg), one.width) for one in part.figures],
                "tables": part.tables,
                "lines": part.lines,
            }
            for key, part in parts.items()
            if key != CLASSES
        ],
        skipped=skipped,
        version=__version__,
        classes=by_class.get("classes"),
        classifiers=parts["bc"].details.get("classifiers", {}) if "bc" in parts else {},
        paths=for_script(by_class.get("paths", {"blocks": []})),
    )


def _data_uri(svg: str) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"


def _details(result: Result) -> dict[str, Any]:
    """The numbers of a result that the page shows elsewhere: in its head, and class by class."""
    if isinstance(result, EvalResult):
        plain = None if result.plain is None else result.plain["accuracy"]
        return {"accuracy": result.accuracy, "num_images": result.num_images, "plain_accuracy": plain}
    if isinstance(result, BcResult):
        found: dict[str, list[dict[str, Any]]] = {}
        for source in (CODED, FULL):
            for one in result.classifiers.of(source):
                values = map(percent, (one.val.precision, one.val.recall, one.val.f1, one.val.average_precision))
                row = {"source": source, "threshold": f"{one.threshold:.3f}", "values": list(values)}
                found.setdefault(str(one.class_index), []).append(row)
        return {"classifiers": found}
    return {}


def _class_details(subject: Subject, outputs: Outputs) -> dict[str, Any]:
    """The part "classes": accuracy of the network, the rows of the classes, and the paths that the page draws."""
    return {
        "accuracy": float((outputs.predictions == outputs.targets).double().mean()),
        "num_images": len(outputs.targets),
        "classes": _classes(subject, outputs),
        "paths": _paths(subject, outputs),
    }


def _classes(subject: Subject, outputs: Outputs) -> list[dict[str, Any]]:
    """For each class: its accuracy, its codewords, and the classes it is most often taken for."""
    num_classes = len(subject.classes)
    counts_KK = torch.zeros(num_classes, num_classes, dtype=torch.int64)
    counts_KK.index_put_((outputs.targets, outputs.predictions), torch.ones(1, dtype=torch.int64), accumulate=True)
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
