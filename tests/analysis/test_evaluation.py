"""``eval``: its new figures against scikit-learn's, its old ones against the training's, its tables and files."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, recall_score, top_k_accuracy_score

from codedtool.analysis.catalogue import analysis
from codedtool.analysis.evaluation import EvalResult, evaluate
from codedtool.analysis.result import save_result
from codedtool.budget import silent
from codedtool.data import Split
from codedtool.models import build_network
from codedtool.report.figures_evaluation import draw
from codedtool.training import evaluation
from codedtool.training.subject import Outputs, Subject, collect_outputs
from tests.subjects import make_subject, noise, noisy_data, randomize, settled_subject


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """A coded run whose answers differ; class 7 has no validation images and class 2 many."""
    subject = settled_subject(tmp_path_factory.mktemp("runs"))
    data = subject.data
    more = noise(10, 9, seed=8)
    kept = np.isin(more.targets, [2, 4, 5])
    targets = np.concatenate([data.val.targets, more.targets[kept]])
    images = np.concatenate([data.val.images, more.images[kept]])
    val = Split(images[targets != 7], targets[targets != 7])
    changed = replace(data, val=val)
    return replace(subject, find_data=lambda: changed)


@pytest.fixture(scope="module")
def result(subject: Subject) -> EvalResult:
    return evaluate(subject)


@pytest.fixture(scope="module")
def outputs(subject: Subject) -> Outputs:
    return collect_outputs(subject, subject.data.val)


def test_old_figures_are_the_trainings_bit_for_bit(subject: Subject, result: EvalResult) -> None:
    means = evaluation.evaluate(
        subject.network,
        subject.data.val,
        subject.run.normalization,
        subject.recipe,
        subject.runtime,
        crop_part=subject.run.crop_part,
        progress=silent,
    )
    assert {key: getattr(result, key) for key in means} == means


def test_new_figures_are_scikit_learns(result: EvalResult, outputs: Outputs) -> None:
    targets, predictions = outputs.targets.numpy(), outputs.predictions.numpy()
    logits = outputs.logits.double().numpy()
    present = [number for number in range(10) if number != 7]
    assert result.accuracy == pytest.approx((targets == predictions).mean())
    assert result.top5_accuracy == pytest.approx(top_k_accuracy_score(targets, logits, k=5, labels=range(10)))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "y_pred contains classes not in y_true")
        assert result.balanced_accuracy == pytest.approx(balanced_accuracy_score(targets, predictions))
    recalls = recall_score(targets, predictions, labels=present, average=None)
    assert [result.classes[number].accuracy for number in present] == pytest.approx(list(recalls))
    assert result.balanced_accuracy != pytest.approx(result.accuracy)
    assert (np.array(result.confusion) == confusion_matrix(targets, predictions, labels=range(10))).all()
    assert [one.num_images for one in result.classes] == np.bincount(targets, minlength=10).tolist()
    empty = result.classes[7]
    assert (empty.num_images, empty.accuracy, empty.taken_for) == (0, None, None)


def test_the_most_frequent_confusion_of_a_class_is_named(result: EvalResult) -> None:
    for number, one in enumerate(result.classes):
        wrong = {other: count for other, count in enumerate(result.confusion[number]) if other != number and count}
        assert one.taken_for == (str(max(wrong, key=lambda other: wrong[other])) if wrong else None)


def test_json_csv_and_figure_have_every_class(subject: Subject, result: EvalResult) -> None:
    document = json.loads(json.dumps(result.to_json()))
    assert set(document) >= {"accuracy", "loss", "coding_loss", "top5_accuracy", "balanced_accuracy", "classes"}
    assert sum(sum(row.values()) for row in document["confusion"].values()) == result.num_images
    files = save_result(subject.run, result, analysis("eval").draw(result))
    assert {path.name for path in files} == {
        "eval.json",
        "eval.csv",
        "eval_classes.csv",
        "eval_confusion.csv",
        "eval_confusion.png",
    }
    folder = files[0].parent
    assert len((folder / "eval_classes.csv").read_text().splitlines()) == 1 + 10
    of, for_, count = (folder / "eval_confusion.csv").read_text().splitlines()[1].split(",")
    assert result.confusion[int(of)][int(for_)] == int(count)


def of_classes(folder: Path, num_classes: int) -> EvalResult:
    """The result of a plain network with random weights on noise."""
    network = randomize(build_network("resnext_tiny", num_classes=num_classes))
    data = noisy_data(tuple(f"kind {number}" for number in range(num_classes)), train=1, val=2)
    return evaluate(make_subject(folder, network, data, schemes={}, preset="resnext_tiny", batch_size=100))


def test_few_classes_have_no_top5_and_many_are_cut_in_the_table(tmp_path: Path) -> None:
    few, many = of_classes(tmp_path / "few", 5), of_classes(tmp_path / "many", 50)
    assert few.top5_accuracy is None
    assert "top-5" not in " ".join(few.lines())
    (table,) = few.tables()
    assert len(table.rows) == 5
    (table,) = many.tables()
    assert len(table.rows) == 10
    assert "10 lowest of 50, all in eval_classes.csv" in table.caption
    lowest = sorted(one.accuracy for one in many.classes if one.accuracy is not None)[:10]
    assert [row[2] for row in table.rows] == [f"{100 * accuracy:.2f}" for accuracy in lowest]
    assert len(many.rows()["eval_classes"]) == 50
    for result in (few, many):
        (drawing,) = draw(result)
        (shares,) = [image.get_array() for image in drawing.figure.axes[0].images]
        assert torch.tensor(np.asarray(shares)).sum(1).tolist() == pytest.approx([100] * len(result.classes))
