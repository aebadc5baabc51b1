"""What the runs of one scale gave, gathered from their files and set beside the paper's figures."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from benchmarks.commands import read_document
from benchmarks.machine import describe_machine
from codedtool.analysis.artifacts import artifact_path
from codedtool.files import write_atomically
from codedtool.training.run import Run

# Pictures of the first coded run that the page shows.
FIGURES = ("bc", "specialize", "decode", "calibration")

# Sections 4.2 to 4.4, appendix C and table 2, on CIFAR-10; per cent.
PAPER_ACCURACY = {"coded": 94.41, "plain": 93.66}
PAPER_CLASSIFIERS = {"coded BC": (93, 77, 84), "plain BC": (13, 56, None), "plain network's logit": (79, 94, 86)}
PAPER_AGREEMENT = (52.0, 67.7, 77.2, 83.2, 89.9, 92.1, 98.1)
PAPER_CALIBRATION = {
    (0.25, "h_T"): (0.70, 24.35),
    (0.25, "h_aug"): (0.70, 24.14),
    (0.5, "h_T"): (0.80, 24.83),
    (0.5, "h_aug"): (0.80, 23.64),
}


def collect(scale: str, pairs: Sequence[tuple[Run, Run]]) -> dict[str, Any]:
    """Everything that the page says, plain types; ``pairs`` has the coded and the plain run of every seed."""
    coded, plain = ([pair[number] for pair in pairs] for number in (0, 1))
    recipe = coded[0].recipe
    return {
        "scale": scale,
        "machine": describe_machine("torch"),
        # Where the images lie is nobody else's business.
        "recipe": {key: value for key, value in recipe.to_json().items() if key not in ("data", "data_dir")},
        "seeds": [run.recipe.seed for run in coded],
        "accuracy": {"coded": _last(coded, "val_accuracy"), "plain": _last(plain, "val_accuracy")},
        "classifiers": _classifiers(coded),
        "worst": _worst(coded),
        "decoders": _decoders(coded),
        "agreement": _agreement(coded),
        "specialization": _specialization(coded),
        "calibration": {"coded": _calibration(coded), "plain": _calibration(plain)},
        "figures": {name: str(artifact_path(coded[0], f"{name}.png")) for name in FIGURES},
    }


def write_page(results: dict[str, Any], folder: Path) -> None:
    """results-SCALE.json and .md and the figures."""
    scale = results["scale"]
    for name, source in results.pop("figures").items():
        shutil.copyfile(source, folder / f"{scale}-{name}.png")
    write_atomically(folder / f"results-{scale}.json", (json.dumps(results, indent=1) + "\n").encode())
    text = "\n".join(_page(results))
    write_atomically(folder / f"results-{scale}.md", f"{text}\n".encode())
    print(text)


def _page(results: dict[str, Any]) -> Iterable[str]:
    recipe, scale = results["recipe"], results["scale"]
    images = f"{recipe['images_per_class']} images per class" if recipe["images_per_class"] else "all images"
    yield f"# CIFAR-10 at scale {scale}\n"
    yield f"{results['machine']}.\n"
    yield (
        f"`{recipe['preset']}` and its plain control, {recipe['epochs']} epochs of {images}, batch "
        f"{recipe['batch_size']}, {len(results['seeds'])} seeds: means and sample standard deviations, %. All 10,000 "
        "validation images, the last checkpoint. The paper: `coded_resnext29_10x11d`, 300 epochs of all images.\n"
    )
    accuracy = results["accuracy"]
    yield "| | coded | plain | paper, coded | paper, plain |\n|---|---|---|---|---|"
    yield (
        f"| accuracy | {_percent(accuracy['coded'])} | {_percent(accuracy['plain'])} "
        f"| {PAPER_ACCURACY['coded']} | {PAPER_ACCURACY['plain']} |"
    )
    yield "\n## Binary classifiers (section 4.3)\n"
    yield (
        "Means over the ten classes; thresholds of highest F1 on the training images. OOD: the negatives are "
        "CIFAR-100's validation images.\n"
    )
    yield "| | precision | recall | F1 | AP | precision, OOD | paper: precision, recall, F1 |"
    yield "|---|---|---|---|---|---|---|"
    for source, figures in results["classifiers"].items():
        paper = PAPER_CLASSIFIERS.get(source, ())
        said = ", ".join("-" if value is None else str(value) for value in paper)
        keys = ("val_precision", "val_recall", "val_f1", "val_average_precision", "ood_precision")
        yield f"| {source} | {' | '.join(_percent(figures[key]) for key in keys)} | {said} |"
    worst = results["worst"]
    yield (
        f"\nThe coded classifier of lowest F1 is that of `{worst['class']}`: {_percent(worst['f1'])} "
        '(the paper: "cat", with OOD negatives).'
    )
    yield "\n## Early decoders (section 4.4, figure 4)\n"
    yield f"| {' | '.join(results['decoders'])} | final |\n|{'---|' * (len(results['decoders']) + 1)}"
    yield f"| {' | '.join(_percent(v) for v in results['decoders'].values())} | {_percent(accuracy['coded'])} |"
    yield "\n## Final accuracy by agreeing early decoders (table 3)\n"
    yield "| agreeing | images, mean | accuracy | paper |\n|---|---|---|---|"
    for row, paper in zip(results["agreement"], PAPER_AGREEMENT, strict=True):
        yield f"| {row['agreeing']} | {mean(row['images']):.0f} | {_percent(row['accuracy'])} | {paper} |"
    yield "\n## Specialization (section 4.2, figure 2a)\n"
    whole, *_ = next(iter(results["specialization"].values()))
    yield f"Accuracy without k subNNs of block s2.3; without none {_percent(whole)}.\n"
    sizes = range(1, max(len(curve) for curve in results["specialization"].values()))
    yield f"| removed | {' | '.join(f'k = {k}' for k in sizes)} |\n|{'---|' * (len(sizes) + 1)}"
    for kind, curve in results["specialization"].items():
        yield f"| {kind} | {' | '.join(_percent(value) for value in curve[1:])} |"
    yield "\n## Calibration (appendix C, table 6)\n"
    yield "| network | images to fit | method | ECE | MCE | paper: ECE, MCE |\n|---|---|---|---|---|---|"
    for kind, rows in results["calibration"].items():
        for row in rows:
            known = PAPER_CALIBRATION.get((row["fit_share"], row["method"])) if kind == "coded" else None
            said = f"{known[0]:.2f}, {known[1]:.2f}" if known else ""
            figures = f"{_percent(row['ece'], digits=2)} | {_percent(row['mce'], digits=2)}"
            yield f"| {kind} | {row['fit_share']:.0%} | {row['method']} | {figures} | {said} |"


def _percent(values: Sequence[float | None], *, digits: int = 1) -> str:
    """Mean and, of several, sample standard deviation of shares, in per cent; of those that there are."""
    found = [100 * value for value in values if value is not None]
    if not found:
        return ""
    return f"{mean(found):.{digits}f}" + (f" ± {stdev(found):.{digits}f}" if len(found) > 1 else "")


def _last(runs: Sequence[Run], key: str) -> list[float]:
    return [float(run.metrics()[-1][key]) for run in runs]


def _classifiers(runs: Sequence[Run]) -> dict[str, dict[str, list[float]]]:
    """Source -> figure -> one mean over classes per seed."""
    tables = [{row["source"]: row for row in read_document(run, "bc")["means"]} for run in runs]
    return {
        source: {key: [table[source][key] for table in tables] for key in row if key not in ("source", "classes")}
        for source, row in tables[0].items()
    }


def _worst(runs: Sequence[Run]) -> dict[str, Any]:
    """The coded classifier of lowest F1, mean over seeds."""
    scores: dict[str, list[float]] = {}
    for run in runs:
        for row in read_document(run, "bc")["classifiers"]:
            if row["source"] == "coded BC":
                scores.setdefault(row["class"], []).append(row["val_f1"])
    name = min(scores, key=lambda key: mean(scores[key]))
    return {"class": name, "f1": scores[name]}


def _decoders(runs: Sequence[Run]) -> dict[str, list[float]]:
    return _transposed([read_document(run, "decode")["decoder_accuracy"] for run in runs])


def _agreement(runs: Sequence[Run]) -> list[dict[str, Any]]:
    tables = [read_document(run, "decode")["agreement"] for run in runs]
    return [
        {
            "agreeing": rows[0]["agreeing"],
            "images": [row["num_images"] for row in rows],
            "accuracy": [row["accuracy"] for row in rows],
        }
        for rows in zip(*tables, strict=True)
    ]


def _specialization(runs: Sequence[Run]) -> dict[str, list[list[float]]]:
    """active and inactive -> for k = 0, 1, ... one accuracy per seed."""
    blocks = [next(b for b in read_document(run, "specialize")["blocks"] if b["block"] == "s2.3") for run in runs]
    return {
        kind: [list(values) for values in zip(*(block[kind] for block in blocks), strict=True)]
        for kind in ("active", "inactive")
    }


def _calibration(runs: Sequence[Run]) -> list[dict[str, Any]]:
    tables = [read_document(run, "calibration")["methods"] for run in runs]
    return [
        {
            "fit_share": rows[0]["fit_share"],
            "method": rows[0]["method"],
            "ece": [row["ece_mean"] for row in rows],
            "mce": [row["mce_mean"] for row in rows],
        }
        for rows in zip(*tables, strict=True)
    ]


def _transposed(tables: Sequence[dict[str, float]]) -> dict[str, list[float]]:
    return {key: [table[key] for table in tables] for key in tables[0]}
