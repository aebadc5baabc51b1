"""Checking scheme files against rules A, B and C with numpy alone, independently of the solvers and their kernels."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from codedtool.budget import Progress, silent
from codedtool.coding.arguments import checked_distance
from codedtool.coding.scheme import CodingScheme, best_spread, record_path
from codedtool.coding.shipped import scheme_path
from codedtool.errors import CodedtoolError, InputError
from codedtool.files import FileError, MissingFileError, exists, files_ending, is_dir, read_json

# Values of a scheme's JSON that are not its table's own figures, and their types.
_RECORDED = {"method": str, "greedy_size": int, "upper_bound": int, "hmin_is_optimal": bool}


@dataclass(frozen=True)
class Check:
    """One rule applied to one file."""

    rule: str
    passed: bool
    detail: str


@dataclass(frozen=True)
class VerifyReport:
    """The checks of one file in order.

    Attributes:
        path: the file.
        checks: one per rule, and one for the JSON.
        scheme: the scheme, or None if the file could not be read.
        record: the JSON beside the file, or None if there is none that can be read.
    """

    path: Path
    checks: tuple[Check, ...]
    scheme: CodingScheme | None = None
    record: dict[str, Any] | None = field(default=None)

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)

    @property
    def failures(self) -> tuple[Check, ...]:
        """The checks that did not pass."""
        return tuple(check for check in self.checks if not check.passed)

    def to_json(self) -> dict[str, Any]:
        """The report as plain JSON types; a value that only the JSON beside the file has is null if that is wrong."""
        document: dict[str, Any] = {"path": str(self.path), "passed": self.passed}
        if self.scheme is not None:
            scheme = self.scheme
            # Of a JSON that failed its check, nothing is repeated.
            is_true = all(check.passed for check in self.checks if check.rule == "JSON")
            record = self.record if is_true and self.record is not None else {}
            document |= scheme.summary() | {
                "spread": scheme.spread,
                "method": record.get("method"),
                "greedy_size": record.get("greedy_size"),
                "pairs_at_min": scheme.pairs_at_min,
                "distance_histogram": {str(d): n for d, n in scheme.distance_histogram.items()},
                "upper_bound": record.get("upper_bound"),
                "hmin_is_optimal": record.get("hmin_is_optimal"),
                "seconds": None,
            }
        document["checks"] = [
            {"rule": check.rule, "passed": check.passed, "detail": check.detail} for check in self.checks
        ]
        return document


def find_scheme_files(paths: list[Path]) -> list[Path]:
    """The ``.npy`` files that ``paths`` (files, folders and names of shipped schemes) name, folders sorted by name.

    Raises:
        InputError: a path that does not exist, or a folder without any ``.npy``.
    """
    files: list[Path] = []
    for path in paths:
        if is_dir(path):
            inside = files_ending(path, ".npy")
            if not inside:
                raise InputError(
                    f"{path} holds no .npy file: give the path of a scheme, or make one with `codedtool scheme`"
                )
            files += inside
        elif exists(scheme_path(path)):
            files.append(scheme_path(path))
        else:
            raise InputError(f"{path} does not exist: give the path of a scheme's .npy or of a folder of them")
    return files


def verify_scheme(
    path: Path,
    *,
    num_classes: int | None = None,
    length: int | None = None,
    act: int | None = None,
    min_distance: int | None = None,
    max_spread: int | None = None,
    progress: Progress = silent,
) -> VerifyReport:
    """Check one scheme file: readable, rules A, B and C, and agreement with its JSON if there is one.

    >>> import tempfile
    >>> from codedtool import CodingScheme
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = CodingScheme([[1, 1, 0, 0], [0, 0, 1, 1]]).save(Path(folder) / "two.npy")
    ...     report = verify_scheme(path, min_distance=4)
    >>> report.passed
    True
    >>> report.checks[2].rule, report.checks[2].detail
    ('C', 'the closest codewords differ in 4 digits, 1 pair does')

    Args:
        path: the ``.npy``.
        num_classes, length, act: the K, N and N_act it must have; None: any.
        min_distance: the H_min it must reach; None: the one in its JSON, or, without JSON, 2 (distinct rows).
        max_spread: the largest S_max - S_min allowed; None: the smallest possible for its K, N and N_act (rule B).
        progress: told the phase "verifying" before the file is read.

    Returns:
        The report; a file that is no scheme yields one failed check, not an exception.

    Raises:
        InputError: ``min_distance`` is below 2.
    """
    if min_distance is not None:
        min_distance = checked_distance(min_distance)
    progress("verifying", 0, None, str(path))
    try:
        scheme = CodingScheme.load(path)
    except CodedtoolError as error:
        return VerifyReport(path, (Check("readable", False, str(error)),))
    checks = [
        Check("A", True, f"{scheme.num_classes} distinct rows of {scheme.length} digits with {scheme.act} ones each")
    ]
    for name, wanted, found in (
        ("K", num_classes, scheme.num_classes),
        ("N", length, scheme.length),
        ("act", act, scheme.act),
    ):
        if wanted is not None:
            checks.append(
                Check(name, wanted == found, f"{name} is {found}" + ("" if wanted == found else f", not {wanted}"))
            )
    allowed = best_spread(scheme.num_classes, scheme.length, scheme.act) if max_spread is None else max_spread
    sums = f"column sums {scheme.s_min}..{scheme.s_max}, spread {scheme.spread}"
    even = scheme.spread <= allowed
    checks.append(Check("B", even, sums if even else f"{sums}, more than the {allowed} allowed"))
    record, record_check = _read_record(path)
    wanted_distance = min_distance
    if wanted_distance is None:
        claimed = (record or {}).get("min_distance")
        wanted_distance = claimed if isinstance(claimed, int) else 2
    far = scheme.min_distance >= wanted_distance
    pairs = "1 pair does" if scheme.pairs_at_min == 1 else f"{scheme.pairs_at_min} pairs do"
    distance = f"the closest codewords differ in {scheme.min_distance} digits, {pairs}"
    checks.append(Check("C", far, distance if far else f"{distance}; {wanted_distance} are asked for"))
    if record_check is not None:
        checks.append(record_check)
    if record is not None:
        checks.append(_check_record(scheme, record))
    return VerifyReport(path, tuple(checks), scheme, record)


def _read_record(path: Path) -> tuple[dict[str, Any] | None, Check | None]:
    """The JSON beside ``path`` and None; or None and a failed check if it cannot be read; or None twice without it."""
    source = record_path(path)
    try:
        record = read_json(source)
    except MissingFileError:
        return None, None
    except FileError as error:
        return None, Check("JSON", False, str(error))
    if not isinstance(record, dict):
        return None, Check("JSON", False, f"{source} holds no JSON object")
    return record, None


def _check_record(scheme: CodingScheme, record: dict[str, Any]) -> Check:
    """Whether the figures in a scheme's JSON are those of its table, and what it calls proved is proved."""
    differences = [
        f"{key} is {record.get(key)!r} in the JSON, {value!r} in the array"
        for key, value in scheme.summary().items()
        if record.get(key) != value
    ]
    differences += [
        f"{key} is {record[key]!r} in the JSON"
        for key, kind in _RECORDED.items()
        if record.get(key) is not None and type(record[key]) is not kind
    ]
    if not differences:
        # Bounds of an earlier version may be weaker, but not stronger.
        claimed, proved = record.get("upper_bound"), _upper_bound(scheme, scheme.min_distance)
        if claimed is not None and claimed < proved:
            differences.append(f"upper_bound is {claimed} in the JSON, and {proved} is what can be proved")
        if record.get("hmin_is_optimal") and _upper_bound(scheme, scheme.min_distance + 2) >= scheme.num_classes:
            differences.append("hmin_is_optimal is true in the JSON, and cannot be proved")
    return Check("JSON", not differences, "; ".join(differences) or "agrees with the array")


def _upper_bound(scheme: CodingScheme, min_distance: int) -> int:
    """The most codewords of the scheme's length and weight that can lie so far apart."""
    from codedtool.coding.bounds import upper_bound  # only here: a scheme without JSON needs no bounds

    return upper_bound(scheme.length, scheme.act, min_distance).best
