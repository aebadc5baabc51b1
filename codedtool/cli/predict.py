"""``codedtool predict``: what a run, or a binary classifier's file, says of images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from codedtool.cli.runs import Checkpoint, NoDownload, RunOption, given, loading, opened, with_recipe_flags
from codedtool.cli.session import Json, Quiet, print_json, say, verb
from codedtool.errors import InputError

if TYPE_CHECKING:
    from codedtool.deploy.prediction import Prediction


@verb
@with_recipe_flags("device", "data", "data_dir", "precision", "eval_size")
def predict(
    images: Annotated[list[Path], typer.Argument(help="Image files.", show_default=False)],
    run: RunOption = None,
    binary_classifier: Annotated[
        Path | None, typer.Option("--bc", help="A binary classifier's file (codedtool bc --class) instead of a run.")
    ] = None,
    checkpoint: Checkpoint = "best",
    no_download: NoDownload = False,
    json_output: Json = False,
    quiet: Quiet = False,
    **values: object,
) -> None:
    """Predict the class of image files, with confidence, early decoders and path; or, with --bc, yes or no.

    The confidence is the accuracy of validation images with as many agreeing early decoders (table 3). It comes from
    RUN/analysis/; if it is not there, the command measures it first.
    """
    changes = given(values)
    if binary_classifier is not None:
        if run is not None or changes:
            raise InputError("`binary_classifier` is complete without a run: leave `run` and the recipe's flags out")
        with loading(quiet=quiet):
            from codedtool.deploy.classifier_file import load_binary_classifier
            from codedtool.deploy.prediction import predict_binary

            answers = predict_binary(load_binary_classifier(binary_classifier), images)
        if json_output:
            print_json([answer.to_json() for answer in answers])
        for answer in answers:
            say(
                f"{answer.image}: {'' if answer.accepted else 'not '}{answer.class_name} "
                f"(logit {answer.logit:.3f}, threshold {answer.threshold:.3f})",
                to_stderr=json_output,
            )
        return
    with (
        loading(quiet=quiet) as progress,
        opened(run, changes, progress=progress, checkpoint=checkpoint, no_download=no_download) as subject,
    ):
        from codedtool.analysis.decoding import decode, load_decoding
        from codedtool.analysis.result import save_result
        from codedtool.deploy.prediction import predict as analyse

        decoding = load_decoding(subject)
        if decoding is None and subject.network.block_names:
            decoding = decode(subject, progress=progress)
            save_result(subject.run, decoding)
        predictions = analyse(subject, images, confidence=None if decoding is None else decoding.confidence)
    if json_output:
        print_json([prediction.to_json() for prediction in predictions])
    for prediction in predictions:
        _describe(prediction, to_stderr=json_output)


def _describe(prediction: Prediction, *, to_stderr: bool) -> None:
    confidence = "" if prediction.confidence is None else f", confidence {prediction.confidence:.1%}"
    agreeing = (
        ""
        if prediction.agreeing is None
        else f" ({prediction.agreeing} of {len(prediction.path)} early decoders agree)"
    )
    others = ", ".join(f"{name} {probability:.1%}" for name, probability in prediction.alternatives)
    say(
        f"{prediction.image}: {prediction.class_name}{confidence}{agreeing}; softmax {prediction.probability:.1%}, "
        f"then {others}",
        to_stderr=to_stderr,
    )
    for part in prediction.path:
        say(
            f"  {part.block}: decoder {part.decoder}; codeword {part.codeword}, fired {part.fired} "
            f"({part.matching} of {len(part.codeword)} match)",
            to_stderr=to_stderr,
        )
