"""The page's part "classes": accuracy, codewords and confusions of every class, and its mean energies."""

from __future__ import annotations

from typing import Any

import torch

from codedtool.analysis.result import percent
from codedtool.report.paths import count_confusions
from codedtool.training.subject import Outputs, Subject

# For each class, the page names this many classes that it is most often taken for.
_CONFUSIONS = 3


def class_details(subject: Subject, outputs: Outputs) -> dict[str, Any]:
    """The details of the part "classes": accuracy of the network, the rows of the classes, and the mean energies."""
    return {
        "accuracy": float((outputs.predictions == outputs.targets).double().mean()),
        "num_images": len(outputs.targets),
        "classes": _classes(subject, outputs),
        "energies": _mean_energies(subject, outputs),
    }


def _classes(subject: Subject, outputs: Outputs) -> list[dict[str, Any]]:
    """For each class: its accuracy, its codewords, and the classes it is most often taken for."""
    counts_KK = count_confusions(outputs, len(subject.classes))
    found = []
    for k, name in enumerate(subject.classes):
        total = int(counts_KK[k].sum())
        others = counts_KK[k].clone()
        others[k] = 0
        order = others.argsort(descending=True, stable=True)[:_CONFUSIONS].tolist()
        found.append(
            {
                "index": k,
                "name": name,
                "num_images": total,
                "accuracy": percent(float(counts_KK[k, k]) / total if total else None),
                "confusions": [
                    {"name": subject.classes[other], "share": percent(float(others[other]) / total)}
                    for other in order
                    if others[other] > 0
                ],
                "codewords": [
                    (stage, "".join(map(str, scheme.table[k].tolist())))
                    for stage, scheme in subject.run.schemes.items()
                ],
            }
        )
    return found


def _mean_energies(subject: Subject, outputs: Outputs) -> list[list[list[int]]]:
    """For each coded block and class, the mean energy r E(tbar_n) of every subNN, in hundredths."""
    num_classes = len(subject.classes)
    images_K1 = torch.bincount(outputs.targets, minlength=num_classes).clamp_min(1)[:, None]
    found = []
    for block, energies_nN in zip(subject.network.coded_blocks, outputs.energies, strict=True):
        scheme = block.scheme
        sums_KN = torch.zeros(num_classes, scheme.length).index_add_(0, outputs.targets, energies_nN.float())
        means_KN = sums_KN / images_K1 * float(scheme.ratio)
        found.append([[round(100 * value) for value in row] for row in means_KN.tolist()])
    return found
