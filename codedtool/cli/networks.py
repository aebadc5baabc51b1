"""``codedtool networks``: the architectures by name."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from codedtool.analysis.result import Table
from codedtool.cli.completion import complete_preset
from codedtool.cli.runs import loading
from codedtool.cli.session import Json, Quiet, print_json, print_table, say, verb

if TYPE_CHECKING:
    from codedtool.models.summary import NetworkSummary


@verb
def networks(
    preset: Annotated[
        str | None,
        typer.Option(
            "--preset",
            help="Show the stages of this network.",
            show_default="list all forms of names",
            autocompletion=complete_preset,
        ),
    ] = None,
    json_output: Json = False,
    quiet: Quiet = False,
) -> None:
    """List the networks that can be trained: their names, N, coded stages with ratios, image sizes and parameters.

    Every name that starts with coded_ has a plain control, whose name lacks it.
    """
    with loading(quiet=quiet):
        from codedtool.models.families import FORMS, MAX_SUBNNS, MIN_SUBNNS
        from codedtool.models.summary import summarize

        if preset is not None:
            one = summarize(preset)
            if json_output:
                print_json(_document(one))
            _show_stages(one, to_stderr=json_output)
            return
        found = {form: [summarize(name) for name in examples] for form, examples in FORMS.items()}
    if json_output:
        forms = [{"form": form, "examples": list(map(_document, summaries))} for form, summaries in found.items()]
        print_json({"N": [MIN_SUBNNS, MAX_SUBNNS], "forms": forms})
    rows = []
    for form, summaries in found.items():
        # The form stands beside the first of its examples.
        rows += [_row(one, "" if number else form) for number, one in enumerate(summaries)]
    caption = (
        f"Networks with N subNNs in every block, of d channels in the first stage; N is {MIN_SUBNNS} to {MAX_SUBNNS}"
    )
    header = ("example", "form of the name", "N", "coded stages", "pixels", "parameters", "for K")
    print_table(Table(caption, header, tuple(rows)), to_stderr=json_output)
    say("Without coded_, a name is that of the plain control.", to_stderr=json_output)
    say("Schemes of other ratios code the last stages, the larger ratio first.", to_stderr=json_output)


def _row(one: NetworkSummary, form: str) -> tuple[str, ...]:
    ratios = ", ".join(f"{stage.name} {stage.act}/{one.num_subnns}" for stage in one.coded_stages)
    sizes = f"{one.parameters:,}", str(one.num_classes)
    return one.preset, form, str(one.num_subnns), ratios, _pixels(one), *sizes


def _show_stages(one: NetworkSummary, *, to_stderr: bool) -> None:
    rows = tuple(
        (
            stage.name,
            str(stage.num_blocks),
            str(stage.out_channels),
            str(stage.inner_channels),
            str(stage.stride),
            f"{stage.act}/{one.num_subnns}" if stage.act < one.num_subnns else "1",
            f"{stage.parameters:,}",
        )
        for stage in one.stages
    )
    caption = f"{one.preset}: N = {one.num_subnns}, for images of {_pixels(one)} pixels, {one.parameters:,} parameters"
    header = ("stage", "blocks", "C_out", "N * d", "stride", "r", "parameters")
    print_table(Table(f"{caption} with K = {one.num_classes} classes", header, rows), to_stderr=to_stderr)


def _document(one: NetworkSummary) -> dict[str, Any]:
    """A network in JSON's types."""
    document = asdict(one)
    document["pixels"] = list(one.pixels)
    document["control"] = one.preset.removeprefix("coded_")
    document["stages"] = list(document["stages"])
    return document


def _pixels(one: NetworkSummary) -> str:
    low, high = one.pixels
    return f"{low} or more" if high is None else f"up to {high}" if low == 1 else f"{low} to {high}"
