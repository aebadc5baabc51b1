"""The results of one scale: the figures of every seed, and the page that sets them beside the paper's."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import mean

from benchmarks.cifar10.claims import Seed, claims, percent
from codedtool.errors import InputError
from codedtool.files import read_json, write_atomically
from codedtool.training.recipe import settings

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

# Values that may differ between the seeds of one page.
_MAY_DIFFER = {key for key, setting in settings().items() if not setting.decides_result} | {"seed"}


def results_file(scale: str, folder: Path) -> Path:
    """The file that keeps the figures of every seed."""
    return folder / f"results-{scale}.json"


def read_seeds(scale: str, folder: Path) -> list[Seed]:
    """The figures of the seeds that earlier calls finished; none where there is no file."""
    file = results_file(scale, folder)
    seeds: list[Seed] = read_json(file)["seeds"] if file.exists() else []
    return seeds


def write_results(scale: str, seeds: Sequence[Seed], folder: Path) -> str:
    """Write results-SCALE.json and .md.

    Returns:
        The page.

    Raises:
        InputError: the seeds were not trained with one recipe.
    """
    seeds = sorted(seeds, key=lambda seed: int(seed["seed"]))
    for seed in seeds[1:]:
        _check_same_recipe(seeds[0], seed)
    document = {"scale": scale, "seeds": seeds}
    write_atomically(results_file(scale, folder), (json.dumps(document, indent=1) + "\n").encode())
    page = "\n".join(_page(scale, seeds)) + "\n"
    write_atomically(folder / f"results-{scale}.md", page.encode())
    return page


def _check_same_recipe(first: Seed, other: Seed) -> None:
    different = {
        key
        for kind, recipe in first["recipes"].items()
        for key, value in recipe.items()
        if key not in _MAY_DIFFER and other["recipes"][kind].get(key) != value
    }
    if different:
        raise InputError(
            f"seed {other['seed']} was trained with other values of {', '.join(sorted(different))} than seed "
            f"{first['seed']}: give the results another folder"
        )


def _page(scale: str, seeds: Sequence[Seed]) -> Iterable[str]:
    recipe = seeds[0]["recipes"]["coded"]
    images = f"{recipe['images_per_class']} images per class" if recipe["images_per_class"] else "all images"
    yield f"# CIFAR-10 at scale {scale}\n"
    yield f"{'; '.join(dict.fromkeys(seed['machine'] for seed in seeds))}.\n"
    yield (
        f"`{recipe['preset']}` and its plain control, {recipe['epochs']} epochs of {images}, batch "
        f"{recipe['batch_size']}, {recipe['precision']}, {_count(len(seeds), 'seed')}: means and sample standard "
        "deviations, %. All 10,000 validation images, the last checkpoint. The paper: `coded_resnext29_10x11d`, 300 "
        "epochs of all images.\n"
    )
    yield "## What the paper claims\n"
    yield (
        "A claim is decided where the mean of what every seed says is more than a sample standard deviation from zero; "
        "one seed decides nothing.\n"
    )
    yield "| claim | here | verdict |\n|---|---|---|"
    for claim in claims(seeds):
        yield f"| {claim.text} | {claim.figures} | {claim.verdict} |"
    yield from _accuracy(seeds)
    yield from _classifiers(seeds)
    yield from _decoders(seeds)
    yield from _specialization(seeds)
    yield from _activations(seeds)
    yield from _calibration(seeds)
    yield from _ood(seeds)


def _accuracy(seeds: Sequence[Seed]) -> Iterable[str]:
    yield "\n## Accuracy (table 2)\n"
    yield "| | coded | plain | paper, coded | paper, plain |\n|---|---|---|---|---|"
    cells = " | ".join(percent((seed["accuracy"][kind] for seed in seeds), digits=2) for kind in PAPER_ACCURACY)
    yield f"| accuracy | {cells} | {' | '.join(map(str, PAPER_ACCURACY.values()))} |"
    speeds = " | ".join(
        percent((seed["images_per_second"][kind] for seed in seeds), digits=0, scale=1) for kind in PAPER_ACCURACY
    )
    yield f"| training, images/s of the median epoch | {speeds} | | |"


def _classifiers(seeds: Sequence[Seed]) -> Iterable[str]:
    yield "\n## Binary classifiers (section 4.3)\n"
    yield (
        "Means over the ten classes; thresholds of highest F1 on the training images. OOD: the negatives are "
        "CIFAR-100's validation images.\n"
    )
    yield "| | precision | recall | F1 | AP | precision, OOD | paper: precision, recall, F1 |"
    yield "|---|---|---|---|---|---|---|"
    for source in seeds[0]["classifiers"]:
        paper = PAPER_CLASSIFIERS.get(source, ())
        said = ", ".join("-" if value is None else str(value) for value in paper)
        keys = ("val_precision", "val_recall", "val_f1", "val_average_precision", "ood_precision")
        cells = " | ".join(percent(seed["classifiers"][source][key] for seed in seeds) for key in keys)
        yield f"| {source} | {cells} | {said} |"


def _decoders(seeds: Sequence[Seed]) -> Iterable[str]:
    yield "\n## Early decoders (section 4.4, figure 4)\n"
    blocks = list(seeds[0]["decoders"])
    yield f"| {' | '.join(blocks)} | final |\n|{'---|' * (len(blocks) + 1)}"
    cells = " | ".join(percent(seed["decoders"][block] for seed in seeds) for block in blocks)
    yield f"| {cells} | {percent(seed['accuracy']['coded'] for seed in seeds)} |"
    yield "\nFinal accuracy by agreeing early decoders (table 3; the paper's network has six):\n"
    yield "| agreeing | images, mean | accuracy | paper |\n|---|---|---|---|"
    tables = [seed["agreement"] for seed in seeds]
    same = len(tables[0]) == len(PAPER_AGREEMENT)
    for number, rows in enumerate(zip(*tables, strict=True)):
        paper = PAPER_AGREEMENT[number] if same else ""
        yield (
            f"| {rows[0]['agreeing']} | {mean(row['num_images'] for row in rows):.0f} "
            f"| {percent(row['accuracy'] for row in rows)} | {paper} |"
        )
    yield "\nEarly exits: accuracy, and cost in per cent of the whole network:\n"
    yield "| rule | accuracy | multiply-adds | measured time |\n|---|---|---|---|"
    for rule in seeds[0]["exits"]:
        cells = " | ".join(
            percent(seed["exits"][rule][key] for seed in seeds) for key in ("accuracy", "macs_ratio", "time_ratio")
        )
        yield f"| {rule} | {cells} |"


def _specialization(seeds: Sequence[Seed]) -> Iterable[str]:
    yield "\n## Specialization (section 4.2, figures 2a and 9)\n"
    yield f"Accuracy without k subNNs of a block; without none {percent(s['accuracy']['coded'] for s in seeds)}.\n"
    blocks = seeds[0]["specialization"]
    most = max(len(block[kind]) for block in blocks.values() for kind in ("active", "inactive"))
    yield f"| block, removed | {' | '.join(f'k = {k}' for k in range(1, most))} |\n|{'---|' * most}"
    for block in blocks:
        for kind in ("active", "inactive"):
            curves = zip(*(seed["specialization"][block][kind] for seed in seeds), strict=True)
            cells = [percent(values) for values in curves][1:]
            yield f"| {block}, {kind} | {' | '.join(cells + [''] * (most - 1 - len(cells)))} |"


def _activations(seeds: Sequence[Seed]) -> Iterable[str]:
    yield "\n## Activations (appendix F.1, figure 6)\n"
    yield "Mean absolute output of the first subNNs of a block, after Energy Normalization.\n"
    yield "| subNN | its classes | other classes |\n|---|---|---|"
    for panels in zip(*(seed["activations"] for seed in seeds), strict=True):
        cells = [percent((panel[part] for panel in panels), digits=3, scale=1) for part in ("active", "inactive")]
        yield f"| {panels[0]['subnn']} | {' | '.join(cells)} |"


def _calibration(seeds: Sequence[Seed]) -> Iterable[str]:
    yield "\n## Calibration (appendix C, table 6)\n"
    yield "| network | images to fit | method | ECE | MCE | paper: ECE, MCE |\n|---|---|---|---|---|---|"
    for kind in ("coded", "plain"):
        for rows in zip(*(seed["calibration"][kind] for seed in seeds), strict=True):
            first = rows[0]
            known = PAPER_CALIBRATION.get((first["fit_share"], first["method"])) if kind == "coded" else None
            said = f"{known[0]:.2f}, {known[1]:.2f}" if known else ""
            figures = " | ".join(percent((row[key] for row in rows), digits=2) for key in ("ece", "mce"))
            yield f"| {kind} | {first['fit_share']:.0%} | {first['method']} | {figures} | {said} |"


def _ood(seeds: Sequence[Seed]) -> Iterable[str]:
    yield "\n## Out-of-distribution detection\n"
    yield "CIFAR-10's validation images against CIFAR-100's; false positives at 95% recall.\n"
    yield "| network, score | AUROC | false positives |\n|---|---|---|"
    for rows in zip(*(seed["ood"] for seed in seeds), strict=True):
        cells = " | ".join(percent(row[key] for row in rows) for key in ("auroc", "fpr95"))
        yield f"| {rows[0]['network']}, {rows[0]['score']} | {cells} |"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
