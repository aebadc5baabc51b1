"""CIFAR-10: coded and plain networks side by side, over several seeds, and what they give beside the paper's figures.

    python -m benchmarks.cifar10 --scale cpu
    python -m benchmarks.cifar10 --scale gpu --device cuda

Every step is one codedtool command, printed before it runs, so each can be run by hand. Run it from the repository's
root; runs go to runs/, and the same command goes on where it was stopped. Without --data the images are
torchvision's CIFAR-10, which is fetched on first use; --data folder:PATH and --ood folder:PATH take images that are
there already. The results page is written at the end: results-SCALE.md and .json, and figures.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.cifar10.results import collect, write_page
from benchmarks.commands import analyse, train
from codedtool.training.run import Run

HERE = Path(__file__).parent
PRESETS = {"cpu": "resnext23_10x3d", "gpu": "resnext29_10x11d"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--scale", choices=PRESETS, required=True)
    parser.add_argument("--data", default="cifar10", help="cifar10 or folder:PATH")
    parser.add_argument("--ood", default="cifar100", help="cifar100, or folder:PATH with val/")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--epochs", type=int, help="shorter than the scale's recipe, for both networks")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the results page")
    options = parser.parse_args()
    pairs = []
    for seed in range(options.seeds):
        names = {kind: f"cifar10-{options.scale}-{kind}-{seed}" for kind in ("coded", "plain")}
        coded, plain = (_train(kind, name, seed, options) for kind, name in names.items())
        _analyse(coded, plain, options, whole=seed == 0)
        pairs.append((coded, plain))
    write_page(collect(options.scale, pairs), options.out)


def _analyse(coded: Run, plain: Run, options: argparse.Namespace, *, whole: bool) -> None:
    """What the tables need; with ``whole`` everything, as two pages."""
    against_plain = ["--compare", str(plain.path), "--ood", options.ood]
    of_coded: dict[str, list[str]] = {
        "bc": against_plain,
        # The block of figure 2a.
        "specialize": ["--block", "s2.3"],
        "decode": [],
        "calibration": [],
    }
    steps = [("calibration", plain, "calibrate", [])]
    steps += [(file, coded, "calibrate" if file == "calibration" else file, more) for file, more in of_coded.items()]
    if whole:
        steps = [("../report.html", plain, "report", []), ("../report.html", coded, "report", against_plain)]
    for file, run, verb, more in steps:
        analyse(run, verb, *more, device=options.device, file=file if "." in file else f"{file}.json")


def _train(kind: str, name: str, seed: int, options: argparse.Namespace) -> Run:
    preset = PRESETS[options.scale]
    network = ["--preset", preset]
    if kind == "coded":
        network = ["--preset", f"coded_{preset}", "--scheme", "schemes/c10_5of10.npy", "--mu", "6"]
    epochs = [] if options.epochs is None else ["--epochs", str(options.epochs)]
    config = ["--config", f"benchmarks/cifar10/{options.scale}.toml", "--data", options.data]
    return train(name, *network, *config, *epochs, "--seed", str(seed), "--device", options.device)


if __name__ == "__main__":
    main()
