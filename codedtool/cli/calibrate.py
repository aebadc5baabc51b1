"""``codedtool calibrate``: temperatures with and without the early decoders, and whom to trust when."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from codedtool.cli.analysis import DEVICE_FLAGS, RunOption, Seed, opened
from codedtool.cli.session import Json, Quiet, print_json, print_table, say, verb
from codedtool.cli.train import Checkpoint, NoDownload, with_recipe_flags

if TYPE_CHECKING:
    from codedtool.analysis.calibration import CalibrationResult
    from codedtool.analysis.selective import SelectiveResult


@verb
@with_recipe_flags(*DEVICE_FLAGS)
def calibrate(
    run: RunOption = None,
    checkpoint: Checkpoint = "best",
    seed: Seed = 0,
    repeats: Annotated[
        int, typer.Option("--repeats", help="Random splits per share of images to fit on (paper: 41).", min=1)
    ] = 41,
    no_download: NoDownload = False,
    json_output: Json = False,
    quiet: Quiet = False,
    **values: Any,
) -> None:
    """Calibrate a run's confidence (table 6), and compare it with decoder agreement where the network may abstain.

    Files: calibration and selective (.json, .csv, .png, .svg) in the run's folder analysis/.
    """
    with opened(run, values, checkpoint=checkpoint, no_download=no_download, quiet=quiet) as (subject, progress):
        from codedtool.analysis import calibration, selective
        from codedtool.analysis.artifacts import save_csv, save_figure, save_json
        from codedtool.analysis.subject import collect_outputs
        from codedtool.report.figures_calibration import draw_calibration, draw_risk_coverage

        outputs = collect_outputs(subject, subject.data.val, progress=progress)
        calibrated = calibration.calibrate(outputs, seed=seed, repeats=repeats, progress=progress)
        selected = selective.selective(outputs, seed=seed)
        progress("drawing", 0, None)
        for name, result, figure in (
            ("calibration", calibrated, draw_calibration(calibrated)),
            ("selective", selected, draw_risk_coverage(selected)),
        ):
            save_json(subject.run, name, result.to_json())
            save_csv(subject.run, name, result.rows())
            save_figure(subject.run, name, figure)
    if json_output:
        print_json({"calibration": calibrated.to_json(), "selective": selected.to_json()})
    say(
        f"{subject.run.path}, checkpoint {subject.checkpoint}, {subject.data.name}: {calibrated.num_images} images",
        to_stderr=json_output,
    )
    _print_calibration(calibrated, to_stderr=json_output)
    _print_selective(selected, to_stderr=json_output)
    for reason in dict.fromkeys((*calibrated.skipped, *selected.skipped)):
        say(f"left out: {reason}", to_stderr=json_output)
    say(f"files: {subject.run.path / 'analysis'}/calibration.*, selective.*", to_stderr=json_output)


def _print_calibration(result: CalibrationResult, *, to_stderr: bool) -> None:
    """Table 6: (ECE, MCE) of every method, and its temperature."""
    from rich.table import Table

    table = Table(title=f"Calibration errors, mean ± standard deviation of {result.repeats} splits (table 6)")
    for heading in ("fit/test (%)", "method", "ECE (%)", "MCE (%)", "T", "tau"):
        table.add_column(heading, justify="left" if heading in ("method", "tau") else "right")
    for row in result.methods:
        table.add_row(
            f"{100 * row.fit_share:g}/{100 - 100 * row.fit_share:g}",
            row.method,
            f"{100 * row.ece_mean:.2f} ± {100 * row.ece_std:.2f}",
            f"{100 * row.mce_mean:.2f} ± {100 * row.mce_std:.2f}",
            f"{row.temperature:.3f}",
            " ".join(f"{tau:+.3f}" for tau in row.taus),
        )
    print_table(table, to_stderr=to_stderr)


def _print_selective(result: SelectiveResult, *, to_stderr: bool) -> None:
    """The area under each risk-coverage curve, and the risk at some coverages."""
    from rich.table import Table

    from codedtool.analysis.selective import COVERAGES

    table = Table(title=f"Wrong answers among the most confident images (%), of {result.num_images} images")
    table.add_column("score")
    for heading in ("AURC", *(f"at {coverage:.0%}" for coverage in COVERAGES)):
        table.add_column(heading, justify="right")
    for curve in result.curves:
        risks = (curve.aurc, *(curve.risk_at(coverage) for coverage in COVERAGES))
        table.add_row(curve.score, *(f"{100 * risk:.2f}" for risk in risks))
    print_table(table, to_stderr=to_stderr)
