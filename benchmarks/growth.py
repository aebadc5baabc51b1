"""Seconds and peak memory of every command as K, N, the number of images and their size grow: three sizes of each.

    python -m benchmarks.growth

Every figure is a whole process, the loading of Python and PyTorch included. The images are random patterns, and the
networks train for one epoch, because what a network knows does not change how long it takes. Run it from the
repository's root.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from benchmarks.machine import describe_machine


@dataclass(frozen=True)
class Point:
    """One size of everything.

    Attributes:
        K, N: classes and subNNs per block.
        images: training images of all classes together; half as many for validation, of which `calibrate` needs four of
            a class.
        pixels: side of an image.
    """

    K: int = 20
    N: int = 20
    images: int = 1440
    pixels: int = 32


BASE = Point()
# Title of the column -> what it has.
POINTS = {
    "base": BASE,
    "K = 60": replace(BASE, K=60),
    "K = 180": replace(BASE, K=180),
    "N = 10": replace(BASE, N=10),
    "N = 40": replace(BASE, N=40),
    "720 images": replace(BASE, images=720),
    "2,880 images": replace(BASE, images=2880),
    "16 px": replace(BASE, pixels=16),
    "64 px": replace(BASE, pixels=64),
}

# Commands on a run, in the order of the table.
ON_A_RUN = ("eval", "bc", "specialize", "decode", "calibrate", "activations", "cost", "ood", "predict", "export")

# (K, N, act, H_min) of the schemes' table: three sizes of K, three of N.
SCHEMES = (
    (100, 32, 8, 6),
    (1000, 32, 8, 6),
    (10000, 32, 8, 6),
    (1000, 24, 8, 6),
    (1000, 48, 12, 10),
    (1000, 64, 16, 12),
)


class Cost(NamedTuple):
    """What one process took: seconds, and its largest resident memory in MB."""

    seconds: float
    megabytes: float

    def __str__(self) -> str:
        return f"{self.seconds:.1f} s, {self.megabytes:,.0f} MB"


def main() -> None:
    argparse.ArgumentParser(description=__doc__.split("\n", 1)[0]).parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _codedtool(folder, "scheme", "--K", "100", "--N", "32", "--act", "8", "--hmin", "6", "--out", "first.npy")
        print(f"{describe_machine('torch', 'numpy', 'numba')}\n")
        print("| (K, N, act, H) | scheme | verify | bounds |\n|---|---|---|---|")
        for row in SCHEMES:
            print(f"| {row} | {' | '.join(map(str, _schemes(folder, row)))} |", flush=True)
        columns = {title: _run(folder / title.replace(" ", ""), point) for title, point in POINTS.items()}
    print(f"\n| command | {' | '.join(POINTS)} |\n|{'---|' * (len(POINTS) + 1)}")
    for verb in ("train", *ON_A_RUN, "report"):
        print(f"| {verb} | {' | '.join(str(columns[title][verb]) for title in POINTS)} |")


def _schemes(folder: Path, row: tuple[int, int, int, int]) -> list[Cost]:
    K, N, act, hmin = map(str, row)
    name = "_".join((K, N, act, hmin)) + ".npy"
    size = ["--N", N, "--act", act, "--hmin", hmin]
    return [
        _codedtool(folder, "scheme", "--K", K, *size, "--out", name),
        _codedtool(folder, "verify", name),
        _codedtool(folder, "bounds", "--K", K, "--N", N, "--act", act),
    ]


def _run(folder: Path, point: Point) -> dict[str, Cost]:
    """Cost of the training of a point and of every command on its run."""
    for name in ("images", "other"):
        _write_images(folder / name, point)
    act = 8 if point.N == 20 else point.N // 2
    for ones in (act, act // 2):
        # Words of two ones less than half of N may not be many enough for a large distance.
        sizes = ["--K", str(point.K), "--N", str(point.N), "--act", str(ones), "--hmin", "2"]
        _codedtool(folder, "scheme", *sizes, "--out", f"{ones}.npy")
    both = ["--scheme", f"{act}.npy", "--scheme", f"{act // 2}.npy", "--stages", "s2,s3"]
    network = ["--preset", f"coded_resnext23_{point.N}x3d", *both, "--recipe", "small"]
    costs = {
        "train": _codedtool(folder, "train", *network, "--epochs", "1", "--data", "folder:images", "--run-name", "r")
    }
    photo = next((folder / "images" / "val").rglob("*.png"))
    options = {
        "ood": ["--ood", "folder:other"],
        "predict": [str(photo)],
        "export": ["--format", "run"],
        "report": ["--ood", "folder:other"],
    }
    for verb in (*ON_A_RUN, "report"):
        costs[verb] = _codedtool(folder, verb, "--run", "r", *options.get(verb, []))
    return costs


def _write_images(folder: Path, point: Point) -> None:
    """Patterns of every class with noise, as PNG files."""
    rng = np.random.default_rng(point.pixels)
    for label in range(point.K):
        pattern = rng.integers(0, 256, (4, 4, 3)).repeat(point.pixels // 4, 0).repeat(point.pixels // 4, 1)
        for part, images in (("train", point.images), ("val", point.images // 2)):
            place = folder / part / f"class{label:03d}"
            place.mkdir(parents=True)
            for number in range(images // point.K):
                pixels = np.clip(pattern + rng.normal(0, 40, pattern.shape), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(place / f"{number}.png")


def _codedtool(folder: Path, *arguments: str) -> Cost:
    """Run one command in ``folder``; a failure ends the benchmark with the command's words."""
    folder.mkdir(exist_ok=True)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path.cwd()), os.environ.get("PYTHONPATH", "")])}
    start = time.perf_counter()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "codedtool", *arguments, "--quiet"],
            cwd=folder,
            stdout=said,
            stderr=subprocess.STDOUT,
            env=environment,
        )
        # Its own peak, not that of all processes so far.
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            said.seek(0)
            raise SystemExit(f"codedtool {' '.join(arguments)}: {said.read().decode()}")
    return Cost(time.perf_counter() - start, usage.ru_maxrss / 1024)


if __name__ == "__main__":
    main()
