"""Command ``bc``: the binary classifiers of all classes, or of one class as a model file (section 4.3)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codedtool.analysis.classifier_metrics import ClassifierMetrics, ClassifiersResult, evaluate_classifiers
from codedtool.analysis.cost import NOISY, CostResult, cost, marked
from codedtool.analysis.result import Result, Rows, Table
from codedtool.budget import Progress, silent
from codedtool.data import ImageData
from codedtool.deploy.classifier_file import check_output, save_binary_classifier
from codedtool.errors import InputError
from codedtool.training.subject import Subject, class_index


@dataclass(frozen=True)
class BcResult(Result):
    """The result of `bc`.

    Attributes:
        classifiers: metrics of the binary classifiers and their baselines.
        cost: cost of one binary classifier (class 0, or the requested class) and of the whole networks.
        class_name: name of the requested class; None: all classes.
        stem: the beginning of the names of the result's files.
        file: the written file of the requested class's classifier (.safetensors); None for all classes.
    """

    classifiers: ClassifiersResult
    cost: CostResult
    class_name: str | None = None
    stem: str = "bc"
    file: Path | None = None

    @property
    def name(self) -> str:
        return self.stem

    def left_out(self) -> tuple[str, ...]:
        return self.classifiers.skipped

    def lines(self) -> tuple[str, ...]:
        whole, light = self.cost.networks[0], self.cost.networks[-1]
        is_noisy = whole.is_noisy or light.is_noisy
        cut = (
            f"{light.name}: {light.parameters:,} parameters, {light.parameters / whole.parameters:.1%} of the network "
            f"({light.parameters_without_projections / whole.parameters_without_projections:.1%} without projection "
            f"shortcuts), {light.macs / whole.macs:.1%} of its multiply-adds, "
            f"{marked(f'{light.images_per_second / whole.images_per_second:.2f}', is_noisy)} times its images/s"
        )
        written = () if self.file is None else (f"wrote {self.file} and {self.file.with_suffix('.json').name}",)
        return (*self.classifiers.drawn_line(), cut, *((NOISY,) if is_noisy else ()), *written)

    def tables(self) -> tuple[Table, ...]:
        return (self.classifiers.table(),)

    def rows(self) -> dict[str, Rows]:
        return {self.name: self.classifiers.rows(), f"{self.name}_scores": self.classifiers.score_rows()}

    def to_json(self) -> dict[str, Any]:
        return self.documents()[self.name] | ({} if self.file is None else {"file": str(self.file)})

    def documents(self) -> dict[str, Any]:
        return {self.name: self.classifiers.to_json() | {"cost": self.cost.to_json()}}


def bc(
    subject: Subject,
    *,
    class_name: str = "all",
    out: Path | None = None,
    force: bool = False,
    plain: Subject | None = None,
    ood: ImageData | None = None,
    seed: int = 0,
    all_negatives: bool = False,
    progress: Progress = silent,
) -> BcResult:
    """Measure the binary classifiers of all classes, or measure and write that of one class (section 4.3).

    Args:
        subject: a coded run.
        class_name: name or number of a class. "all" means every class, unless a class has this name.
        out: file for one class's classifier (.safetensors); None: RUN/bc/CLASS.safetensors. A .json is written beside
            it.
        force: whether an existing file may be overwritten, and a classifier written that recognises nothing.
        plain: a plain run with the same classes, as a baseline.
        ood: a data set of other classes. Its validation images are the out-of-distribution negatives.
        seed: seed of the negatives that are drawn if there are 100 or more classes.
        all_negatives: whether the thresholds of 100 or more classes come from all training images.
        progress: where to report the progress.

    Returns:
        The metrics and the cost of the classifiers, and the written file.

    Raises:
        NotApplicableError: the run has no coded block.
        InputError: there is no such class, ``out`` was given for all classes or exists, the classifier recognises
            nothing and ``force`` is off, or `evaluate_classifiers` refuses an input.
    """
    subject.require_coded("a binary classifier")
    if class_name == "all" and "all" not in subject.classes:
        if out is not None:
            raise InputError("`out` is the file of one class's classifier: name its `class_name`")
        every = evaluate_classifiers(
            subject,
            range(len(subject.classes)),
            plain=plain,
            ood=ood,
            seed=seed,
            all_negatives=all_negatives,
            progress=progress,
        )
        return BcResult(every, cost(subject, progress=progress))
    index = class_index(subject.classes, class_name)
    name = subject.classes[index]
    stem = file_names(subject.classes)[index]
    target = out or subject.run.path / "bc" / f"{stem}.safetensors"
    # Refuse an existing file before the long work.
    check_output(target, force=force)
    one = evaluate_classifiers(
        subject, [index], plain=plain, ood=ood, seed=seed, all_negatives=all_negatives, progress=progress
    )
    mine = one.classifiers[0]
    if mine.val.precision == mine.val.recall == 0:
        _refuse_useless(name, mine, force=force)
    save_binary_classifier(subject, index, target, threshold=mine.threshold, metrics=mine.row(), force=force)
    return BcResult(one, cost(subject, class_name=name, progress=progress), name, f"bc_{stem}", target)


def _refuse_useless(name: str, metrics: ClassifierMetrics, *, force: bool) -> None:
    """Warn of a classifier that accepts no validation image of its class; raise InputError unless ``force`` is on."""
    found = (
        f"the binary classifier of {name!r} recognises nothing: it accepts none of the {metrics.val.num_positives} "
        "validation images of its class (precision 0, recall 0)"
    )
    if not force:
        raise InputError(
            f"{found}; it was not written. Train longer or on more images (codedtool eval shows the accuracy on every "
            "class), or set `force` to write it"
        )
    warnings.warn(found, stacklevel=3)


def file_names(classes: Sequence[str]) -> list[str]:
    """File names of the classes, without ending.

    All characters but letters, digits, dashes and dots become underscores. Of classes whose names would then be the
    same (also where capitals do not count, as on Windows and macOS), the first one keeps the name, and each other one
    has its number behind it. So has a class whose name is that of another file: the scores of a class, or of all.

    Example:
        >>> file_names(["a b", "cat", "a_b", "Cat", "cat_scores", "scores"])
        ['a_b', 'cat', 'a_b-2', 'Cat-3', 'cat_scores-4', 'scores-5']
    """
    names: list[str] = []
    taken = {"scores"}
    for index, class_name in enumerate(classes):
        plain = "".join(letter if letter.isalnum() or letter in "-." else "_" for letter in class_name).strip(".")
        name = plain or "_"
        while {name.casefold(), f"{name}_scores".casefold()} & taken:
            name += f"-{index}"
        taken |= {name.casefold(), f"{name}_scores".casefold()}
        names.append(name)
    return names
