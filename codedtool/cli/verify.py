"""``codedtool verify``: check scheme files against rules A, B and C."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from codedtool.analysis.result import NONE, Table
from codedtool.cli.session import Json, Quiet, print_json, print_table, progress_display, say, verb

if TYPE_CHECKING:
    from codedtool.coding.verify import VerifyReport

EXIT_FAILED = 3

_RULES = (
    "rule A: every codeword (row) has N_act ones, and no two are equal",
    "rule B: the column sums are as equal as possible (smallest..largest)",
    "rule C: any two codewords differ in at least H_min digits (the smallest distance)",
)


@verb
def verify(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[PATH]...",
            help="Scheme files, folders of them, or names of shipped schemes.",
            show_default="schemes/, or without this folder the shipped schemes",
        ),
    ] = None,
    num_classes: Annotated[int | None, typer.Option("--K", help="Number of classes that every file must have.")] = None,
    length: Annotated[int | None, typer.Option("--N", help="Length of a codeword that every file must have.")] = None,
    act: Annotated[int | None, typer.Option("--act", help="Ones per codeword that every file must have.")] = None,
    min_distance: Annotated[
        int | None,
        typer.Option(
            "--hmin",
            help="The distance that any two codewords of a file must reach (rule C).",
            show_default="the one in its JSON, else 2",
        ),
    ] = None,
    max_spread: Annotated[
        int | None,
        typer.Option(
            "--max-spread",
            min=0,
            help="Largest difference allowed between two column sums (rule B).",
            show_default="least possible: 0 or 1",
        ),
    ] = None,
    json_output: Json = False,
    quiet: Quiet = False,
) -> None:
    """Check schemes against rules A, B and C, and against their JSON, with numpy alone. Exit code 3 if any fails."""
    from codedtool.coding.shipped import shipped_folder
    from codedtool.coding.verify import find_scheme_files, verify_scheme
    from codedtool.files import is_dir

    if not paths:
        here = Path("schemes")
        paths = [here if is_dir(here) else shipped_folder()]
    files = find_scheme_files(paths)
    reports = []
    documents: list[dict[str, Any]] = []
    with progress_display(quiet=quiet) as progress:
        for path in files:
            start = time.monotonic()
            report = verify_scheme(
                path,
                num_classes=num_classes,
                length=length,
                act=act,
                min_distance=min_distance,
                max_spread=max_spread,
                progress=progress,
            )
            reports.append(report)
            seconds = {"enumerate": None, "select": None, "total": round(time.monotonic() - start, 3)}
            documents.append(report.to_json() | {"seconds": seconds})
    passed = all(report.passed for report in reports)
    if json_output:
        print_json({"passed": passed, "files": documents})
    _print_table(reports, to_stderr=json_output)
    if not passed:
        raise typer.Exit(EXIT_FAILED)


def _print_table(reports: list[VerifyReport], *, to_stderr: bool) -> None:
    """The rules, one row per file, a line for every failure, and the verdict."""
    from codedtool.coding.shipped import shown_path

    columns = ("file", "K", "N", "N_act", "A: ones", "B: column sums", "C: distance", "pairs at each distance", "JSON")
    rows = []
    for report in reports:
        verdict = "ok" if report.passed else "FAILED"
        scheme = report.scheme
        if scheme is None:
            rows.append((shown_path(report.path), *[NONE] * 8, verdict))
            continue
        failed = {check.rule for check in report.failures}
        marks = {rule: "FAILED" if rule in failed else "ok" for rule in ("A", "B", "C", "JSON")}
        rows.append(
            (
                shown_path(report.path),
                str(scheme.num_classes),
                str(scheme.length),
                str(scheme.act),
                marks["A"],
                f"{marks['B']} {scheme.s_min}..{scheme.s_max}",
                f"{marks['C']} {scheme.min_distance}",
                " ".join(f"{distance}:{pairs}" for distance, pairs in scheme.distance_histogram.items()),
                "none" if report.record is None and marks["JSON"] == "ok" else marks["JSON"],
                verdict,
            )
        )
    print_table(Table("\n".join(_RULES), (*columns, "verdict"), tuple(rows)), to_stderr=to_stderr)
    for report in reports:
        for check in report.failures:
            rule = f"rule {check.rule}" if check.rule in ("A", "B", "C") else check.rule
            say(f"{report.path}: {rule}: {check.detail}", to_stderr=True)
    num_failed = sum(not report.passed for report in reports)
    say(f"{len(reports) - num_failed} passed, {num_failed} failed", to_stderr=to_stderr)
