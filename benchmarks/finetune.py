"""Coded from a plain network's weights against coded from nothing, on CIFAR-10's images.

    python -m benchmarks.finetune
    python -m benchmarks.finetune --data folder:PATH --epochs 16 --preset resnext17_10x8d

A plain network trains first. Then coded networks train from its weights (``train --init``) and from nothing, each for
as many epochs and for a quarter of them. Every step is one codedtool command, printed before it runs; runs go to
runs/, and the same command goes on where it was stopped. The table is printed at the end.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from benchmarks.commands import analyse, read_document, train
from benchmarks.machine import describe_machine
from codedtool.training.run import DEFAULT_FOLDER, Run


@dataclass(frozen=True)
class Training:
    """One row of the table."""

    title: str
    key: str
    coded: bool
    share: float  # of the epochs
    from_plain: bool = False


TRAININGS = (
    Training("plain", "plain", coded=False, share=1.0),
    Training("coded from its weights", "init-quarter", coded=True, share=0.25, from_plain=True),
    Training("coded from nothing", "nothing-quarter", coded=True, share=0.25),
    Training("coded from its weights", "init", coded=True, share=1.0, from_plain=True),
    Training("coded from nothing", "nothing", coded=True, share=1.0),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--data", default="cifar10", help="cifar10 or folder:PATH")
    parser.add_argument("--preset", default="resnext23_10x3d", help="the plain network, N = 10")
    parser.add_argument("--epochs", type=int, default=8, help="a multiple of 4, at least 8")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lr", type=float, default=0.03, help="from trained weights; from nothing: finetune.toml's")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    if options.epochs < 8 or options.epochs % 4:
        # The warm-up of one epoch needs another one after it.
        parser.error("--epochs must be a multiple of 4, at least 8")
    rows = [(training, _run(training, options)) for training in TRAININGS]
    for training, run in rows:
        # A plain network has neither classifiers cut along a class's path nor early decoders.
        for verb in ("decode", "bc") if training.coded else ():
            analyse(run, verb, device=options.device)
    print(f"{describe_machine('torch')}; {options.preset}, {options.epochs} epochs, seed {options.seed}; %\n")
    print("| network | epochs | lr | accuracy | early decoders, first to last | classifiers: precision, recall, F1 |")
    print("|---|---|---|---|---|---|")
    for training, run in rows:
        print(f"| {training.title} | {run.recipe.epochs} | {run.recipe.lr:g} | {_figures(training, run)} |")


def _name(key: str, options: argparse.Namespace) -> str:
    return f"finetune-{options.preset}-{key}-{options.epochs}-{options.seed}"


def _run(training: Training, options: argparse.Namespace) -> Run:
    """The run of one row, trained to its end."""
    network = ["--preset", options.preset]
    if training.coded:
        network = ["--preset", f"coded_{options.preset}", "--scheme", "c10_5of10", "--scheme", "c10_3of10", "--mu", "6"]
    if training.from_plain:
        network += ["--init", str(DEFAULT_FOLDER / _name("plain", options)), "--lr", f"{options.lr:g}"]
    length = ["--epochs", str(round(options.epochs * training.share))]
    shared = ["--config", "benchmarks/finetune.toml", "--data", options.data, "--device", options.device]
    return train(_name(training.key, options), *network, *length, *shared, "--seed", str(options.seed))


def _figures(training: Training, run: Run) -> str:
    accuracy = 100 * float(run.metrics()[-1]["val_accuracy"])
    if not training.coded:
        return f"{accuracy:.2f} | | "
    decoders = " ".join(f"{100 * share:.1f}" for share in read_document(run, "decode")["decoder_accuracy"].values())
    means = next(row for row in read_document(run, "bc")["means"] if row["source"] == "coded BC")
    classifiers = " ".join(f"{100 * means[f'val_{key}']:.1f}" for key in ("precision", "recall", "f1"))
    return f"{accuracy:.2f} | {decoders} | {classifiers}"


if __name__ == "__main__":
    main()
