"""``codedtool cost``: the cost of a run's network, or of an architecture before it is trained."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from codedtool.analysis.catalogue import Analysis
from codedtool.cli import analyses
from codedtool.cli.completion import complete_preset
from codedtool.cli.runs import SchemeFiles, given, loading
from codedtool.cli.session import refuse_stated, show, verb
from codedtool.errors import InputError

Preset = Annotated[
    str | None,
    typer.Option(
        "--preset",
        help="Measure this network instead of a run's; nothing needs to be trained, and no file is written.",
        autocompletion=complete_preset,
    ),
]
ImageSize = Annotated[
    int | None,
    typer.Option(
        "--image-size",
        min=4,
        help="Side of the images in pixels, with --preset.",
        show_default="16, 32 or 224: what the network is made for",
    ),
]

# What only a run has.
_OF_RUN = (
    "run",
    "checkpoint",
    "data",
    "data_dir",
    "no_download",
    "skip_bad_images",
    "eval_size",
    "batch_size",
    "num_workers",
)


def command_of(analysis: Analysis) -> Callable[..., None]:
    """The command of the catalogue's row, with the options that make a run unnecessary."""
    of_run = analyses.command_of(analysis)
    own = {"preset": Preset, "schemes": SchemeFiles, "image_size": ImageSize}

    def command(
        preset: str | None = None, schemes: list[Path] | None = None, image_size: int | None = None, **values: Any
    ) -> None:
        if preset is not None:
            _measure(preset, schemes or [], image_size, values)
        elif schemes or image_size:
            raise InputError(f"`{'schemes' if schemes else 'image_size'}` needs `preset`: a run has its own")
        else:
            of_run(**values)

    kind = inspect.Parameter.KEYWORD_ONLY
    command.__signature__ = inspect.Signature(  # type: ignore[attr-defined]  # typer reads it
        [
            *inspect.signature(of_run).parameters.values(),
            *(inspect.Parameter(name, kind, default=None, annotation=annotation) for name, annotation in own.items()),
        ]
    )
    command.__name__ = analysis.name
    command.__doc__ = f"{analysis.help}\n\nWith --preset, an architecture is measured before anything is trained."
    return verb(command)


def _measure(preset: str, schemes: list[Path], image_size: int | None, values: dict[str, Any]) -> None:
    refuse_stated(_OF_RUN, "and `preset` exclude each other: with `preset`, no run and no images are read")
    with loading(quiet=values["quiet"]) as progress:
        from codedtool.analysis.preset_cost import cost_of_preset
        from codedtool.coding.scheme import CodingScheme
        from codedtool.coding.shipped import scheme_path
        from codedtool.training.recipe import Recipe

        machine = {key: values[key] for key in ("device", "precision", "channels_last")}
        result = cost_of_preset(
            preset,
            [CodingScheme.load(scheme_path(path)) for path in schemes],
            image_size=image_size,
            class_name=values["class_name"],
            recipe=Recipe().with_values(given(machine)),
            progress=progress,
        )
    show(result, as_json=values["json_output"], heading=f"{preset}, not trained", files=())
