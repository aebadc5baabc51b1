"""Confusions between classes, and the subNNs that their codewords share: data for the page's part "paths".

Shape suffixes: K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from codedtool.analysis.result import Table, percent
from codedtool.coding.scheme import CodingScheme
from codedtool.models.places import parse_place
from codedtool.training.subject import Outputs, Subject

# The table of the most confused pairs of classes has at most so many rows.
_MOST_PAIRS = 20


def path_details(subject: Subject, outputs: Outputs) -> dict[str, Any]:
    """The details of the part "paths": the classes that the images of every class are taken for."""
    return {"confusion": sparse_rows(count_confusions(outputs, len(subject.classes)).tolist())}


def count_confusions(outputs: Outputs, num_classes: int) -> torch.Tensor:
    """The confusion matrix: (K, K) int64, entry (i, j) counts the images of class i that are taken for class j."""
    counts_KK = torch.zeros(num_classes, num_classes, dtype=torch.int64)
    one = torch.ones(1, dtype=torch.int64)
    return counts_KK.index_put_((outputs.targets, outputs.predictions), one, accumulate=True)


def sparse_rows(confusion: Sequence[Sequence[int]]) -> list[list[int]]:
    """The entries of a confusion matrix that are not zero, a flat list for each row: class, images, class, images, ...

    Example:
        >>> sparse_rows([[3, 0], [1, 2]])
        [[0, 3], [0, 1, 1, 2]]
    """
    return [[value for j, count in enumerate(row) if count for value in (j, count)] for row in confusion]


def coded_structure(subject: Subject) -> dict[str, Any]:
    """The schemes and coded blocks of a network, in JSON's types.

    Returns:
        "schemes": for every scheme, the place it codes (such as "s3") and its codewords as texts of 0s and 1s.
        "blocks": for every coded block, its name and the number of its scheme.
    """
    places = [parse_place(text) for text in subject.run.schemes]
    return {
        "schemes": [
            {"place": place, "codewords": ["".join(map(str, row)) for row in scheme.table.tolist()]}
            for place, scheme in subject.run.schemes.items()
        ],
        "blocks": [
            {
                "name": block.name,
                "scheme": next(i for i, place in enumerate(places) if place.has(block.stage, block.number)),
            }
            for block in subject.network.coded_blocks
        ],
    }


def shared_subnns(scheme: CodingScheme, one: int, other: int) -> tuple[int, ...]:
    """The subNNs, from 0, that are active in the codewords of both classes.

    Example:
        >>> shared_subnns(CodingScheme(np.array([[1, 1, 0, 0], [0, 1, 1, 0]], dtype=np.uint8)), 0, 1)
        (1,)
    """
    return tuple(np.flatnonzero(scheme.table[one] & scheme.table[other]).tolist())


def confused_pairs(
    classes: Sequence[str], confusion: Sequence[Sequence[int]], schemes: Mapping[str, CodingScheme]
) -> tuple[Table, ...]:
    """The table of the most confused pairs of classes; none if no image is taken for another class.

    Args:
        classes: names of the K classes.
        confusion: (K, K) numbers of images, as `EvalResult.confusion`.
        schemes: the schemes by their places. Each adds a column: how many subNNs the two codewords share.
    """
    pairs = [(count, i, j) for i, row in enumerate(confusion) for j, count in enumerate(row) if count and i != j]
    if not pairs:
        return ()
    shown = sorted(pairs, key=lambda pair: -pair[0])[:_MOST_PAIRS]
    caption = "The most confused pairs of classes"
    if len(pairs) > len(shown):
        caption += f": {len(shown)} of {len(pairs):,}"
    header = ("class", "taken for", "images", "% of the class", *(f"shared subNNs, {place}" for place in schemes))
    rows = tuple(
        (
            classes[i],
            classes[j],
            f"{count:,}",
            percent(count / sum(confusion[i])),
            *(f"{len(shared_subnns(scheme, i, j))} of {scheme.act}" for scheme in schemes.values()),
        )
        for count, i, j in shown
    )
    return (Table(caption, header, rows),)
