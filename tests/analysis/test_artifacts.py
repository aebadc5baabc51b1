"""Files of results."""

from __future__ import annotations

from typing import Literal

import pytest

from codedtool.analysis.artifacts import figure_bytes
from codedtool.report.style import new_figure


@pytest.mark.parametrize("kind", ["svg", "png"])
def test_places_of_axes_that_differ_in_their_last_digits_give_the_same_bytes(kind: Literal["svg", "png"]) -> None:
    contents = []
    for error in (0, 1e-13):
        figure, axes = new_figure(2)
        for one in axes:
            one.plot([0, 1, 3], [1000, 2, 3])
            one.set(xlabel="epoch", ylabel="loss")
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        for one in axes:
            x, y, width, height = one.get_position(original=True).bounds
            one.set_position((x + error, y, width, height))
        contents.append(figure_bytes(figure, kind))
    assert contents[0] == contents[1]
