"""Thresholds of all binary classifiers: nine shared negatives a positive against all training images.

    python -m benchmarks.thresholds [--per-class 50] [--val-per-class 10] [--growth | --report | --run RUNS/NAME ...]

CIFAR-100's shape: K = 100, `coded_resnext29_20x6d` with new weights, random images of 32 px. The two ways take turns in
one process, on the same images and in the recipe's batches. `--growth` does so for K = 100, 300 and 1000; `--report`
measures a whole page with its two longest parts for K = 100 and 1000; `--run` measures the F1 of a trained run's
classifiers on its validation images under both kinds of thresholds. With one thread (OMP_NUM_THREADS=1) the seconds are
the process's CPU time, which other work on the machine disturbs less. Run it from the repository's root.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch

from benchmarks.machine import describe_machine
from codedtool.analysis.classifier_metrics import evaluate_classifiers
from codedtool.coding.scheme import CodingScheme
from codedtool.data import ImageData, Normalization, Split
from codedtool.models import build_network
from codedtool.report.page import write_report
from codedtool.training.devices import opened_runtime
from codedtool.training.recipes import recipe_for
from codedtool.training.run import Run
from codedtool.training.subject import Subject, opened_run

NORMALIZATION = Normalization((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--arch", default="coded_resnext29_20x6d")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--per-class", type=int, default=50, help="training images of a class")
    parser.add_argument("--val-per-class", type=int, default=10, help="validation images of a class")
    parser.add_argument("--size", type=int, default=32, help="side of an image in pixels")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--growth", action="store_true", help="measure K = 100, 300 and 1000")
    parser.add_argument("--report", action="store_true", help="measure the pages of K = 100 and 1000")
    parser.add_argument("--run", action="append", default=[], help="a trained run with 100 classes or more")
    options = parser.parse_args()
    kind = "CPU time of one thread" if torch.get_num_threads() == 1 else f"{torch.get_num_threads()} threads"
    print(f"{describe_machine('torch', device=options.device)}, {options.device}, {options.precision}, {kind}\n")
    if options.run:
        print("| run | thresholds from | seconds | precision | recall | F1 |\n|---|---|---|---|---|---|")
        for name in options.run:
            print_f1(name, options.device)
        return
    if options.report:
        print("| K | training images | validation images | bc s | specialize s | other parts s | page s |")
        print("|---|---|---|---|---|---|---|")
        for num_classes in (100, 1000):
            print_report(num_classes, options)
        return
    print("| K | training images | validation images | all negatives s | shared s | ratio | shared ms an image |")
    print("|---|---|---|---|---|---|---|")
    for num_classes in (100, 300, 1000) if options.growth else (100,):
        print_times(num_classes, options)


def now() -> float:
    """The seconds of the clock: with one thread, of the CPU's."""
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def print_f1(name: str, device: str) -> None:
    """Print the mean metrics of a run's classifiers under both kinds of thresholds."""
    with opened_run(Run.load(name), changes={"device": device, "precision": "fp32"}) as subject:
        for all_negatives in (False, True):
            start = now()
            result = evaluate_classifiers(subject, range(len(subject.classes)), all_negatives=all_negatives)
            seconds = now() - start
            one = result.means()[0]
            metrics = " | ".join(f"{100 * one[f'val_{key}']:.2f}" for key in ("precision", "recall", "f1"))
            way = "all training images" if all_negatives else "9 negatives a positive"
            print(f"| {name} | {way} | {seconds:.1f} | {metrics} |", flush=True)


def print_times(num_classes: int, options: argparse.Namespace) -> None:
    """Print the seconds of both ways for K random-image classes."""
    with tempfile.TemporaryDirectory() as folder:
        subject = make_subject(num_classes, options, Path(folder))
        evaluate_classifiers(subject, [0])  # imports what is imported late
        seconds: dict[bool, list[float]] = {False: [], True: []}
        for _ in range(options.rounds):
            for all_negatives, found in seconds.items():
                start = now()
                evaluate_classifiers(subject, range(num_classes), all_negatives=all_negatives)
                found.append(now() - start)
    shared, every = median(seconds[False]), median(seconds[True])
    ratio = median(two / one for one, two in zip(seconds[False], seconds[True], strict=True))
    images = f"{len(subject.data.train):,} | {len(subject.data.val):,}"
    each = 1000 * shared / (len(subject.data.train) + len(subject.data.val))
    print(f"| {num_classes} | {images} | {every:.1f} | {shared:.1f} | {ratio:.1f} | {each:.2f} |", flush=True)


def print_report(num_classes: int, options: argparse.Namespace) -> None:
    """Print the seconds of a page: of its two longest parts, and of the rest."""
    with tempfile.TemporaryDirectory() as folder:
        subject = make_subject(num_classes, options, Path(folder))
        page = Path(folder) / "page.html"
        seconds = []
        # The last page uses the parts of the first two again.
        for only in (["bc"], ["specialize"], []):
            start = now()
            write_report(subject, page, only=only, force=True)
            seconds.append(now() - start)
    images = f"{len(subject.data.train):,} | {len(subject.data.val):,}"
    cells = " | ".join(f"{value:.1f}" for value in (*seconds, sum(seconds)))
    print(f"| {num_classes} | {images} | {cells} |", flush=True)


def make_subject(num_classes: int, options: argparse.Namespace, folder: Path) -> Subject:
    """A run that was not trained: new weights, and random images of every class."""
    torch.manual_seed(0)
    recipe = recipe_for("cifar100").with_values(
        {"preset": options.arch, "eval_size": options.size, "device": options.device, "precision": options.precision}
    )
    rng = np.random.default_rng(0)
    train, val = (
        Split(
            rng.integers(0, 256, (num_classes * count, options.size, options.size, 3), dtype=np.uint8),
            np.repeat(np.arange(num_classes), count),
        )
        for count in (options.per_class, options.val_per_class)
    )
    classes = tuple(f"class {number}" for number in range(num_classes))
    data = ImageData("random", classes, train, val, NORMALIZATION)
    own = {"s2": random_scheme(num_classes, 8), "s3": random_scheme(num_classes, 4)}
    run = Run.create(recipe, own, classes, NORMALIZATION, name="random", folder=folder)
    network = build_network(options.arch, own)
    with opened_runtime(recipe) as runtime:
        runtime.prepare(network)
    return Subject(run, network.eval(), recipe, runtime, "none", lambda: data)


def random_scheme(num_classes: int, act: int) -> CodingScheme:
    """Different codewords of 20 digits; speed does not depend on which they are."""
    rng = np.random.default_rng(0)
    rows: set[tuple[int, ...]] = set()
    while len(rows) < num_classes:
        rows.add(tuple(sorted(rng.choice(20, act, replace=False).tolist())))
    table = np.zeros((num_classes, 20), dtype=np.uint8)
    for row, columns in zip(table, sorted(rows), strict=True):
        row[list(columns)] = 1
    return CodingScheme(table)


if __name__ == "__main__":
    main()
