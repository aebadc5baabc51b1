"""``codedtool bc``: binary classifiers extracted from a trained run."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from codedtool.cli.analysis import DEVICE_FLAGS, Compare, Ood, RunOption, Seed, opened
from codedtool.cli.session import Json, Quiet, print_json, print_table, say, verb
from codedtool.cli.train import Checkpoint, NoDownload, with_recipe_flags
from codedtool.errors import InputError

if TYPE_CHECKING:
    from codedtool.analysis.bc import ClassifiersResult
    from codedtool.analysis.cost import CostResult


@verb
@with_recipe_flags(*DEVICE_FLAGS)
def bc(
    class_name: Annotated[
        str, typer.Option("--class", help="A class's name or number, or all.", show_default=True)
    ] = "all",
    run: RunOption = None,
    compare: Compare = None,
    ood: Ood = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="Where one class's classifier goes (.safetensors).", show_default="RUN/bc/CLASS.safetensors"
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing classifier.")] = False,
    seed: Seed = 0,
    checkpoint: Checkpoint = "best",
    no_download: NoDownload = False,
    json_output: Json = False,
    quiet: Quiet = False,
    **values: Any,
) -> None:
    """Extract the binary classifier of one class as a model file, or measure those of all classes (section 4.3).

    Tables, figures and their data go to RUN/analysis/.
    """
    with opened(run, values, checkpoint=checkpoint, no_download=no_download, quiet=quiet) as (subject, progress):
        from codedtool.analysis.artifacts import save_csv, save_figure, save_json
        from codedtool.analysis.bc import evaluate_classifiers
        from codedtool.analysis.cost import cost
        from codedtool.analysis.subject import class_index, find_negatives, opened_run
        from codedtool.deploy.classifier_file import check_output, save_binary_classifier
        from codedtool.report.figures_classifiers import draw_classifiers, draw_scores
        from codedtool.training.run import Run

        subject.require_coded("a binary classifier")
        everything = class_name == "all" and "all" not in subject.classes
        indices = list(range(len(subject.classes))) if everything else [class_index(subject.classes, class_name)]
        if everything and out is not None:
            raise InputError("--out takes one classifier: name its --class")
        target = None
        if not everything:
            target = out or subject.run.path / "bc" / f"{_file_name(subject.classes[indices[0]])}.safetensors"
            # Said before the work, not after it.
            check_output(target, force=force)
        negatives = find_negatives(subject, ood, download=not no_download, progress=progress)
        with ExitStack() as stack:
            plain = None
            if compare is not None:
                changes = {key: value for key, value in values.items() if value is not None}
                plain = stack.enter_context(
                    opened_run(Run.load(compare), changes=changes, download=not no_download, progress=progress)
                )
            result = evaluate_classifiers(subject, indices, plain=plain, ood=negatives, seed=seed, progress=progress)
        costs = cost(subject, class_index=indices[0], progress=progress)
        name = "bc" if everything else f"bc_{_file_name(subject.classes[indices[0]])}"
        document = result.to_json() | {"cost": costs.to_json()}
        save_json(subject.run, name, document)
        save_csv(subject.run, name, result.rows())
        if everything:
            save_figure(subject.run, name, draw_classifiers(result))
        save_csv(subject.run, f"{name}_scores", result.score_rows())
        save_figure(subject.run, f"{name}_scores", draw_scores(result))
        if target is not None:
            mine = result.classifiers[0]
            save_binary_classifier(
                subject, indices[0], target, threshold=mine.threshold, metrics=mine.row(), force=force
            )
            document["file"] = str(target)
    if json_output:
        print_json(document)
    _describe(result, costs, target, to_stderr=json_output)


def _file_name(class_name: str) -> str:
    """A class's name as a file's: letters, digits, dashes and dots."""
    return "".join(letter if letter.isalnum() or letter in "-." else "_" for letter in class_name).strip(".") or "_"


def _describe(result: ClassifiersResult, costs: CostResult, target: Path | None, *, to_stderr: bool) -> None:
    from rich.table import Table

    table = Table(title="mean over classes, %" if len(result.classifiers) > len(result.sources) else "%")
    names = ["val", "ood"] if result.ood else ["val"]
    table.add_column("")
    for name in names:
        for key in ("precision", "recall", "F1", "AP"):
            table.add_column(f"{key}{' (OOD)' if name == 'ood' else ''}", justify="right")
    keys = ("precision", "recall", "f1", "average_precision")
    for row in result.means():
        table.add_row(row["source"], *(f"{100 * row[f'{name}_{key}']:.1f}" for name in names for key in keys))
    print_table(table, to_stderr=to_stderr)
    whole, light = costs.networks[0], costs.networks[-1]
    say(
        f"{light.name}: {light.parameters:,} parameters, {light.parameters / whole.parameters:.1%} of the network's "
        f"({light.parameters_without_projections / whole.parameters_without_projections:.1%} without projection "
        f"shortcuts), {light.macs / whole.macs:.1%} of its multiply-adds, "
        f"{light.images_per_second / whole.images_per_second:.2f} times its images/s",
        to_stderr=to_stderr,
    )
    for reason in result.skipped:
        say(f"skipped: {reason}", to_stderr=to_stderr)
    if target is not None:
        say(f"wrote {target} and {target.with_suffix('.json').name}", to_stderr=to_stderr)
