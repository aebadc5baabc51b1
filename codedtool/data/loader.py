"""Batches of images; their order, ranks' shares and pixels do not depend on the number of worker processes.

A worker gets everything that determines one whole batch (pixels or file names, and the random words of each sample) and
keeps no state. So workers need no seeds, and the data set is not copied to them.
Shape suffixes: B images of a batch (on this rank), H, W, C height, width, channels.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.util
import os
import signal
import sys
import tempfile
import threading
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import DataLoader, Dataset, get_worker_info

from codedtool.data.augmentation import EVAL_CROP_PART, Augmentation, augment, centre_crop, resized_crop, sample_words
from codedtool.data.folder import read_image
from codedtool.data.split import Split
from codedtool.errors import InputError


class Batch(NamedTuple):
    """One rank's part of one batch.

    Attributes:
        images: (B, 3, H, W) uint8, channels last in memory. `normalize` turns them into the network's input on the
            device, because float32 would be four times as many bytes to copy.
        targets: (B,) int64 classes.
        indices: (B,) int64 numbers of the images in their split.
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
    jobs = (_job(split, draws % len(split), sample_words(draws, seed=seed, epoch=epoch)) for draws in rows)
    prepare = _Prepare(size, augmentation, split.skip_bad_images)
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
    """Make batches of every image once, in order and not augmented: rank r gets images r, r + world_size, ...

    Args:
        split, rank, world_size, num_workers, pin_memory: as for `train_batches`.
        size: side of the resulting images, in pixels; others are resized to size * 256 / 224 and centre-cropped.
        batch_size: images per batch, all ranks together. The last batch may be smaller, and some ranks may have one
            batch less.

    Raises:
        InputError: an unreadable image, or a batch size below 1.
    """
    if batch_size < 1:
        raise InputError(f"`batch_size` must be at least 1, got {batch_size}")
    mine = np.arange(rank, len(split), world_size)
    step = max(1, batch_size // world_size)
    jobs = (_job(split, mine[start : start + step], None) for start in range(0, len(mine), step))
    prepare = _Prepare(size, None, split.skip_bad_images)
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


def _job(split: Split, indices_B: NDArray[np.int64], words_BS: NDArray[np.uint64] | None) -> _Job:
    images = split.images
    chosen = images[indices_B] if isinstance(images, np.ndarray) else [images[index] for index in indices_B]
    return _Job(chosen, split.targets[indices_B], indices_B, words_BS)


@dataclass(frozen=True)
class _Prepare(Dataset[_Prepared | InputError]):
    """Turns jobs into batches, in this process or in a worker; a data set whose "index" is the job itself."""

    size: int
    augmentation: Augmentation | None
    skip_bad_images: bool

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
                return InputError(f"no room for a batch in shared memory ({error}): {_MORE_SHARED_MEMORY}")
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

    def _sized(self, source: NDArray[np.uint8] | str, word_S: NDArray[np.uint64] | None) -> NDArray[np.uint8]:
        """Make one image of (size, size), cropped at random if the augmentation says so, else in the centre."""
        image = read_image(source) if isinstance(source, str) else Image.fromarray(source)
        if self._resizes and word_S is not None:
            return np.asarray(resized_crop(image, word_S, self.size))
        return np.asarray(centre_crop(image, self.size, part=EVAL_CROP_PART if self.augmentation is None else 1.0))


def _run(jobs: Iterator[_Job], prepare: _Prepare, *, num_workers: int, pin_memory: bool) -> Iterator[Batch]:
    """Yield the batches of the jobs, in order, and warn at the end if images were skipped."""
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
        warnings.warn(f"{len(skipped)} images were skipped, the first: {skipped[0]}", stacklevel=2)


def _in_workers(
    jobs: Iterator[_Job], prepare: _Prepare, num_workers: int, pin_memory: bool
) -> Iterator[_Prepared | InputError]:
    """Let ``num_workers`` processes prepare the jobs; yields their results in order.

    Raises:
        InputError: a worker cannot be started, or ended.
    """
    workers: set[BaseProcess] = set()
    others = set(multiprocessing.active_children())
    try:
        _shorten_socket_names()
        with _without_main():
            loader = DataLoader(
                prepare,
                batch_size=None,
                sampler=jobs,
                collate_fn=_as_it_is,
                num_workers=num_workers,
                pin_memory=pin_memory,
                worker_init_fn=_start_worker,
                multiprocessing_context=_context(),
                # Without its own generator, the loader would draw from torch's global one.
                generator=torch.Generator(),
            )
            batches = iter(loader)
        workers = set(multiprocessing.active_children()) - others
        yield from batches
    except (RuntimeError, EOFError, OSError) as error:
        # A dead worker shows as torch's RuntimeError, or as a broken pipe if it was sending a batch.
        if isinstance(error, RuntimeError) and not str(error).startswith(_SIGNS):
            raise
        if not workers:
            raise InputError(
                f"the processes that prepare images cannot be started ({error}); lower `num_workers`: 0 prepares them "
                "in this process"
            ) from None
        raise InputError(_how_it_ended(workers, error)) from None


def _how_it_ended(workers: Collection[BaseProcess], error: Exception) -> str:
    """Say how the first worker that ended did so, and what helps."""
    subject = "a process that prepares images"
    for worker in workers:
        worker.join(0.5)  # its exit code comes a little later than the error
    codes = [worker.exitcode for worker in workers if worker.exitcode]
    if not codes:
        return (
            f"{subject} cannot hand over a batch ({error}); raise the limit on open files (ulimit -n), or prepare "
            "images in this process with `num_workers` 0"
        )
    # A signal tells more than the exit codes of workers that ended because another had.
    code = min(codes, key=lambda code: (code > 0, code == -signal.SIGTERM))
    if code > 0:
        return (
            f"{subject} ended with exit code {code}; what it printed says why. `num_workers` 0 prepares images in this "
            "process and shows the error"
        )
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    if name == "SIGKILL":
        return (
            f"{subject} was killed (SIGKILL), as the system does when memory runs out: lower `num_workers`, or free "
            "memory"
        )
    if name == "SIGBUS":
        return f"{subject} was ended by SIGBUS, because shared memory is full: {_MORE_SHARED_MEMORY}"
    return f"{subject} was ended by {name}; `num_workers` 0 prepares images in this process"


# How torch's message begins when a worker ended, and multiprocessing's when a file descriptor was not received.
_SIGNS = ("DataLoader worker (pid", "received 0 items of ancdata")

_MORE_SHARED_MEMORY = "lower `num_workers`, or give the container more (docker run --shm-size)"

# Of the 107 letters of a socket's path, multiprocessing's own names take some thirty.
_LONGEST_FOLDER = 70


def _shorten_socket_names() -> None:
    """Make multiprocessing's folder of sockets elsewhere if the path of the temporary folder is too long for them."""
    usual = tempfile.gettempdir()
    short = (folder for folder in ("/tmp", "/var/tmp", "/dev/shm") if os.access(folder, os.W_OK))
    tempfile.tempdir = usual if len(os.fsencode(usual)) <= _LONGEST_FOLDER else next(short, usual)
    try:
        multiprocessing.util.get_temp_dir()  # made on the first call, and kept
    finally:
        tempfile.tempdir = usual


@contextmanager
def _without_main() -> Iterator[None]:
    """Within it, processes that start do not run the user's script again.

    multiprocessing imports the main module in every process, for objects that are defined there. The workers get only
    objects of this package. A script without ``if __name__ == "__main__"`` would begin its whole work in every worker;
    a script from stdin cannot be imported at all.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _context() -> multiprocessing.context.BaseContext:
    """Choose how workers start: forked from a clean server process that has done the imports, if the system can.

    Workers are not forked from this process: it may hold threads (CUDA, XLA, numba's OpenMP pool) that do not survive
    a fork.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["codedtool.data.loader", "timm.data"])
    return context


def _start_worker(worker: int) -> None:
    """Let a worker ignore Ctrl-C, and end when the main process ends.

    The main process may still need a batch to finish its step after Ctrl-C. torch's own watchdog watches the process
    that forked the worker, which here is the server. The server lives as long as its children, so after a kill -9 of
    the main process both would stay forever.
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
