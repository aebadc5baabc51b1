"""Binary classifiers of 100 classes on drawn pairs of image and class, against one extracted network after another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from codedtool.analysis import classifier_pairs
from codedtool.analysis.bc import bc
from codedtool.analysis.binary import measure, sample_negatives, share_negatives
from codedtool.analysis.classifier_metrics import evaluate_classifiers
from codedtool.analysis.classifier_pairs import Pairs
from codedtool.analysis.classifier_scores import CODED, FULL, PLAIN, PLAIN_FULL
from codedtool.analysis.classifiers import BinaryClassifiers, Shared
from codedtool.coding.scheme import CodingScheme
from codedtool.data import ImageData, Split, normalize
from codedtool.errors import InputError
from codedtool.models import CodedNetwork
from codedtool.models.network import Stage
from codedtool.models.pruning import extract_binary_classifier
from codedtool.training.subject import Subject
from tests.subjects import make_subject, noisy_data, randomize, shipped, with_batches_of

CLASSES = tuple(f"class {number}" for number in range(100))
SEED = 4
# Classes that the literal loops look at; the others only take their negatives.
SOME = (0, 5, 37, 98)


def schemes() -> dict[str, CodingScheme]:
    return {"s2": shipped("c100_8of20"), "s3": shipped("c100_4of20")}


def network(own: dict[str, CodingScheme], seed: int) -> CodedNetwork:
    """A network of 100 classes with an uncoded stage, and strides in both others."""
    stages = {"s1": Stage(8, 1, 1, 1), "s2": Stage(16, 2, 2, 2), "s3": Stage(16, 2, 1, 2)}
    return randomize(CodedNetwork(stages, 20, own, num_classes=100, stem_channels=8), seed=seed)


@pytest.fixture
def subjects(tmp_path: Path) -> tuple[Subject, Subject]:
    """A coded and a plain run on the same noise: 2 training and 2 validation images of each of 100 classes."""
    data = noisy_data(CLASSES, train=2, val=2)
    return (
        make_subject(tmp_path, network(schemes(), 5), data, schemes=schemes(), name="coded", batch_size=64),
        make_subject(tmp_path, network({}, 6), data, schemes={}, preset="resnext_tiny", name="plain", batch_size=64),
    )


def foreign() -> ImageData:
    return noisy_data(("x", "y"), train=1, val=20, name="other", seed=3)


def inputs_of(subject: Subject, split: Split) -> torch.Tensor:
    assert isinstance(split.images, np.ndarray)
    return normalize(torch.from_numpy(split.images).permute(0, 3, 1, 2), subject.run.normalization)


def literal_logits(subject: Subject, split: Split, k: int, *, whole: bool) -> list[float]:
    """The logits of class k for every image, of its extracted network or of the whole one."""
    net = subject.network if whole else extract_binary_classifier(subject.network, k, schemes=schemes())
    with torch.no_grad():
        return net(inputs_of(subject, split)).logits[:, k if whole else 0].tolist()


def literal_threshold(scores: list[float], positives: list[int], negatives: list[int]) -> tuple[float, float]:
    """The lowest accepted score at the highest F1 over a set of images, and this F1; the highest one if several tie."""
    best, found = -1.0, 0.0
    for candidate in sorted({scores[i] for i in (*positives, *negatives)}, reverse=True):
        hits = sum(scores[i] >= candidate for i in positives)
        false = sum(scores[i] >= candidate for i in negatives)
        f1 = 2 * hits / (hits + false + len(positives))
        if f1 > best:
            best, found = f1, candidate
    return found, best


@pytest.mark.parametrize(
    ("classes", "group_bytes", "cpu_images"),
    [pytest.param(range(100), 1 << 29, 32, marks=pytest.mark.slow), ((98, *SOME[:3]), 60_000, 3)],
    ids=["all classes, one group", "some classes, many groups"],
)
def test_thresholds_and_metrics_are_those_of_a_literal_loop_over_the_drawn_pairs(
    subjects: tuple[Subject, Subject],
    classes: Sequence[int],
    group_bytes: int,
    cpu_images: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(classifier_pairs, "_GROUP_BYTES", group_bytes)
    monkeypatch.setattr(classifier_pairs, "_CPU_BYTES", 1)
    monkeypatch.setattr(classifier_pairs, "_CPU_IMAGES", cpu_images)
    subject, plain = subjects
    ood = foreign()
    result = evaluate_classifiers(subject, classes, plain=plain, ood=ood, seed=SEED)
    assert (result.negatives_per_positive, result.threshold_negatives_per_positive) == (9, 9)
    assert [one.class_name for one in result.histograms] == [CLASSES[k] for k in classes[:10]]
    train, val = subject.data.train, subject.data.val
    shared = share_negatives(train.targets, 100, per_positive=9, seed=SEED)
    kinds = {CODED: (subject, False), FULL: (subject, True), PLAIN: (plain, False), PLAIN_FULL: (plain, True)}
    for source, (run, whole) in kinds.items():
        assert [one.class_index for one in result.of(source)] == list(classes)
        for k in SOME:
            one = result.of(source)[classes.index(k)]
            scores = literal_logits(run, train, k, whole=whole)
            positives = [i for i, target in enumerate(train.targets) if target == k]
            lowest, f1 = literal_threshold(scores, positives, shared[k].tolist())
            below = max((scores[i] for i in (*positives, *shared[k]) if scores[i] < lowest), default=lowest)
            assert one.threshold == pytest.approx((lowest + below) / 2, abs=1e-4)
            assert one.train_f1 == pytest.approx(f1)
            # The metrics' negatives are drawn class by class, as they always were.
            rng = np.random.default_rng((SEED, k))
            of_class, others = np.flatnonzero(val.targets == k), np.flatnonzero(val.targets != k)
            negatives = sample_negatives(2, others, per_positive=9, rng=rng)
            chosen = sample_negatives(2, np.arange(40), per_positive=9, rng=rng)
            val_scores = np.float32(literal_logits(run, val, k, whole=whole))
            ood_scores = np.float32(literal_logits(run, ood.val, k, whole=whole))
            for found, against in ((one.val, val_scores[negatives]), (one.ood, ood_scores[chosen])):
                both = np.concatenate([val_scores[of_class], against])
                assert found is not None
                wanted = measure(both, np.arange(20) < 2, one.threshold)
                assert found.to_json() == pytest.approx(wanted.to_json())


def test_batches_and_single_classes_decide_nothing(subjects: tuple[Subject, Subject]) -> None:
    subject, plain = subjects
    whole = evaluate_classifiers(subject, range(100), plain=plain, seed=SEED)
    for other, classes in ((with_batches_of(subject, 7), SOME), (subject, [37]), (subject, [98, 5])):
        for one in evaluate_classifiers(other, classes, plain=plain, seed=SEED).classifiers:
            same = whole.of(one.source)[one.class_index]
            assert one.row() == {
                key: value if isinstance(value, str) else pytest.approx(value, abs=1e-5)
                for key, value in same.row().items()
            }
    others = evaluate_classifiers(subject, SOME, seed=SEED + 1)
    assert [one.threshold for one in others.of(CODED)] != [whole.of(CODED)[k].threshold for k in SOME]


def test_no_pass_of_many_images_is_so_small_that_its_convolutions_are_slow(
    subjects: tuple[Subject, Subject], monkeypatch: pytest.MonkeyPatch
) -> None:
    subject, _ = subjects
    monkeypatch.setattr(classifier_pairs, "_CPU_BYTES", 1)
    passes: list[int] = []
    usual = BinaryClassifiers.scores_of

    def noted(self: BinaryClassifiers, class_index: int, shared: Shared) -> torch.Tensor:
        passes.append(len(shared.h_BDHW))
        return usual(self, class_index, shared)

    monkeypatch.setattr(BinaryClassifiers, "scores_of", noted)
    # More pairs of a class than one pass has, and fewer than three have.
    for count in range(33, 50):
        pairs = Pairs.of({0: np.arange(count)})
        passes.clear()
        classifier_pairs.score_pairs(subject, BinaryClassifiers(subject.network, [0]), subject.data.train, pairs)
        assert sum(passes) == count
        assert 16 <= min(passes) <= max(passes) <= 32


def test_an_image_passes_the_trunk_once_and_ten_tails(
    subjects: tuple[Subject, Subject], monkeypatch: pytest.MonkeyPatch
) -> None:
    subject, _ = subjects
    passes = {"shared": 0, "whole_logits": 0, "scores_of": 0}
    for name in passes:
        plain_method = getattr(BinaryClassifiers, name)

        def counted(
            self: BinaryClassifiers, *arguments: object, name: str = name, method: object = plain_method
        ) -> object:
            given = arguments[-1]
            passes[name] += len(given if isinstance(given, torch.Tensor) else given.h_BDHW)  # type: ignore[attr-defined]
            return method(self, *arguments)  # type: ignore[operator]

        monkeypatch.setattr(BinaryClassifiers, name, counted)
    evaluate_classifiers(subject, range(100), seed=SEED)
    # 200 training images and at most 200 validation images; one image of each split finds the size of a pass.
    assert passes["scores_of"] == 2 * 100 * 2 * 10
    assert 200 + 150 < passes["whole_logits"] <= 400
    assert passes["shared"] == passes["whole_logits"] + 2
    # What an earlier analysis has computed is not computed again, and changes nothing.
    first = evaluate_classifiers(subject, SOME, seed=SEED)
    subject.outputs()
    before = passes["whole_logits"]
    known = evaluate_classifiers(subject, range(100), seed=SEED)
    assert passes["whole_logits"] == before + 200
    for one in first.classifiers:
        assert one.row() == {
            key: value if isinstance(value, str) else pytest.approx(value, abs=1e-5)
            for key, value in known.of(one.source)[one.class_index].row().items()
        }


def test_with_all_negatives_thresholds_come_from_every_training_image(subjects: tuple[Subject, Subject]) -> None:
    subject, _ = subjects
    drawn = evaluate_classifiers(subject, SOME, seed=SEED)
    every = evaluate_classifiers(subject, SOME, seed=SEED, all_negatives=True)
    assert every.threshold_negatives_per_positive is None
    assert [one.threshold for one in every.of(CODED)] != [one.threshold for one in drawn.of(CODED)]
    train = subject.data.train
    for number, k in enumerate(SOME):
        scores = literal_logits(subject, train, k, whole=False)
        positives, others = (np.flatnonzero(is_there).tolist() for is_there in (train.targets == k, train.targets != k))
        one, other = every.of(CODED)[number], drawn.of(CODED)[number]
        assert one.train_f1 == pytest.approx(literal_threshold(scores, positives, others)[1])
        # The same validation images are judged, so what needs no threshold is the same.
        assert one.val.average_precision == pytest.approx(other.val.average_precision)


@pytest.mark.filterwarnings("ignore:the binary classifier of")
def test_the_document_and_the_lines_say_which_negatives_gave_the_threshold(subjects: tuple[Subject, Subject]) -> None:
    subject, _ = subjects
    for all_negatives, count, words in (
        (False, 9, "9 drawn negatives per positive"),
        (True, None, "all training images"),
    ):
        result = bc(subject, class_name="class 37", force=True, seed=SEED, all_negatives=all_negatives)
        assert result.documents()["bc_class_37"]["threshold_negatives_per_positive"] == count
        assert result.lines()[0] == f"thresholds: from {words}; metrics: on 9 drawn negatives per positive"


def test_images_that_cannot_be_read_are_left_out_of_the_pairs(
    subjects: tuple[Subject, Subject], tmp_path: Path
) -> None:
    subject, _ = subjects
    train = subject.data.train
    assert isinstance(train.images, np.ndarray)
    paths = []
    for number, pixels in enumerate(train.images):
        paths.append(str(tmp_path / f"{number}.png"))
        Image.fromarray(pixels).save(paths[-1])
    bad = int(np.flatnonzero(train.targets == 5)[0])
    Path(paths[bad]).write_bytes(b"no image")
    files = replace(subject.data, train=Split(tuple(paths), train.targets, skip_bad_images=True))
    shared = share_negatives(train.targets, 100, per_positive=9, seed=SEED)
    hit = [5, *(k for k in range(100) if bad in shared[k])]
    assert len(hit) >= 9
    with pytest.warns(UserWarning, match=f"{bad}.png"):
        result = evaluate_classifiers(replace(subject, find_data=lambda: files), hit, seed=SEED)
    for number, k in enumerate(hit):
        scores = literal_logits(subject, train, k, whole=False)
        positives = [i for i in np.flatnonzero(train.targets == k).tolist() if i != bad]
        _, f1 = literal_threshold(scores, positives, [i for i in shared[k].tolist() if i != bad])
        assert result.of(CODED)[number].train_f1 == pytest.approx(f1)
    none = replace(
        subject.data, train=Split(tuple(paths[bad : bad + 1]), train.targets[bad : bad + 1], skip_bad_images=True)
    )
    with pytest.raises(InputError, match="no image of a split can be read"), pytest.warns(match=f"{bad}.png"):
        evaluate_classifiers(replace(subject, find_data=lambda: none), [5], seed=SEED)


def test_a_class_without_images_is_refused(subjects: tuple[Subject, Subject]) -> None:
    subject, _ = subjects
    without = {
        name: split.taking(np.flatnonzero(split.targets != 37))
        for name, split in (("train", subject.data.train), ("val", subject.data.val))
    }
    messages = {"train": "class 37 has no training image to choose", "val": "class 'class 37' has no validation image"}
    for name, message in messages.items():
        data = replace(subject.data, **{name: without[name]})  # type: ignore[arg-type]
        for classes in ([37], range(100)):
            with pytest.raises(InputError, match=message):
                evaluate_classifiers(replace(subject, find_data=lambda data=data: data), classes)
