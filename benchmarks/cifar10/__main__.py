"""CIFAR-10: coded and plain networks side by side, over several seeds, and what they give beside the paper's figures.

    python -m benchmarks.cifar10 --scale cpu
    python -m benchmarks.cifar10 --scale gpu --device cuda
    timeout -s INT 580 python -m benchmarks.cifar10 --scale gpu --device cuda --minutes 25    # in calls of ten minutes

Every step is one codedtool command, printed before it runs, so each can be run by hand. Run it from the repository's
root; runs go to runs/, and the same command goes on where it was stopped. Without --data the images are
torchvision's CIFAR-10, which is fetched on first use; --data folder:PATH and --ood folder:PATH take images that are
there already. After every seed the results are written to --out: results-SCALE.json, which keeps the figures of every
seed, and the page results-SCALE.md. A seed that the file has already is not trained again, on whatever machine it was.
"""

from __future__ import annotations

import argparse
import subprocess
from pathlib import Path

from benchmarks.cifar10.figures import seed_figures
from benchmarks.cifar10.results import read_seeds, write_results
from benchmarks.commands import analyse, train, train_at_once
from codedtool.errors import InputError
from codedtool.training.recipes import recipe_for
from codedtool.training.run import DEFAULT_FOLDER, Run

# Training images of each class in the trainings that measure the speed.
_SPEED_IMAGES = 1000

PRESETS = {"cpu": "resnext17_10x8d", "gpu": "resnext29_10x11d"}
# The paper's recipe on a GPU, and one that two CPU cores finish in an hour.
RECIPES = {"cpu": ["--recipe", "cifar10-cpu"], "gpu": ["--recipe", "cifar10", "--precision", "bf16"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--scale", choices=PRESETS, required=True)
    parser.add_argument("--data", default="cifar10", help="cifar10 or folder:PATH")
    parser.add_argument("--ood", default="cifar100", help="cifar100, or folder:PATH with val/")
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0, 1, ...")
    parser.add_argument("--device", default="auto")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--epochs", type=int, help="shorter than the scale's recipe, for both networks")
    length.add_argument("--minutes", type=float, help="as many epochs as both networks of a seed train in this time")
    parser.add_argument("--out", type=Path, default=DEFAULT_FOLDER, help="folder of the results")
    options = parser.parse_args()
    if options.minutes is not None:
        options.epochs = _epochs_within(options)
    seeds = read_seeds(options.scale, options.out)
    for seed in range(options.seeds):
        if seed in (known["seed"] for known in seeds):
            print(f"seed {seed}: its figures are in {options.out}")
            continue
        coded, plain = _trained(seed, options)
        analyse(plain, "calibrate", device=options.device, file="calibration.json")
        against = ["--compare", str(plain.path), "--ood", options.ood]
        analyse(coded, "report", *against, device=options.device, file="../report.html")
        seeds.append(seed_figures(coded, plain))
        write_results(options.scale, seeds, options.out)
    print(write_results(options.scale, seeds, options.out), end="")


def _epochs_within(options: argparse.Namespace) -> int:
    """The epochs that fit the minutes, by the speed of short trainings; those of an earlier call, if there was one."""
    try:
        return Run.load(DEFAULT_FOLDER / f"cifar10-{options.scale}-coded-0").recipe.epochs
    except InputError:
        pass  # none has begun
    seconds = 0.0
    for kind in ("coded", "plain"):
        short = ["--epochs", "2", "--images-per-class", str(_SPEED_IMAGES)]
        run = train(f"cifar10-{options.scale}-{kind}-speed", *_arguments(kind, 0, options), *short)
        # In the first epoch the processes that prepare images load their libraries.
        speed = run.metrics()[1]["images_per_second"]
        data = run.origin()["data_set"]["fingerprint"]
        # An evaluation has no backward pass.
        seconds += (data["num_train"] + data["num_val"] / 3) / speed
        print(f"{kind}: {speed:.0f} images/s in training", flush=True)
    whole = recipe_for("cifar10", run.recipe.recipe).epochs
    epochs = max(1, min(whole, int(60 * options.minutes / seconds)))
    print(f"{epochs} of the recipe's {whole} epochs: both networks train one in {seconds:.0f} s", flush=True)
    return epochs


def _trained(seed: int, options: argparse.Namespace) -> list[Run]:
    """The coded and the plain network of a seed: on a CPU at once, else one after the other."""
    trainings = {
        f"cifar10-{options.scale}-{kind}-{seed}": _arguments(kind, seed, options) for kind in ("coded", "plain")
    }
    if options.scale == "cpu":
        return train_at_once(trainings)
    return [train(name, *arguments) for name, arguments in trainings.items()]


def _arguments(kind: str, seed: int, options: argparse.Namespace) -> list[str]:
    preset = PRESETS[options.scale]
    network = ["--preset", preset]
    if kind == "coded":
        network = ["--preset", f"coded_{preset}", "--scheme", "schemes/c10_5of10.npy"]
    epochs = [] if options.epochs is None else ["--epochs", str(options.epochs)]
    recipe = [*RECIPES[options.scale], *epochs, "--data", options.data, "--seed", str(seed)]
    return [*network, *recipe, "--device", options.device]


if __name__ == "__main__":
    try:
        main()
    except (KeyboardInterrupt, subprocess.CalledProcessError) as stop:
        # The interrupted command has said what it saved, or the failed one why.
        code = getattr(stop, "returncode", 130)
        if code == 130:
            print("interrupted: the same command goes on", flush=True)
        raise SystemExit(code) from None
