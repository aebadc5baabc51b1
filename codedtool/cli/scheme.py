"""``codedtool scheme``: find a coding scheme and write it."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from codedtool.budget import Budget
from codedtool.cli.completion import complete_scheme
from codedtool.cli.runs import warnings_on_stderr
from codedtool.cli.session import (
    EXIT_INTERRUPTED,
    Json,
    Quiet,
    collector_off,
    interruptible,
    keep_stated,
    print_json,
    progress_display,
    refuse_stated,
    say,
    verb,
)
from codedtool.errors import InputError
from codedtool.files import check_target

if TYPE_CHECKING:
    from codedtool.coding.result import Attempt, SchemeResult
    from codedtool.coding.scheme import CodingScheme


@verb
@collector_off()
def scheme(
    context: typer.Context,
    num_classes: Annotated[int | None, typer.Option("--K", help="Number of classes (codewords); required.")] = None,
    length: Annotated[
        int | None,
        typer.Option(
            "--N", help="Number of subNNs per block: the length of a codeword, 2..64; required without --extend."
        ),
    ] = None,
    act: Annotated[
        int | None,
        typer.Option("--act", help="Ones per codeword: the active subNNs of a class; required without --extend."),
    ] = None,
    min_distance: Annotated[
        str | None,
        typer.Option(
            "--hmin",
            metavar="INT|max",
            help="Smallest Hamming distance between two codewords; max: the highest at which K are found. Required "
            "without --extend.",
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
            help="Source of codewords. lexicode: the greedy set G of algorithm 1; orbits: linear codes and unions "
            "of orbits; auto: the first that gives even columns.",
        ),
    ] = "auto",
    refine: Annotated[
        Literal["auto", "local", "cp-sat", "none"],
        typer.Option(
            "--refine",
            help="How columns are made even. local: local search; cp-sat: then CP-SAT before other methods; none: the "
            "first K words; auto: CP-SAT last, if columns are still uneven. local and none use the greedy set "
            "only.",
        ),
    ] = "auto",
    words: Annotated[
        str | None,
        typer.Option(
            "--words", help="Take these K codewords, in this order, instead of searching; commas between them."
        ),
    ] = None,
    companions: Annotated[
        list[Path] | None,
        typer.Option(
            "--with",
            help="The scheme of another coded stage, a .npy or the name of a shipped scheme; repeatable. Rows are "
            "ordered so that no two classes have close codewords in all stages together; words of a few classes are "
            "chosen for it too, unless --method is given.",
            autocompletion=complete_scheme,
        ),
    ] = None,
    extend: Annotated[
        Path | None,
        typer.Option(
            "--extend",
            help="Add codewords to this scheme, a .npy or the name of a shipped one: its rows stay and come first. "
            "--N and --act are its own, and so is --hmin unless given.",
            autocompletion=complete_scheme,
        ),
    ] = None,
    time_limit: Annotated[
        float, typer.Option("--time-limit", min=0.0, help="Seconds after which the best scheme so far is taken.")
    ] = 300.0,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of every random choice.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Overwrite existing files.")] = False,
    json_output: Json = False,
    quiet: Quiet = False,
) -> None:
    """Find a coding scheme and write it with its proof: K codewords with N_act ones each, H_min apart, even columns."""
    keep_stated(context)
    if context.invoked_subcommand is not None:
        refuse_stated(
            sorted(context.params), f"has no effect before the word {context.invoked_subcommand}: put it after"
        )
        return
    base = None
    if extend is not None:
        base = _base_of_extension(extend, length, act, words=words, method=method, refine=refine)
        length, act = base.length, base.act
        min_distance = min_distance or str(base.min_distance)
    # Not required by the parser, which would then ask for them before `scheme assign` too.
    if num_classes is None or length is None or act is None or min_distance is None:
        given = {"--K": num_classes, "--N": length, "--act": act, "--hmin": min_distance}
        raise InputError(f"Missing option {next(name for name, value in given.items() if value is None)}; see --help")
    distance = _parse_distance(min_distance)
    target = out
    if target is None and distance != "max":
        target = default_path(num_classes, length, act, distance + distance % 2)
    if target is not None:
        refuse_target(target, force=force)
    else:
        # The name depends on the distance that is found. Whether the folder can be written is known before.
        check_target(default_path(num_classes, length, act, "max"), force=True)
    if method == "orbits":
        refuse_stated(["refine"], "has no effect beside `method` orbits, which takes whole orbits")
    if words is not None:
        refuse_stated(["method", "refine"], "has no effect beside `words`: they are given")

    from codedtool.coding.result import SearchInterrupted
    from codedtool.coding.search import find_scheme, scheme_from_words

    other_schemes = _load_companions(companions or [], num_classes)
    budget = Budget(time_limit)
    try:
        with warnings_on_stderr(), progress_display(quiet=quiet) as progress, interruptible(budget):
            if base is not None:
                from codedtool.coding.extension import extend_scheme

                result = extend_scheme(
                    base,
                    num_classes,
                    distance,
                    companions=other_schemes,
                    seed=seed,
                    budget=budget,
                    progress=progress,
                )
            elif words is None:
                result = find_scheme(
                    num_classes,
                    length,
                    act,
                    distance,
                    companions=other_schemes,
                    method=method,
                    refine=refine,
                    seed=seed,
                    budget=budget,
                    progress=progress,
                )
            elif distance == "max":
                raise InputError("--words takes a number for --hmin, not max: given words are checked, not searched")
            else:
                result = scheme_from_words(
                    words.split(","),
                    num_classes,
                    length,
                    act,
                    distance,
                    companions=other_schemes,
                    seed=seed,
                    budget=budget,
                    progress=progress,
                )
    except SearchInterrupted as interruption:
        # Outside of `interruptible`, whose alarm must not cut the saving short.
        save_partial(interruption.best, target)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    if target is None:
        target = default_path(num_classes, length, act, result.scheme.min_distance)
        _keep_if_taken(result, target, force=force)
    result.scheme.save(target, provenance=provenance_of(result), force=force)
    if json_output:
        print_json({"path": str(target), **result.to_json()})
    for line in _description(result, target):
        say(line, to_stderr=json_output)


def default_path(num_classes: int, length: int, act: int, min_distance: int | str) -> Path:
    """Where a scheme goes without ``--out``."""
    return Path("schemes") / f"k{num_classes}_{act}of{length}_h{min_distance}.npy"


def _base_of_extension(
    extend: Path, length: int | None, act: int | None, *, words: str | None, method: str, refine: str
) -> CodingScheme:
    """The scheme of ``--extend``; InputError for options that contradict it."""
    from codedtool.coding.scheme import CodingScheme
    from codedtool.coding.shipped import scheme_path

    base = CodingScheme.load(scheme_path(extend))
    for flag, given, own in (("--N", length, base.length), ("--act", act, base.act)):
        if given not in (None, own):
            raise InputError(f"{flag} {given}: the scheme of --extend has {own}; leave {flag} out")
    if words is not None or method != "auto" or refine != "auto":
        raise InputError("--extend excludes --words, --method and --refine: the rows of the given scheme stay")
    return base


def _parse_distance(text: str) -> int | Literal["max"]:
    if text == "max":
        return "max"
    try:
        return int(text)
    except ValueError:
        raise InputError(f"--hmin takes a whole number or max, got {text!r}") from None


def refuse_target(target: Path, *, force: bool) -> None:
    """Raise before the search the errors that `CodingScheme.save` would raise after it."""
    if target.suffix != ".npy":
        raise InputError(f"--out {target}: a scheme's file name must end in .npy")
    check_target(target, force=force)
    check_target(target.with_suffix(".json"), force=force)


def _load_companions(paths: list[Path], num_classes: int) -> list[CodingScheme]:
    """The schemes of ``--with``; InputError for one with another number of rows."""
    from codedtool.coding.scheme import CodingScheme
    from codedtool.coding.shipped import scheme_path

    companions = []
    for path in paths:
        companion = CodingScheme.load(scheme_path(path))
        if companion.num_classes != num_classes:
            raise InputError(f"--with {path}: it has K={companion.num_classes} rows, --K asks for {num_classes}")
        companions.append(companion)
    return companions


def provenance_of(result: SchemeResult, command: str | None = None) -> dict[str, Any]:
    """The result's record, the command that makes it again, and the versions it was made with.

    Args:
        result: the result of a search.
        command: the command; None: the running one.
    """
    from codedtool.versions import versions_of

    return {
        **result.provenance(),
        "command": command or command_line(),
        "versions": versions_of("numpy", "numba", "ortools"),
    }


def command_line() -> str:
    """The running command, without the flags that do not decide its result."""
    arguments = [argument for argument in sys.argv[1:] if argument not in ("--json", "--quiet", "-q", "--force")]
    return shlex.join(["codedtool", *arguments])


def save_partial(best: SchemeResult | None, target: Path | None, command: str | None = None) -> None:
    """Save the best scheme of an interrupted search beside the target, and say so.

    Args:
        best: the best result so far; None: there is none.
        target: where the whole search would have written; None: the usual name.
        command: as for `provenance_of`.
    """
    if best is None:
        say("interrupted: fewer than K codewords were known, nothing to save", to_stderr=True)
        return
    found = best.scheme
    target = target or default_path(found.num_classes, found.length, found.act, found.min_distance)
    partial = _partial(target)
    found.save(partial, provenance=provenance_of(best, command), force=True)
    sums = f"column sums {found.s_min}..{found.s_max}"
    say(f"interrupted: the best scheme so far is in {partial} ({sums})", to_stderr=True)


def _keep_if_taken(result: SchemeResult, target: Path, *, force: bool) -> None:
    """Where the name that a search ended with is taken, keep its scheme under another one, and raise InputError."""
    try:
        refuse_target(target, force=force)
    except InputError as error:
        partial = _partial(target)
        result.scheme.save(partial, provenance=provenance_of(result), force=True)
        raise InputError(f"{error}; the scheme that was found is in {partial}") from None


def _partial(target: Path) -> Path:
    """Where a scheme is kept that cannot, or should not yet, have its own name."""
    return target.with_name(f"{target.stem}.partial.npy")


def _pairs(number: int) -> str:
    return "1 pair" if number == 1 else f"{number} pairs"


def _attempt(one: Attempt, num_classes: int) -> str:
    """What came of the search at one distance."""
    if one.is_impossible:
        return f"distance {one.min_distance}: {num_classes} codewords proved impossible in {one.seconds:.1f} s"
    words = f"all {num_classes}" if one.most_words >= num_classes else f"at most {one.most_words} of {num_classes}"
    ended = "" if one.stopped is None else f", ended by the {one.stopped}"
    return f"distance {one.min_distance}: {words} codewords found in {one.seconds:.1f} s{ended}"


def _description(result: SchemeResult, target: Path) -> list[str]:
    """Lines on the scheme, its proof and its file."""
    from codedtool.coding.scheme import best_spread

    found = result.scheme
    K, N, act = found.num_classes, found.length, found.act
    extension = result.extension
    evenness = "the least possible" if found.spread == best_spread(K, N, act) else "not the least possible"
    if extension is not None:
        evenness = "the least possible beside the given rows"
        if not extension.is_optimal:
            evenness = f"not proved the least possible: {extension.spread_bound} is not excluded beside the given rows"
    elif K * act % N:
        evenness += f": {K} * {act} / {N} = {K * act / N:g} is no whole number"
    higher = result.next_bound
    if result.hmin_is_optimal:
        proof = f"the highest possible: at most {higher.best} codewords are {higher.min_distance} apart"
        proof += f" ({higher.source} bound)"
    else:
        proof = f"not proved the highest: up to {higher.best} codewords {higher.min_distance} apart are not excluded"
    lines = [
        f"scheme            {K} classes, codewords of {N} digits with {act} ones each (N_act / N = {found.ratio})",
        f"column sums       {found.s_min}..{found.s_max}, spread {found.spread} (rule B: even), {evenness}",
        f"smallest distance {found.min_distance} digits between two codewords (rule C: H_min), at it "
        f"{found.pairs_at_min} of {K * (K - 1) // 2} pairs",
        f"                  {proof}",
    ]
    how = f"{result.method}, {result.selection}, seed {result.seed}"
    if result.greedy_size is not None:
        how += f"; algorithm 1 keeps {result.greedy_size} of {result.num_words} words"
    lines.append(f"chosen by         {how}")
    lines += [f"{'' if place else 'tried':<18}{_attempt(one, K)}" for place, one in enumerate(result.tried)]
    if extension is not None:
        lines.append(
            f"kept              the first {extension.num_given} rows, word for word; new: {K - extension.num_given}"
        )
    joint = result.joint
    if joint is not None:
        bound = "no order of the rows does better"
        if not joint.is_optimal:
            bound = f"not proved the best: up to {joint.bound.min_distance} is not excluded"
            if joint.bound.min_distance == joint.joint_min_distance:
                fewest = joint.bound.pairs_at(joint.joint_min_distance)
                bound = f"not proved the best: {_pairs(fewest)} cannot be excluded"
        lines.append(
            f"with the others   smallest distance {joint.joint_min_distance} in all schemes together, at it "
            f"{_pairs(joint.pairs_at_joint_min)}; {bound}"
        )
    if result.stopped is not None:
        lines.append(f"stopped by the {result.stopped}: a longer search may do better and may differ")
    lines.append(f"wrote {target} in {result.seconds['total']:.2f} s")
    return lines
