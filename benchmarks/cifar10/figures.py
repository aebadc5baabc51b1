"""The figures of one seed, gathered from the files of its coded and its plain run; shares are 0..1."""

from __future__ import annotations

from statistics import median
from typing import Any

from benchmarks.commands import read_document
from benchmarks.machine import describe_machine
from codedtool.training.devices import device_kind
from codedtool.training.run import Run

# Early exit whose figures the page shows beside the table of all: the lead of the nearest codeword (section 4.4).
EXIT = "margin:0.15"


def seed_figures(coded: Run, plain: Run) -> dict[str, Any]:
    """Everything that the page says about one seed.

    Args:
        coded, plain: the two runs of the seed, with the files that `report` left in them.
    """
    classifiers, decode = read_document(coded, "bc"), read_document(coded, "decode")
    return {
        "seed": coded.recipe.seed,
        "machine": describe_machine("torch", device=device_kind(coded.recipe)),
        "recipes": {
            # Where the images lie is nobody else's business.
            kind: {key: value for key, value in run.recipe.to_json().items() if key not in ("data", "data_dir")}
            for kind, run in (("coded", coded), ("plain", plain))
        },
        "images_per_second": {kind: _speed(run) for kind, run in (("coded", coded), ("plain", plain))},
        "accuracy": {kind: _accuracy(run) for kind, run in (("coded", coded), ("plain", plain))},
        "classifiers": {row["source"]: _without(row, "source", "classes") for row in classifiers["means"]},
        "classifier_f1": {
            row["class"]: row["val_f1"] for row in classifiers["classifiers"] if row["source"] == "coded BC"
        },
        "decoders": decode["decoder_accuracy"],
        "agreement": decode["agreement"],
        "exits": {row["rule"]: _without(row, "rule", "exits", "macs") for row in decode["exits"]},
        "specialization": {
            block["block"]: _without(block, "block") for block in read_document(coded, "specialize")["blocks"]
        },
        "activations": [
            {"subnn": panel["subnn"]} | {part: panel[part]["mean"] for part in ("active", "inactive")}
            for panel in read_document(coded, "activations")["subnns"]
        ],
        "calibration": {kind: _calibration(run) for kind, run in (("coded", coded), ("plain", plain))},
        "ood": [_without(row, "threshold") for row in read_document(coded, "ood")["scores"]],
    }


def _accuracy(run: Run) -> float:
    return float(run.metrics()[-1]["val_accuracy"])


def _speed(run: Run) -> float:
    """Training images/s of the median epoch: in some, other work or a pause takes the machine."""
    return median(float(row["images_per_second"]) for row in run.metrics())


def _calibration(run: Run) -> list[dict[str, Any]]:
    methods = read_document(run, "calibration")["methods"]
    return [
        {
            "fit_share": row["fit_share"],
            "method": row["method"],
            "ece": row["ece_mean"],
            "mce": row["mce_mean"],
        }
        for row in methods
    ]


def _without(row: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in keys}
