"""``codedtool scheme``: find a coding scheme and write it."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from codedtool.budget import Budget
from codedtool.cli.session import (
    EXIT_INTERRUPTED,
    Json,
    Quiet,
    interruptible,
    print_json,
    progress_display,
    say,
    verb,
)
from codedtool.errors import InputError
from codedtool.files import refuse_existing

if TYPE_CHECKING:
    from codedtool.coding.pairing import JointOrder
    from codedtool.coding.result import SchemeResult
    from codedtool.coding.scheme import CodingScheme


@verb
def scheme(
    context: typer.Context,
    num_classes: Annotated[
        int | None, typer.Option("--K", help="Number of classes (codewords).", show_default="required")
    ] = None,
    length: Annotated[
        int | None,
        typer.Option(
            "--N", help="Number of subNNs per block: the length of a codeword, 2..64.", show_default="required"
        ),
    ] = None,
    act: Annotated[
        int | None,
        typer.Option("--act", help="Ones per codeword: the active subNNs of a class.", show_default="required"),
    ] = None,
    hmin: Annotated[
        str | None,
        typer.Option(
            "--hmin",
            metavar="INT|max",
            help="Minimum Hamming distance, or max for the highest found.",
            show_default="required",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="The .npy to write.", show_default="schemes/k{K}_{act}of{N}_h{H}.npy"),
    ] = None,
    method: Annotated[
        Literal["auto", "lexicode", "orbits"],
        typer.Option(
            "--method",
            help="lexicode: algorithm 1's G; orbits: linear codes and unions of orbits; auto: what serves best.",
        ),
    ] = "auto",
    refine: Annotated[
        Literal["auto", "local", "cp-sat", "none"],
        typer.Option(
            "--refine", help="How columns are made even; auto adds CP-SAT when the local search stays uneven."
        ),
    ] = "auto",
    words: Annotated[
        str | None,
        typer.Option("--words", help="Do not search: take these K codewords, separated by commas, in this order."),
    ] = None,
    others: Annotated[
        list[Path] | None,
        typer.Option("--with", help="Order the rows for the joint distance with this scheme's rows; repeatable."),
    ] = None,
    time_limit: Annotated[
        float, typer.Option("--time-limit", min=0.0, help="Seconds after which the best so far is taken.")
    ] = 300.0,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of every random choice.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Overwrite existing files.")] = False,
    json_output: Json = False,
    quiet: Quiet = False,
) -> None:
    """Find K codewords of weight N_act at distance >= H_min with even columns, and write them with their proof."""
    if context.invoked_subcommand is not None:
        return
    # Not required by the parser, which would then ask for them before `scheme assign` too.
    if num_classes is None or length is None or act is None or hmin is None:
        given = {"--K": num_classes, "--N": length, "--act": act, "--hmin": hmin}
        raise InputError(f"Missing option {next(name for name, value in given.items() if value is None)}; see --help")
    distance = _parse_distance(hmin)
    target = out
    if target is None and distance != "max":
        target = default_path(num_classes, length, act, distance + distance % 2)
    if target is not None:
        _refuse_target(target, force=force)

    from codedtool.coding.joint_words import choose_jointly
    from codedtool.coding.pairing import order_jointly
    from codedtool.coding.result import SearchInterrupted
    from codedtool.coding.search import find_scheme, scheme_from_words

    companions = _load_companions(others or [], num_classes)
    joint = None
    budget = Budget(time_limit)
    try:
        with progress_display(quiet=quiet) as progress, interruptible(budget):
            if words is None:
                result = find_scheme(
                    num_classes,
                    length,
                    act,
                    distance,
                    method=method,
                    refine=refine,
                    seed=seed,
                    budget=budget,
                    progress=progress,
                )
            elif distance == "max":
                raise InputError("--words takes a number for --hmin, not max: given words are checked, not searched")
            else:
                result = scheme_from_words(words.split(","), num_classes, length, act, distance, progress=progress)
            if companions:
                chosen = None
                if words is None:
                    chosen = choose_jointly(result.scheme, companions, seed=seed, budget=budget, progress=progress)
                if chosen is not None:
                    result = result.with_scheme(chosen, "CP-SAT, with the other schemes")
                joint = order_jointly(result.scheme, companions, seed=seed, budget=budget, progress=progress)
                result = dataclasses.replace(result, scheme=joint.scheme)
    except SearchInterrupted as interruption:
        # Outside of `interruptible`, whose alarm must not cut the saving short.
        _save_partial(interruption.best, target)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    if joint is not None and joint.stopped == "interrupted":
        _save_partial(result, target, joint)
        raise typer.Exit(EXIT_INTERRUPTED)
    if target is None:
        target = default_path(num_classes, length, act, result.scheme.min_distance)
    result.scheme.save(target, provenance=_provenance(result, joint), force=force)
    if json_output:
        print_json({"path": str(target), **result.to_json(), "joint": None if joint is None else joint.provenance()})
    _describe(result, joint, target, to_stderr=json_output)


def default_path(num_classes: int, length: int, act: int, min_distance: int) -> Path:
    """Where a scheme goes without ``--out``."""
    return Path("schemes") / f"k{num_classes}_{act}of{length}_h{min_distance}.npy"


def _parse_distance(text: str) -> int | Literal["max"]:
    if text == "max":
        return "max"
    try:
        return int(text)
    except ValueError:
        raise InputError(f"--hmin takes a whole number or max, got {text!r}") from None


def _refuse_target(target: Path, *, force: bool) -> None:
    """Refuse before the search what `CodingScheme.save` would refuse after it."""
    if target.suffix != ".npy":
        raise InputError(f"--out {target}: a scheme's file name must end in .npy")
    refuse_existing(target, force=force)
    refuse_existing(target.with_suffix(".json"), force=force)


def _load_companions(paths: list[Path], num_classes: int) -> list[CodingScheme]:
    """The schemes of ``--with``; InputError for one of another K."""
    from codedtool.coding.scheme import CodingScheme

    companions = []
    for path in paths:
        companion = CodingScheme.load(path)
        if companion.num_classes != num_classes:
            raise InputError(f"--with {path}: it has K={companion.num_classes} rows, --K asks for {num_classes}")
        companions.append(companion)
    return companions


def _provenance(result: SchemeResult, joint: JointOrder | None = None) -> dict[str, Any]:
    """The result's record, the command that makes it again, and the versions it was made with."""
    from importlib.metadata import version

    from codedtool import __version__

    arguments = [argument for argument in sys.argv[1:] if argument not in ("--json", "--quiet", "-q", "--force")]
    return {
        **result.provenance(),
        **({} if joint is None else {"joint": joint.provenance()}),
        "command": shlex.join(["codedtool", *arguments]),
        "versions": {
            "codedtool": __version__,
            **{package: version(package) for package in ("numpy", "numba", "ortools")},
        },
    }


def _save_partial(best: SchemeResult | None, target: Path | None, joint: JointOrder | None = None) -> None:
    """Save what an interrupted search had, beside the target, and say so."""
    if best is None:
        typer.echo("interrupted: fewer than K codewords were known, nothing to save", err=True)
        return
    found = best.scheme
    target = target or default_path(found.num_classes, found.length, found.act, found.min_distance)
    partial = target.with_name(f"{target.stem}.partial.npy")
    found.save(partial, provenance=_provenance(best, joint), force=True)
    typer.echo(f"interrupted: the best scheme so far (spread {found.spread}) is in {partial}", err=True)


def _describe(result: SchemeResult, joint: JointOrder | None, target: Path, *, to_stderr: bool) -> None:
    """Say what was found, how good it is, and where it is."""
    found = result.scheme
    K, N, act = found.num_classes, found.length, found.act
    lines = [f"K={K} codewords, N={N}, N_act={act} (r={found.ratio})"]
    sums = f"{found.s_min}..{found.s_max} (spread {found.spread})"
    if K * act % N:
        sums += f"; rK = {K * act / N:g} is not an integer, so spread 1 is the least possible"
    lines.append(f"rule B  column sums {sums}")
    lines.append(f"rule C  H_min = {found.min_distance}, {found.pairs_at_min} of {K * (K - 1) // 2} pairs at it")
    higher = result.next_bound
    if result.hmin_is_optimal:
        proof = f"at most {higher.best} codewords at {higher.min_distance} ({higher.source} bound)"
        lines.append(f"        the highest possible: {proof}")
    else:
        lines.append(
            f"        not proved the highest: up to {higher.best} codewords at {higher.min_distance} are not excluded"
        )
    how = f"{result.method}, {result.selection}, seed {result.seed}"
    if result.greedy_size is not None:
        how = f"|G| = {result.greedy_size} of {result.num_words} words; {how}"
    lines.append(how)
    if joint is not None:
        bound = "no order does better"
        if not joint.is_optimal:
            bound = f"not proved the best: up to {joint.bound.min_distance} is not excluded"
        lines.append(f"jointly H_min = {joint.joint_min_distance}, {joint.pairs_at_joint_min} pairs at it; {bound}")
    if result.stopped is not None:
        lines.append(f"stopped by the {result.stopped}: a longer search may do better and may differ")
    seconds = result.seconds
    lines.append(f"wrote {target} in {seconds['total']:.2f} s")
    for line in lines:
        say(line, to_stderr=to_stderr)
