"""``codedtool bounds``: how many codewords can exist at each distance."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from codedtool.analysis.result import NONE, Table
from codedtool.cli.session import Json, Quiet, print_json, print_table, progress_display, say, verb

if TYPE_CHECKING:
    from codedtool.coding.bounds import UpperBound


@verb
def bounds(
    num_classes: Annotated[int, typer.Option("--K", min=2, help="Number of classes: one codeword each.")],
    length: Annotated[int, typer.Option("--N", help="Length of a codeword, 2..64.")],
    act: Annotated[int, typer.Option("--act", help="Ones per codeword: the active subNNs of a class.")],
    json_output: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show how many codewords can exist at each distance, and the highest distance not excluded for K of them."""
    from codedtool.coding.bounds import bounds_table

    with progress_display(quiet=quiet) as progress:
        progress("bounding", 0, None, f"codewords of {length} digits with {act} ones")
        table = bounds_table(length, act)
    possible = [bound.min_distance for bound in table if bound.best >= num_classes]
    highest = max(possible, default=None)
    if json_output:
        print_json(
            {
                "K": num_classes,
                "N": length,
                "act": act,
                "highest_not_excluded": highest,
                "bounds": [asdict(bound) for bound in table],
            }
        )
    _print_table(table, num_classes, to_stderr=json_output)
    if highest is None:
        verdict = f"K={num_classes} codewords cannot exist at any distance: at most {table[0].best} do"
    else:
        verdict = f"highest distance not excluded for K={num_classes} codewords: {highest}"
    say(verdict, to_stderr=json_output)


def _print_table(bounds: list[UpperBound], num_classes: int, *, to_stderr: bool) -> None:
    """One row per even distance."""
    length, act = bounds[0].length, bounds[0].act
    rows = tuple(
        (
            str(bound.min_distance),
            f"{bound.johnson:,}",
            f"{bound.pair_counting:,}",
            NONE if bound.delsarte is None else f"{bound.delsarte:,}",
            f"{bound.best:,}",
            "not excluded" if bound.best >= num_classes else "impossible",
        )
        for bound in bounds
    )
    caption = (
        f"Upper bounds on the number of codewords of {length} digits with {act} ones, any two at least so far apart"
    )
    header = ("distance", "Johnson", "pair counting", "Delsarte", "the smallest bound", f"K={num_classes}")
    print_table(Table(caption, header, rows), to_stderr=to_stderr)
