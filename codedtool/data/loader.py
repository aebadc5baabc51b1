"""Batches: an exact order, an exact share for every rank, and the same pixels for any number of worker processes.

A worker gets one whole batch to prepare, with everything that decides it (pixels or file names, and the random words
of each sample), and keeps no state; so workers need no seeds, and none of the data set is copied to them.
Shape suffixes: B images of a batch (on this rank), H, W, C height, width, channels.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from codedtool.data.augmentation import EVAL_CROP_PART, Augmentation, augment, centre_crop, resized_crop, sample_words
from codedtool.data.folder import read_image
from codedtool.data.split import Split
from codedtool.errors import InputError


class Batch(NamedTuple):
    """One rank's part of one batch.

    Attributes:
        images: (B, 3, H, W) uint8, channels last in memory; `normalize` makes the network's input of them, on the
            device, for as float32 they would be four times the bytes to copy there.
        targets: (B,) int64 classes.
        indices: (B,) int64 numbers of the images in their split.
    """

    images: torch.Tensor
    targets: torch.Tensor
    indices: torch.Tensor


def num_train_batches(split: Split, batch_size: int) -> int:
    """Whole batches of an epoch: the images left over at the end of its order are not used in it.

    Raises:
        InputError: there is not one.
    """
    if batch_size < 1:
        raise InputError(f"batch size must be at least 1, got {batch_size}")
    if batch_size > len(split):
        raise InputError(
            f"batch size {batch_size} is more than the {len(split)} training images, so there is not one whole "
            f"batch; pass --batch-size {len(split)} or less"
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
    rank: int = 0,
    world_size: int = 1,
    num_workers: int = 0,
    pin_memory: bool = False,
) -> Iterator[Batch]:
    """One epoch of training: images in the order of (seed, epoch), augmented by (seed, epoch, index).

    Args:
        split: the images.
        augmentation: how they are varied.
        size: side of the images that come out, in pixels.
        batch_size: images per batch over all ranks; only whole batches are given (`num_train_batches`).
        seed, epoch: decide everything random; at least 0.
        start_batch: batches of the epoch to leave out; nothing of them is read.
        rank, world_size: this rank gets rows rank, rank + world_size, … of every batch.
        num_workers: processes that prepare batches; not used where whole batches are made at once faster.
        pin_memory: put batches in page-locked memory, for CUDA; only with workers.

    Raises:
        InputError: no whole batch, fewer images in it than ranks, an unreadable image, an unknown policy.
    """
    num_batches = num_train_batches(split, batch_size)
    if batch_size < world_size:
        raise InputError(f"batch size {batch_size} leaves nothing for some of {world_size} ranks; make it larger")
    order = np.random.default_rng((seed, epoch)).permutation(len(split))
    rows = [order[number * batch_size :][:batch_size][rank::world_size] for number in range(start_batch, num_batches)]
    jobs = (_job(split, indices, sample_words(indices, seed=seed, epoch=epoch)) for indices in rows)
    prepare = _Prepare(size, augmentation, split.skip_bad_images)
    slow = augmentation.per_image or split.image_size != (size, size)
    return _run(jobs, prepare, num_workers=num_workers if slow else 0, pin_memory=pin_memory)


def eval_batches(
    split: Split,
    *,
    size: int,
    batch_size: int,
    rank: int = 0,
    world_size: int = 1,
    num_workers: int = 0,
    pin_memory: bool = False,
) -> Iterator[Batch]:
    """Every image once over all ranks, in order and not augmented: rank r gets images r, r + world_size, …

    Args:
        size: side of the images that come out; others are resized to size * 256 / 224 and centre-cropped.
        batch_size: images per batch over all ranks; the last one is smaller, and ranks may differ by one batch.
        Others: as for `train_batches`.

    Raises:
        InputError: an unreadable image, a batch size below 1.
    """
    if batch_size < 1:
        raise InputError(f"batch size must be at least 1, got {batch_size}")
    mine = np.arange(rank, len(split), world_size)
    step = max(1, batch_size // world_size)
    jobs = (_job(split, mine[start : start + step], None) for start in range(0, len(mine), step))
    prepare = _Prepare(size, None, split.skip_bad_images)
    slow = split.image_size != (size, size)
    return _run(jobs, prepare, num_workers=num_workers if slow else 0, pin_memory=pin_memory)


class _Job(NamedTuple):
    """All that decides one batch."""

    images: NDArray[np.uint8] | list[str]
    targets: NDArray[np.int64]
    indices: NDArray[np.int64]
    words: NDArray[np.uint64] | None


class _Prepared(NamedTuple):
    """A batch, and the images that were left out of it: what the reader said of each."""

    batch: Batch
    skipped: list[str]


def _job(split: Split, indices_B: NDArray[np.int64], words_BS: NDArray[np.uint64] | None) -> _Job:
    images = split.images
    chosen = images[indices_B] if isinstance(images, np.ndarray) else [images[index] for index in indices_B]
    return _Job(chosen, split.targets[indices_B], indices_B, words_BS)


@dataclass(frozen=True)
class _Prepare(Dataset[_Prepared | InputError]):
    """Makes batches of jobs, in this process or in a worker; a data set whose "index" is the job itself."""

    size: int
    augmentation: Augmentation | None
    skip_bad_images: bool

    def __getitem__(self, job: _Job) -> _Prepared | InputError:
        """The batch; an InputError is returned, for a worker's exception would reach the user as a traceback."""
        try:
            return self._batch(job)
        except InputError as error:
            return error

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

    def _sized(self, source: NDArray[np.uint8] | str, word_S: NDArray[np.uint64] | None) -> NDArray[np.uint8]:
        """One image of (size, size): cropped at random, for training that does so, or in the centre."""
        image = read_image(source) if isinstance(source, str) else Image.fromarray(source)
        if self._resizes and word_S is not None:
            return np.asarray(resized_crop(image, word_S, self.size))
        return np.asarray(centre_crop(image, self.size, part=EVAL_CROP_PART if self.augmentation is None else 1.0))


def _run(jobs: Iterator[_Job], prepare: _Prepare, *, num_workers: int, pin_memory: bool) -> Iterator[Batch]:
    """The batches of the jobs, in order; warns at the end of the images that were left out."""
    prepared = (
        map(prepare.__getitem__, jobs) if num_workers == 0 else _in_workers(jobs, prepare, num_workers, pin_memory)
    )
    skipped: list[str] = []
    for result in prepared:
        if isinstance(result, InputError):
            raise result
        skipped += result.skipped
        yield result.batch
    if skipped:
        warnings.warn(f"{len(skipped)} images were left out, the first: {skipped[0]}", stacklevel=2)


def _in_workers(
    jobs: Iterator[_Job], prepare: _Prepare, num_workers: int, pin_memory: bool
) -> Iterator[_Prepared | InputError]:
    """``prepare`` of every job, in order, by ``num_workers`` processes.

    Raises:
        InputError: the system ended a worker.
    """
    loader = DataLoader(
        prepare,
        batch_size=None,
        sampler=jobs,
        collate_fn=_as_it_is,
        num_workers=num_workers,
        pin_memory=pin_memory,
        worker_init_fn=_start_worker,
        multiprocessing_context=_context(),
        # Without one of its own, the loader would draw from torch's global generator.
        generator=torch.Generator(),
    )
    try:
        yield from loader
    except (RuntimeError, EOFError, OSError) as error:
        # A worker that is gone shows as torch's RuntimeError, or as a broken pipe when it was sending a batch.
        if isinstance(error, RuntimeError) and not str(error).startswith("DataLoader worker (pid"):
            raise
        raise InputError(
            f"a process that prepares images was ended by the system ({error!r}); it ran out of memory or of shared "
            "memory: pass a smaller --num-workers, or give a container more (docker run --shm-size)"
        ) from None


def _context() -> multiprocessing.context.BaseContext:
    """How workers start: forked off a clean server that has the imports done, where the system can.

    Not forked off this process: it may hold threads (CUDA, XLA, numba's OpenMP pool) that do not survive a fork.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["codedtool.data.loader", "timm.data"])
    return context


def _start_worker(worker: int) -> None:
    """Leave Ctrl-C to the main process, which may want a batch to finish its step, but never outlive that process.

    torch's own watch looks at the process that forked this one, which here is the server; and the server lives as
    long as its children do, so after a kill -9 both would stay for ever.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_main, daemon=True).start()


def _end_with_main() -> None:
    main = multiprocessing.parent_process()
    assert main is not None
    main.join()
    os._exit(1)


def _as_it_is(prepared: Any) -> Any:
    return prepared
