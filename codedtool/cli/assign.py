"""``codedtool scheme assign``: give similar classes codewords that overlap more, or less."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from codedtool.budget import Budget
from codedtool.cli.completion import complete_run, complete_scheme
from codedtool.cli.runs import DEVICE_FLAGS, given, loading, opened, warnings_on_stderr, with_recipe_flags
from codedtool.cli.scheme import command_line, refuse_target
from codedtool.cli.session import (
    EXIT_INTERRUPTED,
    Json,
    Quiet,
    interruptible,
    print_json,
    progress_display,
    refuse_stated,
    say,
    verb,
)
from codedtool.errors import InputError
from codedtool.files import sha256

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from codedtool.coding.orders.assignment import Assignment


@verb
@with_recipe_flags(*DEVICE_FLAGS)
def assign(
    scheme: Annotated[
        Path,
        typer.Option(
            "--scheme",
            help="The scheme whose rows are to be ordered: a .npy, or the name of a shipped one.",
            autocompletion=complete_scheme,
        ),
    ],
    similarity: Annotated[
        str,
        typer.Option(
            "--similarity",
            help="A K x K matrix (.npy) of similarities or confusion counts; or the name of a run, to take the "
            "confusions of training images that its network expects.",
            autocompletion=complete_run,
        ),
    ],
    repel: Annotated[bool, typer.Option("--repel", help="Let similar classes overlap less instead of more.")] = False,
    out: Annotated[
        Path | None, typer.Option("--out", help="The .npy to write.", show_default="SCHEME_assigned.npy")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of every random choice.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Overwrite existing files.")] = False,
    json_output: Json = False,
    quiet: Quiet = False,
    **values: object,
) -> None:
    """Order a scheme's rows so that codewords of similar classes overlap more, and compare with random orders.

    The run's values below are for a --similarity that is a run.
    """
    from codedtool.coding.orders.assignment import assign_classes
    from codedtool.coding.scheme import CodingScheme
    from codedtool.coding.shipped import scheme_path

    named = CodingScheme.load(scheme_path(scheme))
    target = out or scheme.with_name(f"{scheme.stem}_{'repelled' if repel else 'assigned'}.npy")
    refuse_target(target, force=force)
    matrix, matrix_sha256 = _matrix(similarity, named.num_classes, given(values), quiet=quiet)
    budget = Budget()
    with warnings_on_stderr(), progress_display(quiet=quiet) as progress, interruptible(budget):
        result = assign_classes(named, matrix, repel=repel, seed=seed, budget=budget, progress=progress)
    provenance = _provenance(result, named.sha256, matrix_sha256)
    if result.stopped == "interrupted":
        target = target.with_name(f"{target.stem}.partial.npy")
        result.scheme.save(target, provenance=provenance, force=True)
        say(f"interrupted: the best order so far is in {target}", to_stderr=True)
        raise typer.Exit(EXIT_INTERRUPTED)
    result.scheme.save(target, provenance=provenance, force=force)
    if json_output:
        print_json({"path": str(target), **result.scheme.summary(), **provenance, "seconds": result.seconds})
    for line in _description(result, target):
        say(line, to_stderr=json_output)


def _matrix(
    similarity: str, num_classes: int, changes: Mapping[str, object], *, quiet: bool
) -> tuple[NDArray[np.float64], str]:
    """The similarities that ``--similarity`` names, from a .npy or measured of a run, and their file's SHA-256."""
    from codedtool.coding.orders.assignment import check_similarity, load_similarity

    if similarity.endswith(".npy"):
        refuse_stated(changes, "has no effect beside a `similarity` that is a matrix")
        path = Path(similarity)
        return load_similarity(path, num_classes), sha256(path)
    with loading(quiet=quiet) as progress, opened(similarity, changes, progress=progress, no_download=True) as subject:
        from codedtool.analysis.confusions import save_confusions

        matrix, digest = save_confusions(subject, progress=progress)
    try:
        return check_similarity(matrix, num_classes), digest
    except InputError as error:
        raise InputError(f"confusions of {subject.run.path}: {error}") from None


def _provenance(result: Assignment, given_sha256: str, similarity_sha256: str) -> dict[str, Any]:
    """The result's record, the sha256 of its inputs, the command that makes it again, and the versions."""
    from codedtool.coding.result import bounds_of
    from codedtool.versions import versions_of

    return {
        **result.provenance(),
        **bounds_of(result.scheme),
        "input_sha256": given_sha256,
        "similarity_sha256": similarity_sha256,
        "command": command_line(),
        "versions": versions_of("numpy", "numba", "scipy"),
    }


def _description(result: Assignment, target: Path) -> list[str]:
    """Lines that say how much similar classes overlap, compare it with random orders, and name the file."""
    goal = "smallest" if result.repel else "largest"
    deviations = ""
    if result.random_std > 0:
        away = abs(result.overlap - result.random_mean) / result.random_std
        deviations = f" ({away:.1f} of them away)"
    return [
        f"overlap of similar classes  {result.overlap:.4f}, the {goal} found ({result.method}, seed {result.seed})",
        "                            (subNNs that two classes share, on average over pairs weighted by similarity)",
        f"in the order given          {result.given_overlap:.4f}",
        f"in random orders            {result.random_mean:.4f}, standard deviation {result.random_std:.4f}{deviations}",
        f"                            better than {result.num_beaten} of {result.num_random} of them",
        f"wrote {target} in {result.seconds:.2f} s",
    ]
