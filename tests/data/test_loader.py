"""Batches: an image's pixels, batch and rank depend on seed, epoch and index alone."""

from __future__ import annotations

import dataclasses
import itertools
import multiprocessing
import os
import random
import re
import signal
import subprocess
import sys
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import dataloader
from torchvision import transforms

from codedtool.data import (
    Augmentation,
    Batch,
    Split,
    choose_crop_part,
    eval_batches,
    load_dataset,
    loader,
    normalize,
    num_train_batches,
    train_batches,
)
from codedtool.data.augmentation import centre_crop
from codedtool.data.workers import how_it_ended
from codedtool.errors import InputError
from tests.data.images import CIFAR, CIFAR_POLICY, random_images
from tests.paths import ROOT

IMAGENET_POLICY = Augmentation(
    normalization=CIFAR,
    random_resized_crop=True,
    flip=0.5,
    randaugment="rand-m7-mstd0.5-inc1",
    erasing=0.4,
    erasing_count=3,
)


@pytest.fixture
def split() -> Split:
    return Split(random_images(53), np.arange(53, dtype=np.int64) % 5)


@pytest.fixture
def file_split(tmp_path: Path) -> Split:
    """Eighteen files of three sizes, read when needed."""
    rng = np.random.default_rng(1)
    paths = []
    for number, (width, height) in zip(range(18), itertools.cycle([(40, 30), (24, 24), (31, 52)]), strict=False):
        path = tmp_path / f"{number}.png"
        Image.fromarray(rng.integers(0, 256, size=(height, width, 3), dtype=np.uint8)).save(path)
        paths.append(str(path))
    return Split(tuple(paths), np.arange(18, dtype=np.int64) % 3)


def pixels(batches: object) -> dict[int, torch.Tensor]:
    """Index -> image, over all batches; no index may come twice."""
    found: dict[int, torch.Tensor] = {}
    for batch in batches:  # type: ignore[attr-defined]  # any iterable of batches
        for image, index in zip(batch.images, batch.indices.tolist(), strict=True):
            assert index not in found
            found[index] = image
    return found


def assert_same_pixels(some: dict[int, torch.Tensor], reference: dict[int, torch.Tensor]) -> None:
    assert some
    for index, image in some.items():
        assert torch.equal(image, reference[index]), index


@pytest.mark.parametrize("policy", [CIFAR_POLICY, dataclasses.replace(CIFAR_POLICY, randaugment="")])
def test_a_sample_looks_the_same_in_any_batch_on_any_rank_and_after_any_start(
    split: Split, policy: Augmentation
) -> None:
    common = {"size": 16, "seed": 5, "epoch": 2}
    reference = pixels(train_batches(split, policy, batch_size=1, **common))
    assert sorted(reference) == list(range(53))
    for changes in (
        {"batch_size": 10},
        {"batch_size": 53},
        {"batch_size": 10, "start_batch": 3},
        {"batch_size": 10, "rank": 1, "world_size": 3},
    ):
        assert_same_pixels(pixels(train_batches(split, policy, **common, **changes)), reference)
    for other in ({"epoch": 3}, {"seed": 6}):
        changed = pixels(train_batches(split, policy, batch_size=1, **(common | other)))
        assert sum(not torch.equal(changed[index], reference[index]) for index in reference) > 40


def test_workers_give_the_batches_of_the_main_process(split: Split, file_split: Split) -> None:
    for some, policy in ((split, CIFAR_POLICY), (file_split, IMAGENET_POLICY)):
        common = {"size": 16, "batch_size": 7, "seed": 1, "epoch": 4, "start_batch": 1}
        alone = list(train_batches(some, policy, **common))
        helped = list(train_batches(some, policy, num_workers=2, **common))
        assert len(helped) == len(some) // 7 - 1
        for mine, theirs in zip(alone, helped, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))
    for mine, theirs in zip(
        eval_batches(file_split, size=16, batch_size=5),
        eval_batches(file_split, size=16, batch_size=5, num_workers=2),
        strict=True,
    ):
        assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (signal.SIGKILL, r"was killed \(SIGKILL\), as the system does when memory runs out: lower `num_workers`"),
        (signal.SIGBUS, "ended by SIGBUS, because shared memory is full: lower `num_workers`"),
    ],
)
def test_a_worker_that_the_system_ends_is_reported_as_it_was(
    split: Split, number: signal.Signals, message: str
) -> None:
    batches = train_batches(split, CIFAR_POLICY, size=16, batch_size=2, seed=0, epoch=0, num_workers=1)
    next(batches)
    for worker in multiprocessing.active_children():
        assert worker.pid is not None
        os.kill(worker.pid, number)
    with pytest.raises(InputError, match=message):
        list(batches)


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        ((None, -11), "ended by SIGSEGV; `num_workers` 0 prepares"),
        ((1, -9), "was killed"),
        ((0, 3), "ended with exit code 3; what it printed says why"),
        ((-63,), "ended by signal 63"),
        ((-15, -9), "was killed"),
        ((None, None), "cannot hand over a batch .*broken pipe.*ulimit -n"),
    ],
)
def test_the_end_of_a_worker_is_told_by_its_exit_code(codes: tuple[int | None, ...], message: str) -> None:
    workers = [cast(BaseProcess, SimpleNamespace(exitcode=code, join=lambda _: None)) for code in codes]
    assert re.search(message, how_it_ended(workers, OSError("broken pipe")))


@pytest.mark.parametrize(
    "message", ["Pin memory thread exited unexpectedly", "Too many open files. Communication with"]
)
def test_a_batch_that_cannot_be_received_is_one_message(
    message: str, file_split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise RuntimeError(f"{message} the workers is no longer possible")

    batches = eval_batches(file_split, size=16, batch_size=2, num_workers=1)
    next(batches)
    monkeypatch.setattr(dataloader._MultiProcessingDataLoaderIter, "_next_data", fail)
    with pytest.raises(InputError, match="cannot hand over a batch .*`num_workers` 0"):
        next(batches)


def test_full_shared_memory_is_told_and_does_not_hang(split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: torch.Tensor) -> None:
        raise RuntimeError("unable to write to file </torch_1>: No space left on device (28)")

    monkeypatch.setattr(loader, "get_worker_info", object)  # as in a worker
    monkeypatch.setattr(torch.Tensor, "share_memory_", refuse)
    with pytest.raises(InputError, match=r"no room for a batch in shared memory .*--shm-size"):
        list(eval_batches(split, size=16, batch_size=5))


@pytest.mark.parametrize("way", ["file", "stdin, long TMPDIR"])
def test_a_script_without_a_main_guard_runs_once(tmp_path: Path, way: str) -> None:
    program = (
        "from codedtool.data import eval_batches, load_dataset\n"
        "print('begun', flush=True)\n"
        "batches = eval_batches(load_dataset('digits').val, size=16, batch_size=40, num_workers=2)\n"
        "print(sum(len(batch.targets) for batch in batches))\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    if way == "file":
        script = tmp_path / "script.py"
        script.write_text(program)
        arguments, text = [str(script)], None
    else:
        folder = tmp_path / ("x" * 100)  # a socket's path has at most 107 letters
        folder.mkdir()
        arguments, text, environment["TMPDIR"] = ["-"], program, str(folder)
    done = subprocess.run(
        [sys.executable, *arguments],
        input=text,
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"begun\n{len(load_dataset('digits').val)}\n"


@pytest.mark.slow
def test_workers_do_not_outlive_a_killed_main_process(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import time\n"
        "from codedtool.data import eval_batches, load_dataset\n"
        "if __name__ == '__main__':\n"
        "    data = load_dataset('digits')\n"
        "    batches = eval_batches(data.val, size=16, batch_size=4, num_workers=2)\n"
        "    next(batches)\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(600)\n"
    )
    # All of its processes hold the pipe, so it ends when the last of them does.
    command = [sys.executable, str(script)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}
    ) as main:
        assert main.stdout is not None
        assert main.stdout.readline() == b"ready\n"
        main.kill()
        assert main.communicate(timeout=60) == (b"", None)


@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_the_ranks_of_a_batch_together_are_the_batch(split: Split, world_size: int) -> None:
    common = {"size": 16, "batch_size": 10, "seed": 0, "epoch": 0}
    alone = list(train_batches(split, CIFAR_POLICY, **common))
    ranks = [
        list(train_batches(split, CIFAR_POLICY, rank=rank, world_size=world_size, **common))
        for rank in range(world_size)
    ]
    assert len(alone) == num_train_batches(split, 10) == 5
    for number, batch in enumerate(alone):
        parts = [rank[number].indices for rank in ranks]
        assert sorted(torch.cat(parts).tolist()) == sorted(batch.indices.tolist())
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_the_order_is_a_permutation_that_changes_with_epoch_and_seed(split: Split) -> None:
    policy = Augmentation(normalization=CIFAR)

    def order(seed: int, epoch: int) -> list[int]:
        batches = train_batches(split, policy, size=16, batch_size=1, seed=seed, epoch=epoch)
        return [int(batch.indices) for batch in batches]

    assert sorted(order(0, 0)) == list(range(53))
    assert order(0, 0) == order(0, 0)
    assert len({tuple(order(seed, epoch)) for seed, epoch in itertools.product(range(3), range(3))}) == 9


def test_starting_late_reads_nothing_of_what_came_before(file_split: Split) -> None:
    common = {"size": 16, "batch_size": 6, "seed": 0, "epoch": 0}
    policy = Augmentation(normalization=CIFAR)
    first = next(train_batches(file_split, policy, **common))
    for index in first.indices.tolist():
        Path(file_split.images[index]).unlink()
    assert len(list(train_batches(file_split, policy, start_batch=1, **common))) == 2
    with pytest.raises(InputError, match="cannot read the image"):
        next(train_batches(file_split, policy, **common))


@given(number=st.integers(0, 40), batch_size=st.integers(1, 50), world_size=st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_evaluation_gives_every_image_once_unpadded_and_in_order(number: int, batch_size: int, world_size: int) -> None:
    split = Split(random_images(number, side=4), np.arange(number, dtype=np.int64))
    seen: list[int] = []
    for rank in range(world_size):
        indices: list[int] = []
        for batch in eval_batches(split, size=4, batch_size=batch_size, rank=rank, world_size=world_size):
            assert 1 <= len(batch.targets) <= max(1, batch_size // world_size)
            assert torch.equal(batch.targets, batch.indices)
            assert np.array_equal(batch.images.permute(0, 2, 3, 1), split.images[batch.indices.numpy()])
            indices += batch.indices.tolist()
        assert indices == sorted(indices)
        seen += indices
    assert sorted(seen) == list(range(number))


def test_batches_are_channels_last_and_normalize_keeps_that(split: Split) -> None:
    batch = next(eval_batches(split, size=16, batch_size=8))
    assert batch.images.shape == (8, 3, 16, 16)
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    assert (batch.images.dtype, batch.targets.dtype, batch.indices.dtype) == (torch.uint8, torch.int64, torch.int64)
    normalized = normalize(batch.images, CIFAR)
    assert normalized.is_contiguous(memory_format=torch.channels_last)
    literal = transforms.Normalize(CIFAR.mean, CIFAR.std)(batch.images / 255)
    torch.testing.assert_close(normalized, literal, rtol=0, atol=2e-6)


def test_the_global_generators_are_left_as_they_were(split: Split, file_split: Split) -> None:
    def states() -> list[object]:
        return [random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()]

    before = states()
    for _ in train_batches(
        split, dataclasses.replace(CIFAR_POLICY, erasing=1.0), size=16, batch_size=53, seed=0, epoch=0
    ):
        assert states() == before
    for workers in (0, 1):
        common = {"size": 12, "batch_size": 6, "seed": 0, "epoch": 0}
        assert len(list(train_batches(file_split, IMAGENET_POLICY, num_workers=workers, **common))) == 3
        assert states() == before
    with pytest.raises(InputError, match="`randaugment` policy 'round-m9' is unknown to timm"):
        next(
            train_batches(
                split, Augmentation(normalization=CIFAR, randaugment="round-m9"), size=16, batch_size=2, seed=0, epoch=0
            )
        )
    assert states() == before


def test_evaluation_at_224_resizes_to_256(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    image = Image.fromarray(random_images(1, side=300)[0]).crop((0, 0, 300, 280))
    image.save(path)
    batch = next(eval_batches(Split((str(path),), np.zeros(1, np.int64)), size=224, batch_size=1))
    resize = transforms.Resize(256, interpolation=transforms.InterpolationMode.BICUBIC)
    literal = transforms.CenterCrop(224)(resize(image))
    assert np.array_equal(batch.images[0].permute(1, 2, 0), np.asarray(literal))


def test_unreadable_files_stop_a_batch_or_are_left_out_and_counted(file_split: Split) -> None:
    Path(file_split.images[4]).write_bytes(b"no image")
    common = {"size": 16, "batch_size": 6}
    for workers in (0, 1):
        with pytest.raises(InputError, match=r"^cannot read the image .*4\.png .*`skip_bad_images`$"):
            list(eval_batches(file_split, num_workers=workers, **common))
        lenient = dataclasses.replace(file_split, skip_bad_images=True)
        message = r"^1 images were skipped, the first: cannot read the image .*4\.png \(.*\)$"
        with pytest.warns(UserWarning, match=message):
            batches = list(eval_batches(lenient, num_workers=workers, **common))
        assert [len(batch.images) for batch in batches] == [5, 6, 6]
        assert torch.cat([batch.indices for batch in batches]).tolist() == [i for i in range(18) if i != 4]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "`batch_size` must be at least 1, got 0"),
        ({"batch_size": 54}, "`batch_size` 54 is more than the 53 training images"),
        ({"batch_size": 2, "world_size": 3}, "`batch_size` 2 leaves nothing for some of 3 ranks"),
    ],
)
def test_batch_sizes_that_make_no_batch_are_refused(split: Split, changes: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        train_batches(split, CIFAR_POLICY, **({"size": 16, "batch_size": 8, "seed": 0, "epoch": 0} | changes))


def test_images_in_memory_are_resized_where_another_size_is_asked_for() -> None:
    data = load_dataset("digits")
    for part in (0.875, 1.0):
        batch = next(eval_batches(data.val, size=16, batch_size=3, crop_part=part))
        literal = centre_crop(Image.fromarray(data.val.images[0]), 16, part=part)
        assert np.array_equal(batch.images[0].permute(1, 2, 0), np.asarray(literal))
    varied = next(train_batches(data.train, Augmentation(normalization=CIFAR), size=16, batch_size=3, seed=0, epoch=0))
    whole = Image.fromarray(data.train.images[int(varied.indices[0])]).resize((16, 16), Image.Resampling.BICUBIC)
    assert np.array_equal(varied.images[0].permute(1, 2, 0), np.asarray(whole))


def test_images_that_have_the_evaluation_size_are_evaluated_whole_in_any_size(tmp_path: Path) -> None:
    digits = load_dataset("digits").val
    assert [choose_crop_part(digits, size) for size in (8, 16)] == [1.0, 0.875]
    oblong = Split(np.zeros((2, 8, 16, 3), np.uint8), np.zeros(2, np.int64))
    assert choose_crop_part(oblong, 8) == 0.875
    files = []
    for number, side in enumerate((16, 16, 16, 20)):
        files.append(str(tmp_path / f"{number}.png"))
        Image.new("RGB", (side, side)).save(files[-1])
    files.append(str(tmp_path / "broken.png"))
    (tmp_path / "broken.png").write_bytes(b"")
    for chosen, part in ((files, 1.0), (files[2:], 1.0), (files[3:], 0.875), (files[4:], 0.875)):
        assert choose_crop_part(Split(tuple(chosen), np.zeros(len(chosen), np.int64)), 16) == part


def test_balanced_batches_draw_every_class_equally_often_and_vary_repeated_images_anew() -> None:
    targets = np.repeat(np.arange(3), (40, 7, 3))
    images = np.arange(50, dtype=np.uint8)[:, None, None, None] + np.zeros((50, 8, 8, 3), dtype=np.uint8)
    split = Split(images, targets)
    augmentation = Augmentation(normalization=CIFAR, crop_padding=3)

    def batches(epoch: int, rank: int = 0, world_size: int = 1) -> list[Batch]:
        return list(
            train_batches(
                split,
                augmentation,
                size=8,
                batch_size=25,
                seed=1,
                epoch=epoch,
                balanced=True,
                rank=rank,
                world_size=world_size,
            )
        )

    found = batches(0)
    assert sorted(np.bincount(torch.cat([batch.targets for batch in found]))) == [16, 17, 17]
    draws = torch.cat([batch.indices for batch in found]).numpy()
    # Every draw has its own number, by which dropSubNNs draws too.
    assert len(set(draws.tolist())) == 50
    indices = draws % 50
    assert np.array_equal(targets[indices], torch.cat([batch.targets for batch in found]))
    counts = np.bincount(indices, minlength=50)
    assert (counts[:40].max(), set(counts[40:47]), set(counts[47:])) <= (1, {2, 3}, {5, 6})
    pixels = torch.cat([batch.images for batch in found])
    repeated = pixels[indices == 48]
    assert len({image.numpy().tobytes() for image in repeated}) > 1
    assert all(torch.equal(a.images, b.images) for a, b in zip(found, batches(0), strict=True))
    assert not torch.equal(found[0].indices, batches(1)[0].indices)
    shared = [batches(0, rank, 2) for rank in (0, 1)]
    assert torch.equal(torch.cat([shared[0][0].indices, shared[1][0].indices]).sort()[0], found[0].indices.sort()[0])
