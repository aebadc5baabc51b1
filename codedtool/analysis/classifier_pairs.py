"""Scores of chosen pairs of an image and a class (section 4.3).

Shape suffixes: n images of a split, B of a batch, G of a group, p pairs of an image and a class, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from codedtool.analysis.classifiers import BinaryClassifiers, Shared
from codedtool.budget import Progress, silent
from codedtool.data import Split
from codedtool.errors import InputError
from codedtool.training.subject import Outputs, Subject

# Limit of the memory for the activations of a group of images. While they are joined, they take it twice.
_GROUP_BYTES = 1 << 29

# On a CPU, no more images pass at once than have this much of shared activations: larger passes leave its cache. But on
# one thread, PyTorch 2.9 computes 1x1 convolutions of fewer than 16 images by a kernel of about half the speed. So up
# to `_CPU_IMAGES` always pass together; more are split into equal parts of at least 16.
_CPU_BYTES = 20 << 20
_CPU_IMAGES = 32


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of an image and a class, class by class.

    Attributes:
        numbers_p: (p,) int64 numbers of the images in their split.
        classes_p: (p,) int64 classes, ascending.
    """

    numbers_p: NDArray[np.int64]
    classes_p: NDArray[np.int64]

    @classmethod
    def of(cls, wanted: Mapping[int, NDArray[np.int64]]) -> Pairs:
        """The pairs of every class with its images; a class's images keep their order."""
        classes = sorted(wanted)
        numbers = [wanted[class_index] for class_index in classes]
        return cls(np.concatenate(numbers), np.repeat(np.array(classes), [len(images) for images in numbers]))


@dataclass(frozen=True, eq=False)
class PairScores:
    """Scores of pairs.

    Attributes:
        pairs: the pairs.
        scores_2p: (2, p) float32 scores: those of the binary classifiers, and the logits of the whole network.
    """

    pairs: Pairs
    scores_2p: NDArray[np.float32]

    def of(self, class_index: int, row: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The numbers of a class's images, and their scores in a row of `scores_2p`."""
        place = slice(*np.searchsorted(self.pairs.classes_p, [class_index, class_index + 1]).tolist())
        return self.pairs.numbers_p[place], self.scores_2p[row, place]


def score_pairs(
    subject: Subject,
    together: BinaryClassifiers,
    split: Split,
    pairs: Pairs,
    *,
    known: Outputs | None = None,
    progress: Progress = silent,
    phase: str = "scoring",
) -> PairScores:
    """Score pairs of an image and a class with the class's binary classifier, and with the whole network's logit.

    An image passes the part of the network that all classes share once, and then the rest of the network once, and the
    rest of each wanted class's binary classifier. These rests run for groups of images, so that a class has many
    images to run on, and is cut out of the network once for each group. Images without a pair are not read.

    Args:
        subject: the run.
        together: the binary classifiers of its network.
        split: the images.
        pairs: the wanted pairs.
        known: the network's outputs for the split, if they are known; the whole network is then not run again.
        progress, phase: where to report the number of images, and the name of the work.

    Returns:
        The scores of the pairs whose images can be read.

    Raises:
        InputError: no image can be read.
    """
    # Of the images that have a pair, image i is number needed[i] of the split.
    needed, images_p = np.unique(pairs.numbers_p, return_inverse=True)
    order_p = np.argsort(images_p, kind="stable")
    sorted_p = images_p[order_p]
    scores_2p = np.zeros((2, len(order_p)), dtype=np.float32)
    is_read_p = np.zeros(len(order_p), dtype=bool)
    part = split if len(needed) == len(split) else split.taking(needed)
    for group in _groups(subject, together, part, with_logits=known is None):
        first, last = int(group.images_G[0]), int(group.images_G[-1])
        start, stop = np.searchsorted(sorted_p, [first, last + 1])
        is_there = np.isin(sorted_p[start:stop], group.images_G)
        chosen = order_p[start:stop][is_there]
        rows = np.searchsorted(group.images_G, images_p[chosen])
        is_read_p[chosen] = True
        if group.logits_GK is not None:
            scores_2p[1, chosen] = group.logits_GK[rows, pairs.classes_p[chosen]]
        tell = partial(_tell, progress, phase, (first, last + 1, len(part)))
        scores_2p[0, chosen] = _tails(subject, together, group, rows, pairs.classes_p[chosen], tell)
        # Before the next group's activations come.
        del group
    if len(needed) and not is_read_p.any():
        raise InputError(f"{subject.data.name}: no image of a split can be read")
    if known is not None:
        assert known.numbers is not None
        rows_n = np.zeros(len(split), dtype=np.int64)
        rows_n[known.numbers.numpy()] = np.arange(len(known.numbers))
        scores_2p[1] = known.logits.numpy()[rows_n[pairs.numbers_p], pairs.classes_p]
    return PairScores(Pairs(pairs.numbers_p[is_read_p], pairs.classes_p[is_read_p]), scores_2p[:, is_read_p])


class _Group(NamedTuple):
    """Images that go through the classes' own parts together.

    Attributes:
        images_G: ascending numbers of the images.
        shared: their activations on the device.
        logits_GK: the whole network's logits; None if they are not wanted.
        at_once: number of images that pass a part of the network at once.
    """

    images_G: NDArray[np.int64]
    shared: Shared
    logits_GK: NDArray[np.float32] | None
    at_once: int


@torch.no_grad()
def _groups(subject: Subject, together: BinaryClassifiers, split: Split, *, with_logits: bool) -> Iterator[_Group]:
    """The images of a split, in groups as large as the memory's limit allows."""
    parts: list[_Group] = []
    size = 0
    at_once = 0
    for images, _, numbers in subject.numbered_batches(split, silent, ""):
        at_once = at_once or _images_at_once(subject, together, images[:1])
        for images_B, numbers_B in zip(_split(images, at_once), _split(numbers, at_once), strict=True):
            with subject.runtime.autocast():
                shared = together.shared(images_B)
                logits = together.whole_logits(shared).cpu().numpy() if with_logits else None
            parts.append(_Group(numbers_B.numpy(), shared, logits, at_once))
            size += _num_bytes(shared)
            if size >= _GROUP_BYTES:
                yield _joined(parts)
                size = 0
    if parts:
        yield _joined(parts)


def _joined(parts: list[_Group]) -> _Group:
    """Join the parts to one group, and empty the list, so that only the group holds memory."""
    images, shared, logits, at_once = zip(*parts, strict=True)
    parts.clear()
    h, shortcuts = zip(*shared, strict=True)
    return _Group(
        np.concatenate(images),
        Shared(torch.cat(h), None if shortcuts[0] is None else torch.cat(shortcuts)),
        None if logits[0] is None else np.concatenate(logits),
        at_once[0],
    )


def _images_at_once(subject: Subject, together: BinaryClassifiers, image_1CHW: torch.Tensor) -> int:
    """The number of images that pass a part of the network at once; on other devices than a CPU, as in training."""
    if subject.runtime.device.type != "cpu":
        return subject.pass_size
    with subject.runtime.autocast():
        size = _num_bytes(together.shared(image_1CHW))
    return min(subject.pass_size, max(_CPU_IMAGES, _CPU_BYTES // size))


def _split(rows: torch.Tensor, at_once: int) -> tuple[torch.Tensor, ...]:
    """Equal parts of at most ``at_once`` rows."""
    return rows.tensor_split(-(-len(rows) // at_once))


def _num_bytes(shared: Shared) -> int:
    return sum(part.numel() * part.element_size() for part in shared if part is not None)


@torch.no_grad()
def _tails(
    subject: Subject,
    together: BinaryClassifiers,
    group: _Group,
    rows_p: NDArray[np.int64],
    classes_p: NDArray[np.int64],
    tell: Callable[[float], None],
) -> NDArray[np.float32]:
    """Run the wanted binary classifiers on a group, class by class.

    Args:
        subject, together: as for `score_pairs`.
        group: the images.
        rows_p, classes_p: the pairs, by the image's row in the group.
        tell: called with the finished part of the pairs, 0..1.

    Returns:
        The scores of the pairs.
    """
    by_class_p = np.argsort(classes_p, kind="stable")
    classes, starts = np.unique(classes_p[by_class_p], return_index=True)
    h, shortcut = group.shared
    scores: list[torch.Tensor] = []
    for class_index, start, places in zip(classes.tolist(), starts, np.split(by_class_p, starts[1:]), strict=True):
        for rows in _split(torch.from_numpy(rows_p[places]), group.at_once):
            rows_B = subject.runtime.put(rows)
            chosen = Shared(h.index_select(0, rows_B), None if shortcut is None else shortcut.index_select(0, rows_B))
            with subject.runtime.autocast():
                scores.append(together.scores_of(class_index, chosen))
            subject.runtime.mark()
        tell((start + len(places)) / len(rows_p))
    found_p = np.empty(len(rows_p), dtype=np.float32)
    found_p[by_class_p] = torch.cat(scores).cpu().numpy()
    return found_p


def _tell(progress: Progress, phase: str, images: tuple[int, int, int], done: float) -> None:
    """Report the part ``done`` (0..1) of the images from the first number to the second, of as many as the third."""
    first, end, total = images
    progress(phase, first + (end - first) * done, total)
