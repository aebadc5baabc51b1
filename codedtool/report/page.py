"""``codedtool report``: all tables and figures of a run on one HTML page, which loads no other file."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from codedtool.analysis.artifacts import artifact_path, write_figure
from codedtool.analysis.bc import BcResult
from codedtool.analysis.catalogue import ALL_NEGATIVES, CATALOGUE, IMAGES, SEED, analysis
from codedtool.analysis.classifier_metrics import CODED, FULL, MANY_CLASSES
from codedtool.analysis.evaluation import EvalResult
from codedtool.analysis.result import Drawing, Result, percent, save_result
from codedtool.budget import Progress, silent
from codedtool.data import ImageData
from codedtool.errors import Failure, InputError
from codedtool.files import FileError, check_target, write_atomically
from codedtool.interrupts import was_interrupted
from codedtool.report.classes import class_details
from codedtool.report.figures_training import draw_training
from codedtool.report.parts import Part, ingredients, part_of, store_part, stored_part
from codedtool.report.paths import confused_pairs, path_details, sparse_rows
from codedtool.report.rendering import CLASSES, PATHS, SAMPLES, TITLES, TRAINING, render_page
from codedtool.report.samples import sample_details
from codedtool.training.memory import memory_told
from codedtool.training.run import Run
from codedtool.training.subject import NotApplicableError, Subject

# The parts in the page's order.
PARTS = (TRAINING, PATHS, SAMPLES, *(row.name for row in CATALOGUE), CLASSES)

# From `MANY_CLASSES` on, an analysis with the option `IMAGES` measures at most so many validation images: there are
# many of them, and a share of 1,000 images is known to 1.6 per cent (its standard deviation) or better.
_MANY_IMAGES = 1000


@dataclass(frozen=True)
class Report:
    """The page that `write_report` wrote.

    Attributes:
        path: file of the page.
        parts: names of the page's parts, of `PARTS`.
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
    all_negatives: bool = False,
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
    force: bool = False,
    progress: Progress = silent,
) -> Report:
    """Run all analyses that apply to a run, save their files in RUN/analysis/, and write one page with all results.

    An analysis that fails is left out of the page with its reason. A part that was finished by an earlier report with
    the same weights, images and options is used again, so that a report that was stopped goes on. Files of images
    that were changed in place, with their names and sizes kept, count as the same.
    Analyses that need only the network's outputs for the validation images share one pass over the images. With 100
    classes or more, `specialize` measures 1,000 validation images at most.

    Args:
        subject: a coded or plain run. Analyses that need coded blocks are left out for a plain run.
        path: file of the page (.html).
        plain: an opened run of the plain control, as a baseline.
        ood: a data set of other classes. Its validation images are out-of-distribution negatives.
        seed: seed of all random draws.
        all_negatives: as for `codedtool.analysis.bc.bc`.
        only: names of the wanted parts, of `PARTS`; empty: all.
        skip: names of parts to leave out.
        force: whether an existing page may be overwritten.
        progress: where to report the progress.

    Returns:
        The file, the parts of the page, and the parts that were left out.

    Raises:
        InputError: the page exists already or cannot be written, there is no part of a given name, or ``plain`` has
            coded blocks or other classes.
    """
    check_target(path, force=force)
    if plain is not None:
        subject.check_control(plain)
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
            options = _options(key, len(subject.classes), seed=seed, all_negatives=all_negatives)
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
            if was_interrupted():
                raise KeyboardInterrupt from error
            failure = Failure.of(TITLES[key], error)
            reasons[key] = failure.reason
            if key in only or not isinstance(error, InputError):
                failed.append(failure)
    unsure = (
        [f"the images of the parts that are used again were not looked at: {missing}"] if missing and reused else []
    )
    skipped = [*_grouped(reasons), *unsure, *(reason for part in parts.values() for reason in part.left_out)]
    write_atomically(path, render_page(subject, parts, skipped).encode())
    return Report(path, tuple(parts), tuple(dict.fromkeys(skipped)), tuple(reused), tuple(failed))


def _options(key: str, num_classes: int, *, seed: int, all_negatives: bool) -> dict[str, Any]:
    """The options of a part for which the analysis's defaults do not hold."""
    known = analysis(key).options if key in {row.name for row in CATALOGUE} else ()
    options: dict[str, Any] = {}
    if key == SAMPLES or SEED in known:
        options[SEED.name] = seed
    if ALL_NEGATIVES in known:
        options[ALL_NEGATIVES.name] = all_negatives
    if IMAGES in known and num_classes >= MANY_CLASSES:
        options[IMAGES.name] = _MANY_IMAGES
    return options


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
    if key == PATHS:
        subject.require_coded("the drawing of the paths")
        return Part(key, details=path_details(subject, subject.outputs(progress)))
    if key == SAMPLES:
        return Part(key, details=sample_details(subject, subject.outputs(progress), progress=progress, **options))
    if key == CLASSES:
        return Part(key, details=class_details(subject, subject.outputs(progress)))
    row = analysis(key)
    result = row.run(subject, plain=plain, ood=ood, options=options, progress=progress)
    drawings = row.draw(result)
    part = part_of(key, drawings, save_result(subject.run, result, drawings), result, _details(result))
    if isinstance(result, EvalResult):
        pairs = confused_pairs(subject.classes, result.confusion, subject.run.schemes)
        part = replace(part, tables=(*part.tables, *pairs))
    return part


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
            titles.setdefault(reasons[key], []).append(TITLES[key])
    return [f"{', '.join(names)}: {reason}" for reason, names in titles.items()]


def _details(result: Result) -> dict[str, Any]:
    """The numbers of a result that the page shows elsewhere: in its head, and class by class."""
    if isinstance(result, EvalResult):
        plain = None if result.plain is None else result.plain["accuracy"]
        return {
            "accuracy": result.accuracy,
            "num_images": result.num_images,
            "plain_accuracy": plain,
            "confusion": sparse_rows(result.confusion),
        }
    if isinstance(result, BcResult):
        found: dict[str, list[dict[str, Any]]] = {}
        for source in (CODED, FULL):
            for one in result.classifiers.of(source):
                values = map(percent, (one.val.precision, one.val.recall, one.val.f1, one.val.average_precision))
                row = {"source": source, "threshold": f"{one.threshold:.3f}", "values": list(values)}
                found.setdefault(str(one.class_index), []).append(row)
        return {"classifiers": found}
    return {}
