"""How true the confidence is that `codedtool predict` prints, and which foreign images it tells.

    python -m benchmarks.confidence [--run RUN] [--repeats 41] [--ood synthetic:10]

The validation images of a run are divided into halves, again and again. Each time the confidence is fitted on one half
(`Evidence.confidence`) and its expected calibration error (ECE) is measured on the other one, beside that of softmax
and of the bare rows of table 3. Then the thresholds of all validation images are tried on foreign images. Without
--run, digits are trained first, in a temporary folder. Run it from the repository's root.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import torch

from benchmarks.block import SCHEMES
from benchmarks.machine import describe_machine
from codedtool.analysis.calibration import expected_calibration_error, stratified_splits
from codedtool.coding.scheme import CodingScheme
from codedtool.data import Split, load_dataset
from codedtool.training.evidence import Evidence, shared_thresholds, unlike_scores
from codedtool.training.recipes import recipe_for
from codedtool.training.run import Run
from codedtool.training.subject import Outputs, Subject, collect_outputs, opened_run
from codedtool.training.train import train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--run", type=Path)
    parser.add_argument("--repeats", type=int, default=41)
    parser.add_argument("--ood", default="synthetic:10")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = Run.load(options.run) if options.run else _digits(Path(folder))
        with opened_run(run, changes={"num_workers": 0}) as subject:
            outputs = subject.outputs()
            print(f"{describe_machine('torch', 'scikit-learn')}; {run.recipe.data}, {len(outputs.targets)} images\n")
            _calibration(outputs, options.repeats)
            _foreign(subject, outputs, options.ood)


def _digits(folder: Path) -> Run:
    schemes = {
        stage: CodingScheme.load(SCHEMES / f"{name}.npy") for stage, name in (("s2", "c10_5of10"), ("s3", "c10_3of10"))
    }
    recipe = recipe_for("digits").with_values({"preset": "coded_resnext_tiny"})
    return train(recipe, schemes, run_name="digits", folder=folder).run


def _calibration(outputs: Outputs, repeats: int) -> None:
    """Print the ECE of each way, on images that did not fit it."""
    right_n = outputs.predictions == outputs.targets
    agreeing_n = (outputs.decoded == outputs.predictions[:, None]).sum(1)
    softmax_n = outputs.logits.double().softmax(1).amax(1)
    found: dict[str, list[float]] = {"predict": [], "bare rows of table 3": [], "softmax": []}
    certain, wrong = 0, 0
    for fit, test in stratified_splits(outputs.targets, 0.5, repeats=repeats):
        rows = []
        for number in range(outputs.decoded.shape[1] + 1):
            mine = right_n[fit][agreeing_n[fit] == number]
            rows.append((len(mine), int(mine.sum())))
        evidence = Evidence(0, outputs.logits.shape[1], tuple(rows), {})
        fitted = torch.tensor([one.value for one in evidence.confidence()])
        found["predict"].append(_ece(fitted[agreeing_n[test]], right_n[test]))
        bare_n = torch.tensor(_bare(rows))[agreeing_n[test]]
        found["bare rows of table 3"].append(_ece(bare_n, right_n[test]))
        found["softmax"].append(_ece(softmax_n[test], right_n[test]))
        few = torch.tensor([number <= 30 for number, _ in rows])[agreeing_n[test]]
        certain += int((few & (bare_n == 1)).sum())
        wrong += int((few & (bare_n == 1) & ~right_n[test]).sum())
    print(f"| confidence | ECE, % (mean ± deviation of {repeats} halves) |")
    print("|---|---|")
    for name, values in found.items():
        print(f"| {name} | {100 * mean(values):.2f} ± {100 * stdev(values):.2f} |")
    print(f"\nbare rows of at most 30 images said 100% of {certain} answers, of which {wrong} were wrong\n")


def _bare(rows: list[tuple[int, int]]) -> list[float]:
    """The accuracy of every row; a row without images borrows that of the nearest row below, else of the first."""
    values = [right / number if number else None for number, right in rows]
    last = next(value for value in values if value is not None)
    filled = []
    for value in values:
        last = last if value is None else value
        filled.append(last)
    return filled


def _ece(confidence_n: torch.Tensor, right_n: torch.Tensor) -> float:
    return expected_calibration_error(confidence_n, right_n).ece


def _foreign(subject: Subject, outputs: Outputs, ood: str) -> None:
    """Print the share of images that are called unlike the training images."""
    rng = np.random.default_rng(0)
    val = subject.data.val
    assert isinstance(val.images, np.ndarray), "images in memory, all of one size"
    shape = (300, *val.images.shape[1:3])
    sets = {
        ood: load_dataset(ood).val,
        "noise": _split(rng.integers(0, 256, (*shape, 3))),
        "grey noise": _split(np.repeat(rng.integers(0, 256, (*shape, 1)), 3, axis=3)),
        "one grey each": _split(np.broadcast_to(np.arange(256)[:, None, None, None], (256, *shape[1:], 3))),
        "own images, inverted": _split(255 - val.images),
        "own images, turned by 90 degrees": _split(np.rot90(val.images, axes=(1, 2))),
    }
    scores_nS = _scores(subject, outputs)
    thresholds_S = np.array(shared_thresholds(scores_nS))
    print("| images | called unlike the training images, % |")
    print("|---|---|")
    own = []
    for fit, test in stratified_splits(outputs.targets, 0.5, repeats=11):
        own.append(float((scores_nS[test] > shared_thresholds(scores_nS[fit])).any(1).mean()))
    print(f"| own, the half that did not give the thresholds | {100 * mean(own):.1f} |")
    for name, split in sets.items():
        found = _scores(subject, collect_outputs(subject, split))
        print(f"| {name} | {100 * (found > thresholds_S).any(1).mean():.1f} |")


def _scores(subject: Subject, outputs: Outputs) -> np.ndarray:
    return unlike_scores(outputs.logits, outputs.energies, subject.network).double().numpy()


def _split(images: np.ndarray) -> Split:
    return Split(np.ascontiguousarray(images, dtype=np.uint8), np.zeros(len(images), dtype=np.int64))


if __name__ == "__main__":
    main()
