"""Streaming histograms against numpy's, and figure 6's distributions against the tensor of all outputs."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch.nn import functional

from codedtool.analysis.activations import StreamingHistogram, activations, default_block
from codedtool.coding.scheme import CodingScheme
from codedtool.data import Split, load_dataset, normalize
from codedtool.errors import InputError
from codedtool.models import build_network
from codedtool.models.coded_sum import CodedSum
from codedtool.report.figures_activations import draw_activations
from codedtool.training.devices import opened_runtime
from codedtool.training.recipes import recipe_for
from codedtool.training.run import Run
from codedtool.training.subject import NotApplicableError, Subject
from tests.subjects import make_subject, noisy_data, randomize

pytestmark = pytest.mark.quick

NUM_IMAGES = 30

finite = st.floats(0, 2.0**100, width=32)


@settings(max_examples=150, deadline=None)
@given(
    batches=st.lists(arrays.arrays(np.float32, st.integers(0, 40), elements=finite | st.floats(0, 4, width=32))),
    bins=st.sampled_from([2, 8, 64, 256]),
)
def test_a_histogram_counts_as_numpy_does(batches: list[np.ndarray], bins: int) -> None:
    histogram = StreamingHistogram(bins=bins)
    for batch in batches:
        histogram.add(torch.from_numpy(batch))
    values = np.concatenate([*batches, np.empty(0, np.float32)])
    expected, edges = np.histogram(values.astype(np.float64), bins=bins, range=(0, histogram.limit))
    assert histogram.edges == tuple(edges)
    assert histogram.counts == tuple(expected)
    assert histogram.total == len(values)
    assert np.log2(histogram.limit).is_integer()
    if len(values):
        assert values.max() < histogram.limit
        assert histogram.limit == 2**-20 or values.max() >= histogram.limit / 2
        assert histogram.mean == pytest.approx(values.astype(np.float64).mean(), rel=1e-5)
    else:
        assert histogram.mean is None
        assert histogram.quantile(0.5) is None


@settings(max_examples=60, deadline=None)
@given(
    values=arrays.arrays(np.float32, st.integers(1, 60), elements=st.floats(0, 9, width=32)),
    part=st.floats(0, 1),
)
def test_a_quantile_is_within_a_bin_of_the_exact_one(values: np.ndarray, part: float) -> None:
    histogram = StreamingHistogram()
    histogram.add(torch.from_numpy(values))
    exact = np.quantile(values, part, method="inverted_cdf")
    quantile = histogram.quantile(part)
    assert quantile is not None
    assert abs(quantile - exact) <= histogram.limit / 64 * (1 + 1e-6)


def test_counts_are_exact_beyond_what_float32_can_count() -> None:
    histogram = StreamingHistogram()
    for _ in range(5):
        histogram.add(torch.full((1 << 22,), 0.25))
    assert histogram.counts[32] == histogram.total == 5 << 22


def test_widening_moves_no_number() -> None:
    values = torch.rand(1000, generator=torch.Generator().manual_seed(0))
    early, late = StreamingHistogram(), StreamingHistogram()
    early.widen(100)
    early.add(values)
    late.add(values)
    late.widen(100)
    assert early.edges == late.edges
    assert early.counts == late.counts
    assert early.limit == 128


@pytest.mark.parametrize("bad", [-1e-3, float("inf"), float("nan")])
def test_a_histogram_refuses_what_is_no_magnitude(bad: float) -> None:
    with pytest.raises(InputError, match="finite numbers of at least 0"):
        StreamingHistogram().add(torch.tensor([0.5, bad]))


@pytest.mark.parametrize("bins", [0, 1, 6, 512])
def test_a_histogram_refuses_a_number_of_bins(bins: int) -> None:
    with pytest.raises(InputError, match=f"power of two from 2 to 256, got {bins}"):
        StreamingHistogram(bins=bins)


@pytest.fixture
def subject(scheme: CodingScheme, tmp_path: Path) -> Iterator[Subject]:
    """A tiny coded network with weights and statistics as after some training, and a few digits."""
    torch.set_num_threads(1)
    recipe = recipe_for("digits").with_values(
        {"preset": "coded_resnext_tiny", "batch_size": 30, "device": "cpu", "precision": "fp32"}
    )
    data = load_dataset("digits")
    run = Run.create(recipe, {"s3": scheme}, data.classes, data.normalization, name="a", folder=tmp_path)
    network = run.build_network().eval()
    generator = torch.Generator().manual_seed(5)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor, low in ((module.weight, 0.5), (module.running_var, 0.5), (module.running_mean, -0.5)):
                tensor.data = torch.rand(tensor.shape, generator=generator) + low
    some = replace(data, val=Split(data.val.images[:NUM_IMAGES], data.val.targets[:NUM_IMAGES]))
    with opened_runtime(recipe) as runtime:
        yield Subject(run, network, recipe, runtime, "epoch1", lambda: some)


def literal_outputs(subject: Subject, block: str) -> torch.Tensor:
    """|tbar_n| (B, N, C, H, W), all in memory, in float64: eq. 2 and 3 as they are written."""
    network = subject.network
    number = network.block_names.index(block)
    features = normalize(torch.from_numpy(subject.data.val.images).permute(0, 3, 1, 2), subject.run.normalization)
    with torch.no_grad():
        features = network.stem(features)
        for before in network.blocks[: network.coded_indices[number]]:
            features = before(features).features
        module = network.coded_blocks[number]
        h = functional.relu(module.reduce_bn(module.reduce(features)))
        h = functional.relu(module.grouped_bn(module.grouped(h))).double()
        assert isinstance(module.expand, CodedSum)
        weight, d = module.expand.conv.weight.double(), h.shape[1] // 10
        parts = [slice(n * d, (n + 1) * d) for n in range(10)]
        t = torch.stack([functional.conv2d(h[:, part], weight[:, part]) for part in parts], dim=1)
        average = (t**2).mean(dim=(2, 3, 4)).mean(dim=1)
        return (t / average.sqrt()[:, None, None, None, None]).abs()


@pytest.mark.parametrize(("block", "batch_size"), [("s3.1", 30), ("s3.2", 30), ("s3.2", 7)])
def test_distributions_are_those_of_the_literal_outputs(subject: Subject, block: str, batch_size: int) -> None:
    subject = replace(subject, recipe=subject.recipe.with_values({"batch_size": batch_size}))
    result = activations(subject, block=block, num_subnns=4)
    outputs = literal_outputs(subject, block)
    table = subject.network.schemes["s3"].table
    assert (result.block, result.num_images, len(result.subnns)) == (block, NUM_IMAGES, 4)
    for subnn in result.subnns:
        is_active = torch.tensor(table[subject.data.val.targets, subnn.subnn]).bool()
        highest = 0.0
        for (_, part), mask in zip(subnn.parts, (is_active, ~is_active), strict=True):
            values = outputs[mask, subnn.subnn].flatten().numpy()
            expected, _ = np.histogram(values, bins=subnn.edges)
            assert sum(part.counts) == len(values)
            # float32 against float64: a value at an edge may be on either side of it.
            assert np.abs(np.array(part.counts) - expected).sum() <= 1e-4 * len(values)
            assert part.mean == pytest.approx(values.mean(), rel=1e-5)
            assert part.p99 == pytest.approx(np.quantile(values, 0.99), abs=subnn.edges[1])
            highest = max(highest, values.max())
        assert subnn.edges[-1] / 2 <= highest < subnn.edges[-1]


def test_the_default_is_the_second_coded_block_of_the_last_coded_stage(scheme: CodingScheme, subject: Subject) -> None:
    assert activations(subject, num_subnns=1).block == "s3.2"
    assert default_block(build_network("coded_resnext_tiny", {"s2": scheme})) == "s2.2"
    assert default_block(build_network("coded_resnext_tiny", {"s1": scheme})) == "s1.1"


def test_a_kind_without_images_is_empty(subject: Subject) -> None:
    zeros = subject.data.val.targets == 0
    val = Split(np.asarray(subject.data.val.images)[zeros], subject.data.val.targets[zeros])
    only = replace(subject.data, val=val)
    result = activations(replace(subject, find_data=lambda: only), num_subnns=2)
    first, second = result.subnns  # table 4: class 0 activates subNN 0 and not subNN 1
    assert first.inactive.mean is first.inactive.p99 is second.active.mean is None
    assert sum(first.inactive.counts) == 0 < sum(first.active.counts)
    assert json.loads(json.dumps(result.to_json()))["subnns"][0]["inactive"]["mean"] is None
    draw_activations(result).savefig(io.BytesIO(), format="png")


def test_rows_are_densities_that_sum_to_one(subject: Subject) -> None:
    result = activations(subject, num_subnns=2, bins=8)
    rows = result.rows()["activations"]
    assert len(rows) == 2 * 2 * 8
    for subnn in range(2):
        for kind in ("active", "inactive"):
            part = [row for row in rows if (row["subnn"], row["class"]) == (subnn, kind)]
            assert sum(row["density"] * (row["to"] - row["from"]) for row in part) == pytest.approx(1)


def test_the_figure_has_a_panel_per_subnn_on_a_log_scale(subject: Subject) -> None:
    figure = draw_activations(activations(subject, num_subnns=7))
    assert len(figure.axes) == 7
    assert {axes.get_yscale() for axes in figure.axes} == {"log"}
    assert [len(axes.patches) for axes in figure.axes] == [2] * 7


def test_errors_are_clear(subject: Subject, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'s2.1' is no coded block"):
        activations(subject, block="s2.1")
    for number in (0, 11):
        with pytest.raises(InputError, match=f"`num_subnns` must be from 1 to the block's N = 10, got {number}"):
            activations(subject, num_subnns=number)
    recipe = subject.recipe.with_values({"preset": "resnext_tiny"})
    plain = Run.create(recipe, {}, subject.classes, subject.run.normalization, name="plain", folder=tmp_path)
    with pytest.raises(NotApplicableError, match="activations needs coded blocks"):
        activations(replace(subject, run=plain, network=plain.build_network().eval()))


@pytest.mark.parametrize("length", [4, 10])
def test_the_first_five_subnns_are_shown_or_all_of_fewer(length: int, tmp_path: Path) -> None:
    rows = list(itertools.islice(itertools.combinations(range(length), 2), 6))
    scheme = CodingScheme([[int(n in ones) for n in range(length)] for ones in rows])
    preset = "coded_resnext_tiny" if length == 10 else f"coded_resnext_tiny_{length}"
    network = randomize(build_network(preset, {"s3": scheme}))
    data = noisy_data(tuple("abcdef"), train=1, val=2)
    subject = make_subject(tmp_path, network, data, schemes={"s3": scheme}, preset=preset)
    assert len(activations(subject).subnns) == min(5, length)
