"""The commands that measure a run: one per row of the catalogue of analyses."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import ExitStack
from typing import Annotated, Any, Literal

import typer

from codedtool.analysis.catalogue import Analysis, Option
from codedtool.cli.runs import (
    DEVICE_FLAGS,
    Checkpoint,
    Compare,
    NoDownload,
    Ood,
    RunOption,
    given,
    loading,
    opened,
    with_recipe_flags,
)
from codedtool.cli.session import Json, Quiet, show, verb


def command_of(analysis: Analysis) -> Callable[..., None]:
    """The command of a row: it opens the run, runs the analysis, saves the result and shows it."""

    @with_recipe_flags(*DEVICE_FLAGS)
    @_with_options(analysis)
    def command(
        run: str | None,
        checkpoint: Any,
        no_download: bool,
        json_output: bool,
        quiet: bool,
        plain: str | None = None,
        ood: str | None = None,
        **values: Any,
    ) -> None:
        options = {option.name: values.pop(option.name) for option in analysis.options}
        changes = given(values)
        with loading(quiet=quiet) as progress, ExitStack() as stack:
            from codedtool.analysis.result import save_result

            subject = stack.enter_context(
                opened(run, changes, progress=progress, checkpoint=checkpoint, no_download=no_download)
            )
            inputs = {}
            if analysis.inputs:
                negatives = ood if "ood" in analysis.inputs else "none"
                inputs = compared(
                    stack,
                    subject,
                    plain,
                    negatives,
                    changes,
                    checkpoint=checkpoint,
                    no_download=no_download,
                    progress=progress,
                )
            result = analysis.run(subject, **inputs, options=options, progress=progress)
            progress("drawing", 0, None)
            files = save_result(subject.run, result, analysis.draw(result))
        show(result, as_json=json_output, heading=f"{subject.run.path}, checkpoint {subject.checkpoint}", files=files)

    command.__name__ = analysis.name
    command.__doc__ = analysis.help
    return verb(command)


def compared(
    stack: ExitStack,
    subject: Any,
    plain: str | None,
    ood: str | None,
    changes: dict[str, Any],
    *,
    checkpoint: Literal["best", "last", "previous"],
    no_download: bool,
    progress: Any,
) -> dict[str, Any]:
    """The inputs of `Analysis.run` that --compare and --ood name; the plain run is open until ``stack`` closes.

    Of both runs the same checkpoint is taken: the best, the last or the one before.
    """
    from codedtool.training.subject import find_negatives

    negatives = find_negatives(subject, ood, download=not no_download, progress=progress)
    other = None
    if plain is not None:
        other = stack.enter_context(
            opened(plain, changes, progress=progress, checkpoint=checkpoint, no_download=no_download)
        )
    return {"plain": other, "ood": negatives}


def _with_options(analysis: Analysis) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the parameters that the row asks for, as typer reads them from a signature."""
    parameters: dict[str, tuple[Any, Any]] = {"run": (RunOption, None)}
    parameters |= {option.name: (_annotation(option), option.default) for option in analysis.options}
    if "plain" in analysis.inputs:
        parameters["plain"] = (Compare, None)
    if "ood" in analysis.inputs:
        parameters["ood"] = (Ood, None)
    parameters |= {
        "checkpoint": (Checkpoint, "best"),
        "no_download": (NoDownload, False),
        "json_output": (Json, False),
        "quiet": (Quiet, False),
    }

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        kind = inspect.Parameter.KEYWORD_ONLY
        function.__signature__ = inspect.Signature(  # type: ignore[attr-defined]  # typer reads it
            [
                *(
                    inspect.Parameter(name, kind, default=default, annotation=annotation)
                    for name, (annotation, default) in parameters.items()
                ),
                inspect.Parameter("values", inspect.Parameter.VAR_KEYWORD),
            ]
        )
        return function

    return decorate


def _annotation(option: Option) -> Any:
    """An option of the catalogue as typer's annotation."""
    kind: Any = list[option.kind] if option.repeated else option.kind  # type: ignore[name-defined]  # a value
    if option.default is None:
        kind = kind | None
    shown: bool | str = option.default is not None and not isinstance(option.default, bool)
    return Annotated[
        kind,
        typer.Option(option.flag, help=option.help, min=option.at_least, show_default=option.default_text or shown),
    ]
