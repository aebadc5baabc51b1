"""Binary classifiers: thresholds, metrics, extraction, tables and files against brute force, sklearn and zeroing."""

from __future__ import annotations

import json
import pickletools
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score, precision_score, recall_score

from codedtool.analysis import bc as bc_module
from codedtool.analysis import classifiers as classifiers_module
from codedtool.analysis.bc import CODED, FULL, PLAIN, PLAIN_FULL, evaluate_classifiers
from codedtool.analysis.binary import best_f1_thresholds, measure, sample_negatives
from codedtool.analysis.classifiers import BinaryClassifiers
from codedtool.coding.scheme import CodingScheme
from codedtool.data import normalize
from codedtool.deploy.classifier_file import load_binary_classifier, save_binary_classifier
from codedtool.errors import InputError
from codedtool.models import CodedNetwork, build_network
from codedtool.models.network import Stage
from codedtool.models.pruning import active_channels, extract_binary_classifier, keep_masks_of_class
from codedtool.training.subject import NotApplicableError, Subject
from tests.subjects import make_subject, noisy_data, randomize, shipped, tiny_schemes, with_batches_of

DIGITS = tuple("0123456789")

# Few values, so that ties are common; neighbours in float32, between which there is no threshold.
ONE = float(np.float32(1))
NEXT = float(np.nextafter(np.float32(1), np.float32(2)))
HUGE = float(np.finfo(np.float32).max)
scores_lists = st.lists(
    st.tuples(st.sampled_from([-HUGE, -2.5, -0.0, 0.0, 0.5, ONE, NEXT, 3.0, HUGE]), st.booleans()),
    min_size=1,
    max_size=12,
).filter(lambda rows: any(positive for _, positive in rows))


def brute_force_f1(scores: np.ndarray, positives: np.ndarray) -> float:
    """The highest F1 over every set that some threshold accepts, and none."""
    best = 0.0
    for threshold in np.unique(scores):
        accepted = scores >= threshold
        hits = int((accepted & positives).sum())
        best = max(best, 2 * hits / int(accepted.sum() + positives.sum()))
    return best


@given(scores_lists)
def test_no_threshold_has_a_higher_f1_and_the_rule_reproduces_it(rows: list[tuple[float, bool]]) -> None:
    scores = np.array([score for score, _ in rows], dtype=np.float32)
    positives = np.array([positive for _, positive in rows])
    thresholds, f1 = best_f1_thresholds(torch.from_numpy(scores)[:, None], torch.from_numpy(positives)[:, None])
    assert float(f1[0]) == pytest.approx(brute_force_f1(scores, positives), abs=1e-12)
    assert thresholds.dtype == torch.float32
    accepted = scores >= thresholds[0].numpy()
    assert 2 * (accepted & positives).sum() / (accepted.sum() + positives.sum()) == pytest.approx(float(f1[0]))
    # And so through JSON, as the classifier's file keeps it.
    threshold = json.loads(json.dumps(float(thresholds[0])))
    assert (torch.from_numpy(scores) >= threshold).tolist() == accepted.tolist()


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 5), st.integers(1, 6))
def test_every_column_has_its_own_threshold(seed: int, images: int, columns: int, levels: int) -> None:
    rng = np.random.default_rng(seed)
    scores = torch.from_numpy(rng.integers(0, levels, (images, columns)).astype(np.float32))
    positives = torch.from_numpy(rng.random((images, columns)) < 0.4)
    positives[rng.integers(images)] = True
    thresholds, f1 = best_f1_thresholds(scores, positives)
    for column in range(columns):
        alone = best_f1_thresholds(scores[:, [column]], positives[:, [column]])
        assert (float(thresholds[column]), float(f1[column])) == (float(alone[0]), float(alone[1]))
        assert float(f1[column]) == pytest.approx(
            brute_force_f1(scores[:, column].numpy(), positives[:, column].numpy())
        )


def test_a_threshold_lies_halfway_below_the_lowest_accepted_score() -> None:
    scores = torch.tensor([[4.0], [3.0], [1.0], [0.0]])
    positives = torch.tensor([[True], [True], [False], [False]])
    thresholds, f1 = best_f1_thresholds(scores, positives)
    assert (float(thresholds[0]), float(f1[0])) == (2.0, 1.0)
    neighbours, _ = best_f1_thresholds(torch.tensor([[NEXT], [ONE]]), torch.tensor([[True], [False]]))
    assert float(neighbours[0]) == NEXT


def test_of_equally_good_thresholds_the_highest_is_taken() -> None:
    # Accepting one or all three gives F1 = 2/3 or 4/5; accepting one, or one and two negatives more, would tie.
    scores = torch.tensor([[5.0], [4.0], [3.0], [2.0]])
    positives = torch.tensor([[True], [False], [False], [True]])
    _, f1 = best_f1_thresholds(scores, positives)
    assert float(f1[0]) == pytest.approx(2 / 3)
    assert float(best_f1_thresholds(scores, positives)[0][0]) == 4.5


def test_a_class_without_a_positive_and_a_score_that_is_not_finite_are_refused() -> None:
    positives = torch.tensor([[True, False], [False, False]])
    with pytest.raises(InputError, match="class 1 has no image"):
        best_f1_thresholds(torch.zeros(2, 2), positives)
    for value in (float("nan"), float("inf")):
        with pytest.raises(InputError, match="not finite"):
            best_f1_thresholds(torch.tensor([[value], [0.0]]), positives[:, :1])


@given(scores_lists, st.sampled_from([-HUGE, -1.0, 0.0, ONE, NEXT, HUGE]))
def test_metrics_are_those_of_sklearn(rows: list[tuple[float, bool]], threshold: float) -> None:
    scores = np.array([score for score, _ in rows], dtype=np.float32)
    positives = np.array([positive for _, positive in rows])
    if positives.all():
        with pytest.raises(InputError, match="positives and negatives"):
            measure(scores, positives, threshold)
        return
    metrics = measure(scores, positives, threshold)
    accepted = scores >= np.float32(threshold)
    assert metrics.precision == pytest.approx(precision_score(positives, accepted, zero_division=0))
    assert metrics.recall == pytest.approx(recall_score(positives, accepted))
    assert metrics.f1 == pytest.approx(f1_score(positives, accepted))
    assert metrics.average_precision == pytest.approx(average_precision_score(positives, scores))
    assert (metrics.num_positives, metrics.num_negatives) == (positives.sum(), (~positives).sum())


def test_precision_is_zero_where_nothing_is_accepted() -> None:
    metrics = measure(np.array([0.0, 1.0], np.float32), np.array([True, False]), 2.0)
    assert (metrics.precision, metrics.recall, metrics.f1) == (0.0, 0.0, 0.0)


@given(st.integers(1, 8), st.integers(0, 100), st.sampled_from([None, 1, 9]), st.integers(0, 9))
def test_negatives_are_distinct_and_the_seed_repeats_them(
    positives: int, num_negatives: int, per_positive: int | None, seed: int
) -> None:
    negatives = np.arange(num_negatives) * 3 + 1
    first, second = (
        sample_negatives(positives, negatives, per_positive=per_positive, rng=np.random.default_rng(seed))
        for _ in range(2)
    )
    assert np.array_equal(first, second)
    assert set(first.tolist()) <= set(negatives.tolist())
    assert len(set(first.tolist())) == len(first)
    size = num_negatives if per_positive is None else min(num_negatives, per_positive * positives)
    assert len(first) == size


def test_another_seed_draws_other_negatives() -> None:
    draws = [
        sample_negatives(2, np.arange(1000), per_positive=9, rng=np.random.default_rng(seed)).tolist()
        for seed in range(2)
    ]
    assert draws[0] != draws[1]


@pytest.fixture(scope="module")
def coded() -> CodedNetwork:
    """The coded tiny network."""
    return randomize(build_network("coded_resnext_tiny", tiny_schemes()))


@pytest.fixture(scope="module")
def plain() -> CodedNetwork:
    """Its plain control."""
    return randomize(build_network("resnext_tiny"), seed=6)


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def zeroed_logits(
    network: CodedNetwork, schemes: Mapping[str, CodingScheme], class_index: int, x: torch.Tensor
) -> torch.Tensor:
    """Logit of a class of a plain network, in which the channels of the class's inactive subNNs are set to zero."""
    handles = []
    for stage, block in zip(network.block_stages, network.blocks, strict=True):
        if stage not in schemes:
            continue
        bits = schemes[stage].table[class_index]
        width = block.grouped_bn.num_features // len(bits)
        keep = torch.tensor([float(bit) for bit in bits for _ in range(width)])[None, :, None, None]
        # On the way into the sum; the channels that stay see no other ones before it.
        handles.append(block.expand.register_forward_pre_hook(lambda _, inputs, keep=keep: (inputs[0] * keep,)))
    try:
        with torch.no_grad():
            return network(x).logits[:, class_index]
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("kept_bytes", [1 << 30, 0, 40_000])
def test_classifiers_together_are_each_extracted_network_and_the_masked_one(
    coded: CodedNetwork, images: torch.Tensor, kept_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classifiers_module, "_KEPT_BYTES", kept_bytes)
    indices = (3, 0, 9, 4)
    together = BinaryClassifiers(coded, indices)
    # Two batches: what is kept of the first serves the second.
    for batch in (images, images.flip(0)[:3]):
        scores = together.scores(batch)
        assert (scores.shape, scores.dtype) == ((len(batch), 4), torch.float32)
        for column, k in enumerate(indices):
            with torch.no_grad():
                extracted = extract_binary_classifier(coded, k)(batch).logits[:, 0]
                masked = coded(batch, keep_masks=keep_masks_of_class(coded, k)).logits[:, k]
            assert (scores[:, column] - extracted).abs().max() <= 1e-5 * extracted.abs().max().clamp_min(1)
            assert (scores[:, column] - masked).abs().max() <= 1e-5 * masked.abs().max().clamp_min(1)
    assert len({tuple(column.tolist()) for column in scores.T}) == 4, "the classes should differ"


@pytest.mark.parametrize("stages", [("s2", "s3"), ("s2",), ("s3",)])
@pytest.mark.parametrize("kept_bytes", [1 << 30, 0])
def test_classifiers_of_a_plain_network_are_its_inactive_subnns_set_to_zero(
    plain: CodedNetwork,
    images: torch.Tensor,
    stages: tuple[str, ...],
    kept_bytes: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(classifiers_module, "_KEPT_BYTES", kept_bytes)
    schemes = {stage: tiny_schemes()[stage] for stage in stages}
    scores = BinaryClassifiers(plain, range(10), schemes=schemes).scores(images)
    with torch.no_grad():
        whole = plain(images).logits
    for k in range(10):
        expected = zeroed_logits(plain, schemes, k, images)
        assert not torch.allclose(expected, whole[:, k], atol=1e-2), "zeroing should change something"
        tolerance = 1e-5 * float(expected.abs().max().clamp_min(1))
        with torch.no_grad():
            extracted = extract_binary_classifier(plain, k, schemes=schemes)(images).logits[:, 0]
        assert float((scores[:, k] - expected).abs().max()) <= tolerance
        assert float((extracted - expected).abs().max()) <= tolerance


def test_an_extraction_leaves_the_network_and_shares_no_memory_with_it(coded: CodedNetwork) -> None:
    before = {key: value.clone() for key, value in coded.state_dict().items()}
    smaller = extract_binary_classifier(coded, 2)
    assert not smaller.training
    assert not any(module.training for module in smaller.modules())
    addresses = {value.untyped_storage().data_ptr() for value in coded.state_dict().values()}
    assert not addresses & {value.untyped_storage().data_ptr() for value in smaller.state_dict().values()}
    for value in smaller.state_dict().values():
        value.zero_()
    assert all(torch.equal(value, before[key]) for key, value in coded.state_dict().items())
    for stage, block in zip(smaller.block_stages, smaller.blocks, strict=True):
        act = {"s1": 10, "s2": 5, "s3": 3}[stage]
        width = {"s1": 2, "s2": 4, "s3": 8}[stage]
        assert (block.reduce.out_channels, block.grouped.groups) == (act * width, act)


def test_active_channels_are_those_of_the_ones_of_the_codeword(coded: CodedNetwork) -> None:
    scheme = tiny_schemes()["s3"]
    for k in range(10):
        expected = [n * 8 + c for n in range(10) if scheme.table[k, n] for c in range(8)]
        assert active_channels(coded.blocks[-1], scheme, k).tolist() == expected


def test_schemes_that_do_not_fit_are_refused(coded: CodedNetwork, plain: CodedNetwork) -> None:
    with pytest.raises(InputError, match="N=20 and K=100"):
        BinaryClassifiers(plain, [0], schemes={"s2": shipped("c100_8of20")})
    with pytest.raises(InputError, match="no stage of the network has a scheme"):
        BinaryClassifiers(plain, [0])
    for k in (-1, 10):
        with pytest.raises(InputError, match="classes are 0 to 9"):
            extract_binary_classifier(coded, k)


def test_a_block_is_its_bottleneck_and_its_join(coded: CodedNetwork, plain: CodedNetwork) -> None:
    targets = torch.tensor([1, 2])
    keep, drop = torch.ones(2, 10), torch.ones(2, 10)
    keep[0, :3], drop[1, 4:] = 0, 0
    for network in (coded, plain):
        block = network.blocks[-1]
        x = torch.randn(2, block.expand_bn.num_features, 4, 4)
        masks = {"drop_mask": drop, "keep_mask": keep} if network is coded else {}
        with torch.no_grad():
            whole = block(x, targets, **masks)
            parts = block.join(block.bottleneck(x), block.shortcut(x), targets, **masks)
        for one, other in zip(whole, parts, strict=True):
            assert (one is None) == (other is None)
            assert one is None or torch.equal(one, other)
        # No subNN's bottleneck sees another's: a change of one's weights stays in its channels.
        with torch.no_grad():
            before = block.bottleneck(x)
            block.reduce.weight[16:24] += 1
            after = block.bottleneck(x)
            block.reduce.weight[16:24] -= 1
        changed = (before != after).any(dim=3).any(dim=2).any(dim=0)
        assert changed[16:24].any()
        assert not changed[:16].any()
        assert not changed[24:].any()


# Evaluation of many classes.


@pytest.fixture
def subjects(tmp_path: Path, coded: CodedNetwork, plain: CodedNetwork) -> tuple[Subject, Subject]:
    """A coded and a plain run on the same noise."""
    data = noisy_data(DIGITS, train=6, val=4)
    return (
        make_subject(tmp_path, coded, data, schemes=tiny_schemes(), name="coded"),
        make_subject(tmp_path, plain, data, schemes={}, preset="resnext_tiny", name="plain"),
    )


def test_a_table_is_what_a_literal_loop_measures(subjects: tuple[Subject, Subject]) -> None:
    subject, plain = subjects
    ood = noisy_data(("x", "y"), train=1, val=7, name="other", seed=3)
    result = evaluate_classifiers(subject, [7, 2], plain=plain, ood=ood)
    assert result.sources == (CODED, FULL, PLAIN, PLAIN_FULL)
    assert [(one.source, one.class_index) for one in result.classifiers] == [
        (source, k) for source in result.sources for k in (7, 2)
    ]
    pixels = {
        "train": subject.data.train.images,
        "val": subject.data.val.images,
        "ood": ood.val.images,
    }
    inputs = {
        name: normalize(torch.from_numpy(array).permute(0, 3, 1, 2), subject.run.normalization)  # type: ignore[arg-type]
        for name, array in pixels.items()
    }
    for one in result.classifiers:
        k = one.class_index
        with torch.no_grad():
            scores = {
                name: {
                    CODED: lambda x, k=k: subject.network(x, keep_masks=keep_masks_of_class(subject.network, k)).logits,
                    FULL: lambda x: subject.network(x).logits,
                    PLAIN: lambda x, k=k: zeroed_logits(plain.network, tiny_schemes(), k, x)[:, None].expand(-1, 10),
                    PLAIN_FULL: lambda x: plain.network(x).logits,
                }[one.source](x)[:, k].numpy()
                for name, x in inputs.items()
            }
        assert one.train_f1 == pytest.approx(brute_force_f1(scores["train"], subject.data.train.targets == k))
        val_positive = subject.data.val.targets == k
        accepted = scores["val"] >= one.threshold
        assert one.val.recall == pytest.approx(recall_score(val_positive, accepted))
        assert one.val.precision == pytest.approx(precision_score(val_positive, accepted, zero_division=0))
        assert one.val.average_precision == pytest.approx(average_precision_score(val_positive, scores["val"]))
        assert (one.val.num_positives, one.val.num_negatives) == (4, 36)
        assert one.ood is not None
        assert one.ood.recall == one.val.recall, "the same positives"
        false = int((scores["ood"] >= one.threshold).sum())
        hits = int((accepted & val_positive).sum())
        assert one.ood.precision == pytest.approx(hits / (hits + false) if hits + false else 0)
        assert one.ood.num_negatives == 14
    for row in result.means():
        mine = result.of(row["source"])
        assert row["val_f1"] == pytest.approx(sum(one.val.f1 for one in mine) / 2)
        assert row["ood_precision"] == pytest.approx(sum(one.ood.precision for one in mine if one.ood) / 2)
    assert json.loads(json.dumps(result.to_json(), allow_nan=False))["ood"] == "other"


def test_groups_of_classes_and_batches_decide_nothing(
    subjects: tuple[Subject, Subject], monkeypatch: pytest.MonkeyPatch
) -> None:
    subject, plain = subjects
    whole = evaluate_classifiers(subject, range(10), plain=plain)
    passes = []
    # Two scorers of 60 training images: three classes a group, so four groups.
    monkeypatch.setattr(bc_module, "_SCORE_BYTES", 3 * 4 * 2 * 60)

    def progress(phase: str, done: float, total: float | None, note: str = "") -> None:
        if phase not in passes:
            passes.append(phase)

    smaller = with_batches_of(subject, 7)
    grouped = evaluate_classifiers(smaller, range(10), plain=plain, progress=progress)
    assert "scoring train images, 3 classes" in passes
    assert "scoring train images, 1 classes" in passes
    assert [one.class_name for one in grouped.histograms] == list(DIGITS)
    assert [one.row().keys() for one in grouped.classifiers] == [one.row().keys() for one in whole.classifiers]
    for one, other in zip(whole.classifiers, grouped.classifiers, strict=True):
        for key, value in one.row().items():
            found = other.row()[key]
            assert found == (value if isinstance(value, str) else pytest.approx(value, abs=1e-5)), key


def test_histograms_are_densities_of_the_scores(subjects: tuple[Subject, Subject]) -> None:
    subject, _ = subjects
    (histogram,) = evaluate_classifiers(subject, [4]).histograms
    assert (len(histogram.edges), len(histogram.positives), histogram.ood) == (41, 40, None)
    width = histogram.edges[1] - histogram.edges[0]
    assert sum(histogram.positives) * width == pytest.approx(1, abs=1e-4)
    assert sum(histogram.negatives) * width == pytest.approx(1, abs=1e-4)
    counts = np.array(histogram.positives) * width * 4
    assert np.allclose(counts, np.round(counts), atol=1e-3), "of four positives"


def test_a_run_that_cannot_be_compared_is_refused_before_the_work(
    subjects: tuple[Subject, Subject], tmp_path: Path
) -> None:
    subject, plain = subjects

    def never(*_: object) -> None:
        raise AssertionError("the work began")

    with pytest.raises(InputError, match="was trained with schemes: name a run of the plain control"):
        evaluate_classifiers(subject, [0], plain=subject, progress=never)
    with pytest.raises(NotApplicableError, match="trained without schemes"):
        evaluate_classifiers(plain, [0], progress=never)
    renamed = replace(plain, run=replace(plain.run, classes=tuple(reversed(DIGITS))))
    with pytest.raises(InputError, match="has other classes"):
        evaluate_classifiers(subject, [0], plain=renamed, progress=never)
    wider = CodedNetwork({"s2": Stage(32, 2, 1, 1)}, 20, {}, num_classes=10, stem_channels=8)
    other = replace(plain, network=wider.eval())
    with pytest.raises(InputError, match="N=20"):
        evaluate_classifiers(subject, [0], plain=other, progress=never)


def test_from_100_classes_on_there_are_9_negatives_for_each_positive(tmp_path: Path) -> None:
    classes = tuple(f"class {number}" for number in range(100))
    schemes = {"s2": shipped("c100_8of20"), "s3": shipped("c100_4of20")}
    stages = {"s2": Stage(16, 2, 1, 2), "s3": Stage(16, 2, 1, 1)}
    network = randomize(CodedNetwork(stages, 20, schemes, num_classes=100, stem_channels=8))
    data = noisy_data(classes, train=2, val=3)
    subject = make_subject(tmp_path, network, data, schemes=schemes, batch_size=100)
    ood = noisy_data(("x",), train=1, val=40, name="other", seed=2)
    results = [evaluate_classifiers(subject, indices, ood=ood, seed=4) for indices in (range(100), [5, 98], range(100))]
    assert results[0].negatives_per_positive == 9
    for one in results[0].classifiers:
        assert one.ood is not None
        assert (one.val.num_positives, one.val.num_negatives, one.ood.num_negatives) == (3, 27, 27)
    # A class's draw is its own, and the seed's.
    assert results[0] == results[2]
    for one in results[1].classifiers:
        (same,) = [other for other in results[0].of(one.source) if other.class_index == one.class_index]
        assert one.val.average_precision == pytest.approx(same.val.average_precision)
    others = evaluate_classifiers(subject, range(100), seed=5)
    assert others.means()[0]["val_average_precision"] != results[0].means()[0]["val_average_precision"]
    assert len(results[0].histograms) == 10


# The file.

READ_SCRIPT = """
import json, sys
import torch
from codedtool.deploy.classifier_file import load_binary_classifier
classifier = load_binary_classifier(sys.argv[1])
x = torch.load(sys.argv[2], weights_only=True)
with torch.no_grad():
    logits = classifier.network(x).logits[:, 0]
print(json.dumps({
    "logits": logits.tolist(), "accepts": classifier.accepts(logits).tolist(), "class": classifier.class_name,
    "training": classifier.network.training, "size": classifier.image_size, "threshold": classifier.threshold,
    "mean": classifier.normalization.mean, "metadata": classifier.metadata, "metrics": classifier.metrics,
}))
"""


@pytest.fixture
def saved(subjects: tuple[Subject, Subject], tmp_path: Path) -> Path:
    """The file of class 3."""
    path = tmp_path / "out" / "three.safetensors"
    return save_binary_classifier(subjects[0], 3, path, threshold=0.25, metrics={"val_f1": 0.5})


def test_a_file_gives_the_same_logits_in_a_fresh_process(
    saved: Path, subjects: tuple[Subject, Subject], images: torch.Tensor, tmp_path: Path
) -> None:
    torch.save(images, tmp_path / "x.pt")
    arguments = [sys.executable, "-c", READ_SCRIPT, str(saved), str(tmp_path / "x.pt")]
    finished = subprocess.run(arguments, capture_output=True, text=True, check=True, timeout=120)
    document = json.loads(finished.stdout)
    subject = subjects[0]
    with torch.no_grad():
        expected = subject.network(images, keep_masks=keep_masks_of_class(subject.network, 3)).logits[:, 3]
    assert document["logits"] == pytest.approx(expected.tolist(), rel=1e-5, abs=1e-5)
    assert document["accepts"] == (expected >= 0.25).tolist()
    assert (document["class"], document["training"], document["size"]) == ("3", False, 8)
    assert (document["threshold"], document["metrics"]) == (0.25, {"val_f1": 0.5})
    assert document["mean"] == list(subject.run.normalization.mean)
    assert document["metadata"]["scheme.s3"] == tiny_schemes()["s3"].sha256
    assert document["metadata"]["checkpoint"] == subject.checkpoint


def test_neither_file_holds_a_pickle(saved: Path) -> None:
    weights = saved.read_bytes()
    length = int.from_bytes(weights[:8], "little")
    header = json.loads(weights[8 : 8 + length])
    sizes = [entry["data_offsets"] for key, entry in header.items() if key != "__metadata__"]
    assert max(end for _, end in sizes) == len(weights) - 8 - length, "nothing behind the tensors"
    assert header["__metadata__"] == {"class": "3"}
    with pytest.raises(ValueError, match=r".*"):
        list(pickletools.genops(weights))
    json.loads(saved.with_suffix(".json").read_text())
    assert sorted(path.name for path in saved.parent.iterdir()) == ["three.json", "three.safetensors"]


def test_an_existing_file_of_the_two_is_kept_unless_forced(saved: Path, subjects: tuple[Subject, Subject]) -> None:
    before = {path: path.read_bytes() for path in saved.parent.iterdir()}
    for gone in (None, saved):
        if gone is not None:
            gone.unlink()
        with pytest.raises(InputError, match="exists already"):
            save_binary_classifier(subjects[0], 4, saved, threshold=0, metrics={})
    assert saved.with_suffix(".json").read_bytes() == before[saved.with_suffix(".json")]
    save_binary_classifier(subjects[0], 4, saved, threshold=0, metrics={}, force=True)
    assert load_binary_classifier(saved.with_suffix(".json")).class_name == "4"
    with pytest.raises(InputError, match=r"\.safetensors file"):
        save_binary_classifier(subjects[0], 4, saved.with_suffix(".pt"), threshold=0, metrics={})


def edit(path: Path, **changes: object) -> None:
    """Change keys of a JSON document; None removes one."""
    document = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in document.items() if value is not None}))


def test_what_is_damaged_or_does_not_fit_together_is_named(
    saved: Path, subjects: tuple[Subject, Subject], tmp_path: Path
) -> None:
    description = saved.with_suffix(".json")
    whole = {path: path.read_bytes() for path in (saved, description)}
    other = tmp_path / "other.safetensors"
    save_binary_classifier(subjects[0], 5, other, threshold=1, metrics={})

    def refused(match: str) -> None:
        with pytest.raises(InputError, match=match):
            load_binary_classifier(saved)
        for path, content in whole.items():
            path.write_bytes(content)
        load_binary_classifier(saved)

    saved.write_bytes(whole[saved][: len(whole[saved]) // 2])
    refused("is damaged")
    saved.write_bytes(b"")
    refused("is damaged")
    flipped = bytearray(whole[saved])
    flipped[-1] ^= 0x40
    saved.write_bytes(flipped)
    refused("another SHA-256")
    # Of the same shapes: nothing but the SHA-256 can tell.
    description.write_bytes(other.with_suffix(".json").read_bytes())
    refused("another SHA-256")
    saved.write_bytes(other.read_bytes())
    refused("another SHA-256")
    description.write_text("{")
    refused("is damaged")
    description.write_bytes(b"\xff\xfe")
    refused("is damaged")
    description.write_text("[1]")
    refused("are not one binary classifier")
    description.unlink()
    refused("three.json does not exist")
    saved.unlink()
    refused("three.safetensors does not exist")
    edit(description, format=7)
    refused("format 7")
    edit(description, format=None)
    refused("are not one binary classifier: 'format'")
    for key in ("threshold", "codewords", "normalization", "weights_sha256", "provenance"):
        edit(description, **{key: None})
        refused(f"are not one binary classifier: '{key}'")
    edit(description, preset="coded_resnext_tinny")
    refused("did you mean coded_resnext_tiny")
    edit(description, preset="coded_resnext29_20x6d")
    refused("N=20")
    edit(description, preset="coded_resnext29_10x11d")
    refused("are not one binary classifier")
    edit(description, codewords={"s2": [1] * 6 + [0] * 4, "s3": [1] * 3 + [0] * 7})
    refused("are not one binary classifier")
    for word in ("1010", [300] * 10, [[1, 0], [1]], [1] * 10):
        edit(description, codewords={"s2": word})
        refused("are not one binary classifier|codeword|0 or 1")
    edit(description, threshold="much")
    refused("are not one binary classifier")


def test_classes_with_any_name_go_into_a_file_and_come_back(
    tmp_path: Path, subjects: tuple[Subject, Subject], images: torch.Tensor
) -> None:
    subject = subjects[0]
    names = ("great grey/owl", "..", "é ü", 'quo"te', *DIGITS[4:])
    named = replace(subject, run=replace(subject.run, classes=names))
    for k, name in enumerate(names[:4]):
        path = tmp_path / f"{k}.safetensors"
        save_binary_classifier(named, k, path, threshold=0, metrics={})
        assert load_binary_classifier(path).class_name == name


def test_a_run_with_one_coded_stage_goes_into_a_file_too(tmp_path: Path, images: torch.Tensor) -> None:
    schemes = {"s2": tiny_schemes()["s2"]}
    network = randomize(build_network("coded_resnext_tiny", schemes))
    subject = make_subject(tmp_path, network, noisy_data(DIGITS, train=1, val=1), schemes=schemes, name="half")
    classifier = load_binary_classifier(
        save_binary_classifier(subject, 8, tmp_path / "a.safetensors", threshold=0, metrics={})
    )
    with torch.no_grad():
        expected = network(images, keep_masks=keep_masks_of_class(network, 8)).logits[:, 8]
        assert torch.allclose(classifier.network(images).logits[:, 0], expected, atol=1e-5)
        assert torch.allclose(BinaryClassifiers(network, [8]).scores(images)[:, 0], expected, atol=1e-5)
