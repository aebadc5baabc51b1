"""Figures: labels that cover neither each other nor a point, and axes in per cent that reach 100."""

from __future__ import annotations

import itertools
import warnings
from random import Random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from codedtool.report.figures_evaluation import draw_confusion
from codedtool.report.figures_training import draw_training
from codedtool.report.style import label_points, new_figure, percent_limits

pytestmark = pytest.mark.quick

X, Y = (0.0, 50.0, 97.0, 99.0, 99.5, 100.0), (0.0, 60.0, 98.0, 99.9, 100.0)
LABELS = ("cat", "aquarium fish", "9", "a longer name of class", "Wolkenkratzer", "IIII")


@pytest.mark.parametrize("seed", range(4))
def test_labels_of_points_cover_neither_each_other_nor_a_point(seed: int) -> None:
    random = Random(seed)
    cases = [(random.choice(X), random.choice(Y), random.choice(LABELS)) for _ in range(20)]
    figure, (axes, _) = new_figure(2, width=5.0, height=3.6)
    canvas = FigureCanvasAgg(figure)
    points = [(x, y) for x, y, _ in cases]
    axes.scatter([x for x, _ in points], [y for _, y in points], s=16)
    percent_limits(axes, "x")
    percent_limits(axes, "y")
    axes.set_ylabel("precision, %")
    label_points(axes, points, [label for _, _, label in cases])
    canvas.draw()
    # Of the letters alone: the extent of an annotation holds its line to the point too.
    boxes = [Text.get_window_extent(text, canvas.get_renderer()) for text in axes.texts]
    assert len(boxes) == len(cases)
    for one, other in itertools.combinations(boxes, 2):
        assert not one.shrunk(0.98, 0.9).overlaps(other.shrunk(0.98, 0.9))
    room = axes.get_window_extent()
    for text, box in zip(axes.texts, boxes, strict=True):
        assert room.x0 - 2 < box.x0
        assert box.x1 < room.x1 + 2
        for x, y in axes.transData.transform(points):
            assert not box.contains(x, y), text


@pytest.mark.parametrize("lowest", [0.0, 42.0, 99.9, 100.0])
def test_an_axis_in_per_cent_reaches_100_and_little_more(lowest: float) -> None:
    _, (axes,) = new_figure()
    axes.plot([0, 1], [lowest, (lowest + 100) / 2])
    percent_limits(axes)
    low, high = axes.get_ylim()
    assert low < lowest
    assert 100 < high < 104
    percent_limits(axes, low=0)
    assert axes.get_ylim()[0] == 0


def test_a_training_of_one_epoch_is_seen() -> None:
    row = {"epoch": 1, "train_accuracy": 0.5, "val_accuracy": 0.4, "train_loss": 1.0, "val_loss": 2.0}
    figure = draw_training([row | {"val_decoder_accuracy_s3.1": 0.3}])
    assert len(figure.axes) == 3
    assert all(line.get_marker() == "o" for axes in figure.axes for line in axes.lines)


def test_long_names_of_classes_leave_the_confusion_matrix_its_room() -> None:
    names = [f"{'very long name ' * 16}{number}" for number in range(10)]
    result: Any = SimpleNamespace(
        classes=[SimpleNamespace(name=name) for name in names], confusion=np.eye(10, dtype=int)
    )
    figure = draw_confusion(result)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        FigureCanvasAgg(figure).draw()
    panel = figure.axes[0]
    assert panel.get_window_extent().width > 0.5 * figure.bbox.width
    assert {label.get_text() for label in panel.get_yticklabels()} == {"very long name very lon…"}
