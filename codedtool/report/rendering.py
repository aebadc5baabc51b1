"""The text of the page: the template with the parts, and one script with its data as JSON, all in one file."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from codedtool import __version__
from codedtool.analysis.catalogue import CATALOGUE
from codedtool.report.parts import Part
from codedtool.report.paths import coded_structure
from codedtool.text import for_script, readable
from codedtool.training.subject import Subject

# The parts beside the analyses.
TRAINING, PATHS, SAMPLES, CLASSES = "training", "paths", "samples", "classes"

TITLES = {
    TRAINING: "Training",
    PATHS: "Paths",
    SAMPLES: "Sample images",
    **{row.name: row.title for row in CATALOGUE},
    CLASSES: "Class by class",
}
_TEXTS = {
    TRAINING: "Accuracy, losses and accuracy of the early decoders after every epoch (metrics.csv).",
    PATHS: "The path of a class consists of the subNNs that its codeword activates in every coded block. Below a class "
    "stand the classes that its validation images are most often taken for, and the subNNs that the two paths share.",
    SAMPLES: "Some validation images, wrong answers among them if there are any. A subNN fired if its energy "
    "r E(tbar_n) is nearer to 1 than to 0, the two targets of the coding loss (eq. 5).",
    **{row.name: row.text for row in CATALOGUE},
}

# The files of the page's script, in the order in which they are joined.
_SCRIPTS = ("common", "state", "cells", "tables", "network", "paths", "samples", "confusion", "classes", "start")


def render_page(subject: Subject, parts: Mapping[str, Part], skipped: Sequence[str]) -> str:
    """The text of the page.

    Args:
        subject: the run.
        parts: the parts by their names, in the page's order.
        skipped: what was left out, one text each with the reason.
    """
    environment = _environment()
    details = {key: part.details for key, part in parts.items()}
    by_class, evaluated = details.get(CLASSES, {}), details.get("eval", {})
    whole = by_class or evaluated
    script = page_script()
    return environment.get_template("report.html.j2").render(
        run=subject.run,
        recipe=subject.recipe,
        checkpoint=subject.checkpoint,
        accuracy=whole.get("accuracy"),
        num_images=whole.get("num_images"),
        plain_accuracy=evaluated.get("plain_accuracy"),
        schemes=list(subject.run.schemes.items()),
        parts=[
            {
                "key": key,
                "title": TITLES[key],
                "text": _TEXTS[key],
                "figures": [(one.alt, _svg_uri(one.svg), one.width) for one in part.figures],
                "tables": part.tables,
                "lines": part.lines,
            }
            for key, part in parts.items()
            if key != CLASSES
        ],
        samples=details.get(SAMPLES, {}).get("samples", ()),
        names=subject.classes,
        skipped=skipped,
        version=__version__,
        classes=by_class.get("classes"),
        classifiers=details.get("bc", {}).get("classifiers", {}),
        style=Markup(_source(environment, "page.css")),
        data=Markup(for_script(page_data(subject, details))),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def page_data(subject: Subject, details: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The data that the page's script draws, in JSON's types.

    Args:
        subject: the run.
        details: `Part.details` by the part's name.

    Returns:
        "classes": names of the K classes, as they are shown. "schemes" and "blocks": see `coded_structure`.
        "confusion": the confusion matrix in the form of `sparse_rows`; None if it was not measured.
        "energies": for every coded block and class, the mean energies of the subNNs in hundredths; None if not
            measured.
        "samples": the sample images without their pictures.
    """
    confusion = details.get("eval", {}).get("confusion") or details.get(PATHS, {}).get("confusion")
    return {
        "classes": [readable(name) for name in subject.classes],
        **coded_structure(subject),
        "confusion": confusion,
        "energies": details.get(CLASSES, {}).get("energies"),
        "samples": [
            {key: value for key, value in one.items() if key != "picture"} | {"name": readable(one["name"])}
            for one in details.get(SAMPLES, {}).get("samples", ())
        ],
    }


def page_script() -> str:
    """The page's script, which reads its data from the page; it is the same on every page."""
    environment = _environment()
    return "\n".join(_source(environment, f"scripts/{name}.js") for name in _SCRIPTS)


def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("codedtool.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        finalize=lambda value: readable(value) if type(value) is str else value,
    )


def _source(environment: Environment, name: str) -> str:
    """The content of a file beside the template, which is no template itself."""
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0].replace("\r\n", "\n")


def _svg_uri(svg: str) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"
