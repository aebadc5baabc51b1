"""Batches of images; their order, ranks' shares and pixels do not depend on the number of worker processes.

A worker gets everything that determines one whole batch (pixels or file names, and the random words of each sample) and
keeps no state. So workers need no seeds, and the data set is not copied to them.
Shape suffixes: B images of a batch (on this rank), H, W, C height, width, channels.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import Dataset, get_worker_info

from codedtool.data.augmentation import EVAL_CROP_PART, Augmentation, augment, centre_crop, resized_crop, sample_words
from codedtool.data.folder import read_image
from codedtool.data.split import Split
from codedtool.data.workers import MORE_SHARED_MEMORY, in_workers
from codedtool.errors import InputError

# Number of files whose size `choose_crop_part` looks at.
_NUM_PROBES = 32


class Batch(NamedTuple):
    """One rank's part of one batch.

    Attributes:
        images: (B, 3, H, W) uint8, channels last in memory. `normalize` turns them into the network's input on the
            device, because float32 would be four times as many bytes to copy.
        targets: (B,) int64 classes.
        indices: (B,) int64 numbers of the images in their split. In balanced training, an image that was drawn before
            in this epoch has its number plus the number of images for every such time.
    """

    images: torch.Tensor
    targets: torch.Tensor
    indices: torch.Tensor


def num_train_batches(split: Split, batch_size: int) -> int:
    """Count the whole batches of an epoch; remaining images at the end of its order are not used in it.

    Raises:
        InputError: there is no whole batch.
    """
    if batch_size < 1:
        raise InputError(f"`batch_size` must be at least 1, got {batch_size}")
    if batch_size > len(split):
        raise InputError(
            f"`batch_size` {batch_size} is more than the {len(split)} training images, so there is no whole batch; "
            f"lower it to {len(split)} or less"
        )
    return len(split) // batch_size


def train_batches(
    split: Split,
    augmentation: Augmentation,
    *,
    size: int,
    batch_size: int,
    seed: int,
    epoch: int,
    start_batch: int = 0,
    balanced: bool = False,
    rank: int = 0,
    world_size: int = 1,
    num_workers: int = 0,
    pin_memory: bool = False,
) -> Iterator[Batch]:
    """Make the batches of one epoch of training.

    The order of the images depends on (seed, epoch), and an image's augmentation on (seed, epoch, index), alone.

    Args:
        split: the images.
        augmentation: how they are varied.
        size: side of the resulting images, in pixels.
        batch_size: images per batch, all ranks together; only whole batches are made (`num_train_batches`).
        seed, epoch: numbers that determine everything random; at least 0.
        start_batch: skip this many batches at the start of the epoch; none of their images are read.
        balanced: draw every class equally often; an epoch has as many images as otherwise. An image that is drawn
            several times is varied anew each time.
        rank, world_size: this rank gets rows rank, rank + world_size, ... of every batch.
        num_workers: processes that prepare batches; unused when whole batches are quick to make in this process.
        pin_memory: put batches in page-locked memory, for CUDA; only with workers.

    Raises:
        InputError: no whole batch, fewer images in a batch than ranks, an unreadable image, or an unknown
            RandAugment policy.
    """
    num_batches = num_train_batches(split, batch_size)
    if batch_size < world_size:
        raise InputError(f"`batch_size` {batch_size} leaves nothing for some of {world_size} ranks; raise it")
    rng = np.random.default_rng((seed, epoch))
    order = _balanced_draws(split.targets, rng) if balanced else rng.permutation(len(split))
    rows = [order[number * batch_size :][:batch_size][rank::world_size] for number in range(start_batch, num_batches)]
    jobs = (_job(split, draws, sample_words(draws, seed=seed, epoch=epoch)) for draws in rows)
    prepare = _Prepare(size, augmentation, split.skip_bad_images, crop_part=1.0)
    slow = augmentation.per_image or split.image_size != (size, size)
    return _run(jobs, prepare, num_workers=num_workers if slow else 0, pin_memory=pin_memory)


def _balanced_draws(targets: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw as many images as there are, every class equally often (but for one image) and its images in turn.

    Returns:
        (n,) int64: the number of an image, plus n for every time that it was drawn before.
    """
    total = len(targets)
    classes = rng.permutation(np.unique(targets))
    draws = []
    for number, label in enumerate(classes):
        members = np.flatnonzero(targets == label)
        quota = total // len(classes) + (number < total % len(classes))
        rounds = -(-quota // len(members))
        of_class = np.concatenate([rng.permutation(members) + total * turn for turn in range(rounds)])
        draws.append(of_class[:quota])
    return rng.permutation(np.concatenate(draws))


def choose_crop_part(split: Split, size: int) -> float:
    """Choose the part of an image's shorter side that evaluation keeps, for a run that is evaluated on ``split``.

    Where the images have the evaluation size already, the network is evaluated on whole images. Then it must also get
    whole images when they come in another size: 1. Otherwise it is the usual part of ImageNet's evaluation: 224 / 256.

    Args:
        split: validation images. Of files, a sample is read, and at least half of the sample must have the size.
        size: side of an evaluation image, in pixels.
    """
    if isinstance(split.images, np.ndarray):
        return 1.0 if split.image_size == (size, size) else EVAL_CROP_PART
    numbers = np.unique(np.linspace(0, len(split) - 1, min(len(split), _NUM_PROBES)).astype(int))
    sizes = []
    for number in numbers:
        try:
            sizes.append(read_image(split.images[number]).size)
        except InputError:
            continue  # the batches will report or skip it
    return 1.0 if sizes and 2 * sizes.count((size, size)) >= len(sizes) else EVAL_CROP_PART


def eval_batches(
    split: Split,
    *,
    size: int,
    batch_size: int,
    crop_part: float = EVAL_CROP_PART,
    rank: int = 0,
    world_size: int = 1,
    num_workers: int = 0,
    pin_memory: bool = False,
) -> Iterator[Batch]:
    """Make batches of every image once, in order and not augmented: rank r gets images r, r + world_size, ...

    Args:
        split, rank, world_size, num_workers, pin_memory: as for `train_batches`.
        size: side of the resulting images, in pixels. Images of another size are resized until their shorter side is
            size / crop_part, and centre-cropped.
        batch_size: images per batch, all ranks together. The last batch may be smaller, and some ranks may have one
            batch less.
        crop_part: part of the shorter side that is kept, above 0 and at most 1 (see `choose_crop_part`).

    Raises:
        InputError: an unreadable image, or a batch size below 1.
    """
    if batch_size < 1:
        raise InputError(f"`batch_size` must be at least 1, got {batch_size}")
    mine = np.arange(rank, len(split), world_size)
    step = max(1, batch_size // world_size)
    jobs = (_job(split, mine[start : start + step], None) for start in range(0, len(mine), step))
    prepare = _Prepare(size, None, split.skip_bad_images, crop_part)
    slow = split.image_size != (size, size)
    return _run(jobs, prepare, num_workers=num_workers if slow else 0, pin_memory=pin_memory)


class _Job(NamedTuple):
    """Everything that determines one batch."""

    images: NDArray[np.uint8] | list[str]
    targets: NDArray[np.int64]
    indices: NDArray[np.int64]
    words: NDArray[np.uint64] | None


class _Prepared(NamedTuple):
    """A batch, and the error messages of the images that were skipped."""

    batch: Batch
    skipped: list[str]


def _job(split: Split, draws_B: NDArray[np.int64], words_BS: NDArray[np.uint64] | None) -> _Job:
    images, numbers_B = split.images, draws_B % len(split)
    chosen = images[numbers_B] if isinstance(images, np.ndarray) else [images[number] for number in numbers_B]
    return _Job(chosen, split.targets[numbers_B], draws_B, words_BS)


@dataclass(frozen=True)
class _Prepare(Dataset[_Prepared | InputError]):
    """Turns jobs into batches, in this process or in a worker; a data set whose "index" is the job itself."""

    size: int
    augmentation: Augmentation | None
    skip_bad_images: bool
    crop_part: float

    def __getitem__(self, job: _Job) -> _Prepared | InputError:
        """Make the batch; an InputError is returned, because an exception in a worker would end in a traceback."""
        try:
            prepared = self._batch(job)
        except InputError as error:
            return error
        if get_worker_info() is not None:
            try:
                # Else a thread of the worker would do it, whose failure nobody hears of: the training would wait.
                prepared.batch.images.share_memory_()
            except RuntimeError as error:
                return InputError(f"no room for a batch in shared memory ({error}): {MORE_SHARED_MEMORY}")
        return prepared

    def _batch(self, job: _Job) -> _Prepared:
        skipped: list[str] = []
        if isinstance(job.images, np.ndarray) and job.images.shape[1:3] == (self.size, self.size) and not self._resizes:
            images_BHWC = job.images
        else:
            made, kept = [], []
            for row, source in enumerate(job.images):
                try:
                    made.append(self._sized(source, None if job.words is None else job.words[row]))
                    kept.append(row)
                except InputError as error:
                    if not self.skip_bad_images:
                        raise
                    skipped.append(str(error))
            images_BHWC = np.stack(made) if made else np.empty((0, self.size, self.size, 3), np.uint8)
            job = _Job(job.images, job.targets[kept], job.indices[kept], None if job.words is None else job.words[kept])
        if self.augmentation is not None and job.words is not None:
            images_BHWC = augment(images_BHWC, job.words, self.augmentation)
        images_BCHW = torch.from_numpy(images_BHWC).permute(0, 3, 1, 2)
        return _Prepared(Batch(images_BCHW, torch.from_numpy(job.targets), torch.from_numpy(job.indices)), skipped)

    @property
    def _resizes(self) -> bool:
        return self.augmentation is not None and self.augmentation.random_resized_crop

    def _image(self, source: NDArray[np.uint8] | str) -> Image.Image:
        if not isinstance(source, str):
            return Image.fromarray(source)
        return read_image(source, fix="") if self.skip_bad_images else read_image(source)

    def _sized(self, source: NDArray[np.uint8] | str, word_S: NDArray[np.uint64] | None) -> NDArray[np.uint8]:
        """Make one image of (size, size), cropped at random if the augmentation says so, else in the centre."""
        image = self._image(source)
        if self._resizes and word_S is not None:
            return np.asarray(resized_crop(image, word_S, self.size))
        return np.asarray(centre_crop(image, self.size, part=self.crop_part))


def _run(jobs: Iterator[_Job], prepare: _Prepare, *, num_workers: int, pin_memory: bool) -> Iterator[Batch]:
    """Yield the batches of the jobs, in order, and warn at the end if images were skipped."""
    prepared: Iterator[_Prepared | InputError] = (
        map(prepare.__getitem__, jobs)
        if num_workers == 0
        else in_workers(jobs, prepare, num_workers=num_workers, pin_memory=pin_memory)
    )
    skipped: list[str] = []
    for result in prepared:
        if isinstance(result, InputError):
            raise result
        skipped += result.skipped
        yield result.batch
    if skipped:
        warnings.warn(f"{len(skipped)} images were skipped, the first: {skipped[0]}", stacklevel=2)
