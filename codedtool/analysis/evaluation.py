"""Accuracy, losses, early decoders and confusions of a run on validation images (table 2, figure 4)."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from codedtool.analysis.result import NONE, Result, Rows, Table, percent
from codedtool.budget import Progress, silent
from codedtool.data import Split
from codedtool.errors import InputError
from codedtool.training import evaluation
from codedtool.training.subject import Subject

# Top-5 accuracy says something only where there are more classes than these.
_TOP = 5

# The most classes that the table shows whole; of more, it shows as many as `_LOWEST`, the least accurate ones.
_MOST_CLASSES = 20
_LOWEST = 10


@dataclass(frozen=True)
class ClassAccuracy:
    """Accuracy of one class.

    Attributes:
        name: name of the class.
        num_images: number of its validation images.
        accuracy: share of its images that are classified rightly (recall), 0..1; None without images.
        taken_for: the class that its wrongly classified images are taken for most often; None if all are right.
    """

    name: str
    num_images: int
    accuracy: float | None
    taken_for: str | None


@dataclass(frozen=True)
class EvalResult(Result):
    """Table 2's numbers of one run on one data set.

    Attributes:
        run: path of the run's directory.
        data: name of the data set.
        checkpoint: name of the evaluated checkpoint.
        num_images: number of validation images.
        accuracy: top-1 accuracy, 0..1.
        loss: mean cross-entropy, without label smoothing.
        coding_loss: mean coding loss (eq. 5) of every coded block, by the block's name.
        decoder_accuracy: accuracy of the early decoder of every coded block, 0..1 (figure 4), by the block's name.
        top5_accuracy: share of images whose class is among the five of the highest logits, 0..1; None for K <= 5.
        balanced_accuracy: mean accuracy of the classes that have images, 0..1: every class counts the same.
        classes: accuracy of every class, in the order of the classes.
        confusion: (K, K) numbers of images: entry (i, j) counts the images of class i that are taken for class j.
        seconds: duration of the evaluation in seconds.
        plain: for comparison, the plain control on the same images: its run, preset, checkpoint, accuracy and loss.
    """

    run: str
    data: str
    checkpoint: str
    num_images: int
    accuracy: float
    loss: float
    coding_loss: dict[str, float]
    decoder_accuracy: dict[str, float]
    top5_accuracy: float | None
    balanced_accuracy: float
    classes: tuple[ClassAccuracy, ...]
    confusion: tuple[tuple[int, ...], ...]
    seconds: float
    plain: dict[str, Any] | None = None

    @property
    def name(self) -> str:
        return "eval"

    def lines(self) -> tuple[str, ...]:
        top5 = "" if self.top5_accuracy is None else f"top-5 accuracy {self.top5_accuracy:.2%}, "
        found = (
            f"{self.num_images} images of {self.data}: accuracy {self.accuracy:.2%}, loss {self.loss:.4f}",
            f"{top5}balanced accuracy {self.balanced_accuracy:.2%} (mean over the classes)",
        )
        if self.plain is None:
            return found
        name = f"the plain network {self.plain['preset']} of {self.plain['run']}, {self.plain['checkpoint']}"
        return (*found, f"{name}: accuracy {self.plain['accuracy']:.2%}, loss {self.plain['loss']:.4f}")

    def tables(self) -> tuple[Table, ...]:
        blocks = Table(
            "Coding loss, and accuracy of the early decoders, %",
            ("block", "coding loss", "early decoder"),
            tuple(
                (block, f"{loss:.4f}", percent(self.decoder_accuracy[block]))
                for block, loss in self.coding_loss.items()
            ),
        )
        return (*([blocks] if self.coding_loss else []), self._class_table())

    def rows(self) -> dict[str, Rows]:
        whole = {"block": "", "accuracy": self.accuracy, "loss": self.loss}
        blocks = [
            {"block": block, "accuracy": self.decoder_accuracy[block], "loss": loss}
            for block, loss in self.coding_loss.items()
        ]
        return {
            self.name: [whole, *blocks],
            f"{self.name}_classes": [_row(one) for one in self.classes],
            f"{self.name}_confusion": [
                {"class": of, "taken_for": for_, "images": count} for of, for_, count in self._confused()
            ],
        }

    def to_json(self) -> dict[str, Any]:
        """The result; of the confusion matrix, the entries that are not zero: class -> class taken for -> images."""
        confusion: dict[str, dict[str, int]] = {one.name: {} for one in self.classes}
        for of, for_, count in self._confused():
            confusion[of][for_] = count
        return {
            **vars(self),
            "classes": [_row(one) for one in self.classes],
            "confusion": confusion,
            "seconds": round(self.seconds, 3),
        }

    def _confused(self) -> list[tuple[str, str, int]]:
        """The entries of the confusion matrix that are not zero, row by row."""
        names = [one.name for one in self.classes]
        return [
            (of, for_, count)
            for of, row in zip(names, self.confusion, strict=True)
            for for_, count in zip(names, row, strict=True)
            if count
        ]

    def _class_table(self) -> Table:
        """Accuracy of the classes; of many classes, the least accurate ones."""
        shown = self.classes
        caption = "Accuracy by class, %"
        if len(shown) > _MOST_CLASSES:
            found = [one for one in shown if one.accuracy is not None]
            shown = tuple(sorted(found, key=lambda one: one.accuracy or 0.0)[:_LOWEST])
            caption += f": the {len(shown)} lowest of {len(self.classes)}, all in {self.name}_classes.csv"
        return Table(
            caption,
            ("class", "images", "accuracy", "most often taken for"),
            tuple((one.name, str(one.num_images), percent(one.accuracy), one.taken_for or NONE) for one in shown),
        )


def evaluate(subject: Subject, *, plain: Subject | None = None, progress: Progress = silent) -> EvalResult:
    """Evaluate a run on the validation images of ``subject.data`` (table 2).

    Args:
        subject: a coded or plain run.
        plain: a run of the plain control with the same classes, to be evaluated on the same images.
        progress: where to report the progress.

    Returns:
        The accuracy (top-1, top-5, balanced, and of every class), the confusion matrix, the cross-entropy, and the
        coding loss and the early decoder's accuracy of every coded block.

    Raises:
        InputError: the data set is missing, its classes are not the run's, none of its images can be read, or ``plain``
            has other classes or coded blocks.
    """
    from sklearn.metrics import confusion_matrix

    if plain is not None:
        subject.check_control(plain)
    images = subject.data.val
    num_classes = len(subject.classes)
    targets: list[torch.Tensor] = []
    ranked: list[torch.Tensor] = []

    def keep(logits_BK: torch.Tensor, targets_B: torch.Tensor) -> None:
        # The first class is the answer, as argmax gives it: topk may order equal logits differently.
        top_B5 = logits_BK.topk(min(_TOP, num_classes), dim=1).indices
        ranked.append(torch.cat([logits_BK.argmax(1, keepdim=True), top_B5], dim=1).cpu())
        targets.append(targets_B.cpu())

    start = time.monotonic()
    means = _means(subject, images, progress, keep)
    if not means["num_images"]:
        raise InputError(f"{subject.data.name} has no validation image that can be read")
    targets_n, ranked_n6 = torch.cat(targets), torch.cat(ranked)
    in_top5_n = (ranked_n6[:, 1:] == targets_n[:, None]).any(1)
    confusion_KK = confusion_matrix(targets_n.numpy(), ranked_n6[:, 0].numpy(), labels=range(num_classes)).tolist()
    classes = _by_class(subject.classes, confusion_KK)
    found = [one.accuracy for one in classes if one.accuracy is not None]
    return EvalResult(
        run=str(subject.run.path),
        data=subject.recipe.data,
        checkpoint=subject.checkpoint,
        top5_accuracy=int(in_top5_n.sum()) / len(in_top5_n) if num_classes > _TOP else None,
        balanced_accuracy=sum(found) / len(found),
        classes=classes,
        confusion=tuple(tuple(row) for row in confusion_KK),
        seconds=time.monotonic() - start,
        plain=None if plain is None else _plain(plain, images, progress),
        **means,
    )


def _means(
    subject: Subject,
    images: Split,
    progress: Progress,
    see: Callable[[torch.Tensor, torch.Tensor], None] | None = None,
) -> dict[str, Any]:
    """Evaluate a run's network on ``images``; ``see`` and the result are those of `codedtool.training.evaluation`."""
    return evaluation.evaluate(
        subject.network,
        images,
        subject.run.normalization,
        subject.recipe,
        subject.runtime,
        crop_part=subject.run.crop_part,
        progress=progress,
        see=see,
    )


def _plain(plain: Subject, images: Split, progress: Progress) -> dict[str, Any]:
    """Evaluate the plain control; returns `EvalResult.plain`."""
    means = _means(plain, images, progress)
    return {
        "run": str(plain.run.path),
        "preset": plain.recipe.preset,
        "checkpoint": plain.checkpoint,
        "accuracy": means["accuracy"],
        "loss": means["loss"],
    }


def _by_class(names: tuple[str, ...], confusion_KK: list[list[int]]) -> tuple[ClassAccuracy, ...]:
    """Accuracy and most frequent confusion of every class; of equally frequent ones, the first."""
    found = []
    for number, (name, row) in enumerate(zip(names, confusion_KK, strict=True)):
        total = sum(row)
        wrong = [0 if other == number else count for other, count in enumerate(row)]
        found.append(
            ClassAccuracy(
                name,
                total,
                row[number] / total if total else None,
                names[wrong.index(max(wrong))] if any(wrong) else None,
            )
        )
    return tuple(found)


def _row(one: ClassAccuracy) -> dict[str, Any]:
    return {"class": one.name, "images": one.num_images, "accuracy": one.accuracy, "taken_for": one.taken_for}
