"""``codedtool predict``: what a run, or a binary classifier's file, says of images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from codedtool.cli.runs import Checkpoint, NoDownload, RunOption, given, loading, opened, with_recipe_flags
from codedtool.cli.session import Json, Quiet, in_flags, print_json, refuse_stated, say, verb
from codedtool.errors import InputError

if TYPE_CHECKING:
    from codedtool.budget import Progress
    from codedtool.deploy.prediction import Prediction
    from codedtool.training.evidence import Evidence
    from codedtool.training.subject import Subject


@verb
@with_recipe_flags("device", "data", "data_dir", "precision", "eval_size")
def predict(
    images: Annotated[list[Path] | None, typer.Argument(help="Image files.", show_default=False)] = None,
    sample: Annotated[
        int | None,
        typer.Option(
            "--sample", help="Predict this many validation images of the run's own data set.", min=1, show_default=False
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the draw of --sample.", min=0)] = 0,
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

    The confidence is the estimated accuracy of answers that as many early decoders agree with (table 3). An image is
    called unlike the training images if its energy score, or a block's distance to the codeword, is not usual; the last
    line of an image gives these scores. All of this was measured on the validation images when the run was trained;
    where it is not stored with the run, the command takes it from RUN/analysis/ or measures it first.
    """
    changes = given(values)
    if (sample is None) == (not images):
        raise InputError("give either `images` (files) or `sample` (a number of images of the run's own data set)")
    if sample is None:
        refuse_stated(["seed"], "needs `sample`: it draws validation images")
    if binary_classifier is not None:
        refuse_stated(["checkpoint", "no_download"], "has no effect beside `binary_classifier`, which reads no run")
        if run is not None or changes or images is None:
            raise InputError(
                "`binary_classifier` is complete without a run: leave `run`, `sample` and the recipe's flags out"
            )
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
        from codedtool.deploy.prediction import predict as predict_files
        from codedtool.deploy.prediction import predict_sample

        evidence, reason = _evidence(subject, progress, needs_data="data" in changes)
        if sample is None:
            predictions = predict_files(subject, images or [], evidence=evidence)
        else:
            predictions = predict_sample(subject, sample, evidence=evidence, seed=seed, progress=progress)
    if json_output:
        print_json([prediction.to_json() for prediction in predictions])
    for prediction in predictions:
        _describe(prediction, to_stderr=json_output)
    if reason and not quiet:
        say(f"no confidence: {in_flags(reason)}", to_stderr=True)


def _evidence(subject: Subject, progress: Progress, *, needs_data: bool) -> tuple[Evidence | None, str]:
    """The evidence for a run's predictions, and the reason why there is none, or "".

    It is that of the checkpoint; of runs of earlier versions, that of `decode`; else it is measured and kept. A run
    whose data set cannot be read, or whose folder cannot be written, still predicts.
    """
    from codedtool.analysis.decoding import load_evidence, measure_evidence

    found = subject.evidence() or load_evidence(subject)
    if found is not None or not subject.network.block_names:
        return found, ""
    try:
        return measure_evidence(subject, progress), ""
    except InputError as error:
        if needs_data:
            raise
        return None, str(error)


def _describe(prediction: Prediction, *, to_stderr: bool) -> None:
    agreeing = (
        "" if prediction.agreeing is None else f"{prediction.agreeing} of {len(prediction.path)} early decoders agree"
    )
    if prediction.confidence is not None:
        # Rounded down, so that it never reads 100%.
        images = f"{prediction.confidence_images:,} validation image" + "s" * (prediction.confidence_images != 1)
        about = f", confidence {int(1000 * prediction.confidence) / 10}% ({agreeing}; {images})"
    else:
        about = f" ({agreeing})" if agreeing else ""
    others = ", ".join(f"{name} {probability:.1%}" for name, probability in prediction.alternatives)
    actual = "" if prediction.actual is None else f" (it is {prediction.actual})"
    unlike = "; unlike the training images" if prediction.unlike else ""
    say(
        f"{prediction.image}: {prediction.class_name}{actual}{about}; softmax {prediction.probability:.1%}, "
        f"then {others}{unlike}",
        to_stderr=to_stderr,
    )
    for part in prediction.path:
        own, others_fired = (f"{fired} of {number}" for fired, number in (part.own, part.others))
        say(
            f"  {part.block}: decoder {part.decoder}; codeword {part.codeword}, fired {part.fired} "
            f"({own} own subNNs fired, {others_fired} others)",
            to_stderr=to_stderr,
        )
    if prediction.scores:
        say(f"  {_scores(prediction)}", to_stderr=to_stderr)


def _scores(prediction: Prediction) -> str:
    """The energy score beside the usual ones, and every codeword distance that is unusual."""
    low, high = (prediction.scores[f"{side} energy score"] for side in ("low", "high"))
    parts = [f"energy score {high.value:.2f} (usual: {-low.threshold:.2f} to {high.threshold:.2f})"]
    for name in prediction.unlike or ():
        if not name.endswith("energy score"):
            score = prediction.scores[name]
            parts.append(f"{name.replace(', ', ' in ')} {score.value:.2f} (usual: up to {score.threshold:.2f})")
    return "; ".join(parts)
