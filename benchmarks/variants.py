"""The ablations on scikit-learn's digits: accuracy, early decoders and binary classifiers of each, over seeds.

    python -m benchmarks.variants [--seeds 3] [--epochs 10]

Small enough for two CPU cores; a run that is there already (runs/variants) is taken as it is. Run it from the
repository's root.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from statistics import mean, stdev
from typing import Any

# Before torch: idle threads sleep instead of spinning.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from benchmarks.block import SCHEMES
from benchmarks.commands import read_document
from benchmarks.machine import describe_machine
from codedtool.analysis.sweep import SweepPoint, sweep
from codedtool.coding.scheme import CodingScheme
from codedtool.models import assign_schemes
from codedtool.training.recipes import recipe_for
from codedtool.training.run import DEFAULT_FOLDER, Run

FIVE, THREE = (CodingScheme.load(SCHEMES / f"c10_{act}of10.npy") for act in (5, 3))
TINY, MOBILE = "coded_resnext_tiny", "coded_mobilenetv2_10"

# What is varied -> preset, ratio order, changed values of the digits' recipe.
VARIANTS: Mapping[str, tuple[str, tuple[CodingScheme, ...], dict[str, Any]]] = {
    "the paper's": (TINY, (FIVE, THREE), {}),
    "exponent 2 (3.1.2)": (TINY, (FIVE, THREE), {"exponent": 2.0}),
    "exponent 1 (3.1.2)": (TINY, (FIVE, THREE), {"exponent": 1.0}),
    "threshold 0.2 (3.1.2)": (TINY, (FIVE, THREE), {"threshold": 0.2}),
    "ratios 3/10, 5/10 (3.2.1)": (TINY, (THREE, FIVE), {}),
    "permutation 1 (3.2.1)": (TINY, (FIVE, THREE), {"permutation": 1}),
    "permutation 2 (3.2.1)": (TINY, (FIVE, THREE), {"permutation": 2}),
    "concatenated (4.3.1)": (TINY, (FIVE, THREE), {"concatenate": True}),
    "no Energy Normalization": (TINY, (FIVE, THREE), {"energy_norm": False}),
    "gradient masking (E)": (TINY, (FIVE, THREE), {"gradient_masking": True, "mu": 0.0}),
    "gradient masking, no shortcuts (E)": (
        TINY,
        (FIVE, THREE),
        {"gradient_masking": True, "mu": 0.0, "shortcuts": False},
    ),
    "no shortcuts": (TINY, (FIVE, THREE), {"shortcuts": False}),
    "plain ResNeXt": ("resnext_tiny", (), {}),
    "coded MobileNetV2 (E)": (MOBILE, (FIVE, THREE), {}),
    "plain MobileNetV2": ("mobilenetv2_10", (), {}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=10)
    options = parser.parse_args()
    print(f"{describe_machine('torch')}; digits, {options.epochs} epochs, {options.seeds} seeds, %\n", flush=True)
    print("| variant | accuracy | last early decoder | BC precision | BC recall | BC F1 |")
    print("|---|---|---|---|---|---|", flush=True)
    for number, (name, (preset, given, changes)) in enumerate(VARIANTS.items()):
        recipe = recipe_for("digits").with_values({"preset": preset, "epochs": options.epochs, "precision": "fp32"})
        stages = ("s2", "s3") if preset == TINY else None
        schemes = assign_schemes(preset, given, stages=stages) if given else {}
        folder = DEFAULT_FOLDER / "variants" / str(number)
        # A grid of one point.
        vary = {key: (value,) for key, value in (changes or {"mu": recipe.mu}).items()}
        point = sweep(recipe, schemes, vary, folder=folder, num_seeds=options.seeds).points[0]
        print(f"| {name} | {' | '.join(_figures(point))} |", flush=True)


def _figures(point: SweepPoint) -> list[str]:
    decoders = [name for name in point.figures if name.startswith("decoder_")]
    figures = [_shown(*point.figures["accuracy"]), _shown(*point.figures[decoders[-1]]) if decoders else ""]
    if not decoders:
        return [*figures, "", "", ""]
    tables = [read_document(Run.load(Path(run)), "sweep_bc") for run in point.runs]
    for key in ("val_precision", "val_recall", "val_f1"):
        values = [table[key] for table in tables]
        figures.append(_shown(mean(values), stdev(values) if len(values) > 1 else 0.0))
    return figures


def _shown(middle: float, deviation: float) -> str:
    return f"{100 * middle:.1f} ± {100 * deviation:.1f}"


if __name__ == "__main__":
    main()
