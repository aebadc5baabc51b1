"""Costs: parameter fractions and multiply-adds of the paper's networks, and a count that leaves no trace."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from codedtool.analysis.cost import (
    CostResult,
    NetworkCost,
    Timing,
    compare_steadily,
    cost,
    count_kept_bytes,
    count_macs,
    count_parameters,
)
from codedtool.models import CodedNetwork, Output, build_network
from codedtool.models.coded_sum import CodedSum
from codedtool.models.pruning import extract_binary_classifier
from tests.subjects import make_subject, noisy_data, randomize, shipped, tiny_plain, tiny_schemes

pytestmark = pytest.mark.quick

# preset -> schemes, and what a binary classifier keeps of the parameters, in %: of all, and without projections.
FRACTIONS = {
    "coded_resnext29_10x11d": (("c10_5of10", "c10_3of10"), 46.3, 37.2),
    "coded_resnext29_20x6d": (("c100_8of20", "c100_4of20"), 37.4, 27.1),
    "coded_resnext50_32x4d": (("in1k_16of32", "in1k_8of32"), 41.6, 34.4),
}


@pytest.fixture
def tiny() -> CodedNetwork:
    return randomize(build_network("coded_resnext_tiny", tiny_schemes()))


@pytest.mark.parametrize("preset", FRACTIONS)
def test_a_binary_classifier_keeps_the_paper_s_part_of_the_parameters(preset: str) -> None:
    names, of_all, without_projections = FRACTIONS[preset]
    # Without memory or random numbers: only shapes count.
    with torch.device("meta"):
        network = build_network(preset, [shipped(name) for name in names])
    classifier = extract_binary_classifier(network, 0)
    percent = 100 * count_parameters(classifier) / count_parameters(network)
    assert percent == pytest.approx(of_all, abs=0.05)
    percent = 100 * count_parameters(classifier, projections=False) / count_parameters(network, projections=False)
    assert percent == pytest.approx(without_projections, abs=0.05)


def test_parameters_without_projections_are_all_but_the_shortcuts_convolutions(tiny: CodedNetwork) -> None:
    expected = sum(value.numel() for name, value in tiny.named_parameters() if ".shortcut.0." not in name)
    assert count_parameters(tiny, projections=False) == expected < count_parameters(tiny)


def test_multiply_adds_of_the_plain_resnext50_are_those_of_table_5() -> None:
    with torch.device("meta"):
        network = build_network("resnext50_32x4d").eval()
        macs = count_macs(network, torch.empty(1, 3, 160, 160))
    assert macs / 1e9 == pytest.approx(2.196, rel=0.02)
    # By hand: outputs times inputs of every convolution, and the linear layer.
    sizes: list[int] = []
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(
                lambda conv, _, output: sizes.append(output[0].numel() * conv.weight[0].numel())  # type: ignore[misc]
            )
    with torch.no_grad():
        network(torch.empty(1, 3, 160, 160, device="meta"))
    assert macs == sum(sizes) + 2048 * 1000


def test_multiply_adds_are_per_image_and_of_a_classifier_fewer(tiny: CodedNetwork) -> None:
    one, three = (count_macs(tiny, torch.zeros(number, 3, 8, 8)) for number in (1, 3))
    assert one == three
    # W_n^T W_n is a batch's, not an image's: beside a plain network there are the Gram matrices and their products.
    grams = 0
    for block in tiny.coded_blocks:
        width = block.grouped_bn.num_features // 10
        grams += 10 * width**2 * (16 + 1)
    assert one - count_macs(tiny_plain(), torch.zeros(1, 3, 8, 8)) == grams
    assert count_macs(extract_binary_classifier(tiny, 0), torch.zeros(1, 3, 8, 8)) < 0.8 * one


@pytest.mark.parametrize("training", [False, True])
def test_counting_kept_bytes_leaves_the_network_as_it_was(tiny: CodedNetwork, training: bool) -> None:
    tiny.train(training)
    before = {key: value.clone() for key, value in tiny.state_dict().items()}
    addresses = {key: value.data_ptr() for key, value in tiny.state_dict().items()}
    count_kept_bytes(tiny, torch.randn(4, 3, 8, 8))
    assert any("running_mean" in key for key in before)
    for key, value in tiny.state_dict().items():
        assert torch.equal(value, before[key]), key
        assert value.data_ptr() == addresses[key], key
    assert all(module.training == training for module in tiny.modules())
    assert all(parameter.grad is None for parameter in tiny.parameters())


def test_kept_bytes_of_a_chain_are_its_activations() -> None:
    """A network of stem and head alone keeps what one can list: inputs of BatchNorm and of ReLU's backward."""
    network = CodedNetwork({}, 2, {}, num_classes=2, stem_channels=8)
    kept = count_kept_bytes(network, torch.randn(64, 3, 16, 16))
    # Outputs of convolution and ReLU in float32; the rest is small beside them.
    assert kept == pytest.approx(2 * 8 * 16 * 16 * 4, rel=0.05)


def test_a_coded_network_keeps_about_as_much_as_the_plain_one() -> None:
    """Not the N outputs of every block (table 5: 12.7 GB against 12.3)."""
    images = torch.randn(4, 3, 32, 32)
    coded = build_network("coded_resnext_tiny", tiny_schemes())
    plain = build_network("resnext_tiny")
    ratio = count_kept_bytes(coded, images) / count_kept_bytes(plain, images)
    assert 0.9 < ratio < 1.3
    outputs = sum(
        4 * 10 * block.expand_bn.num_features * 16 * 16 for block in coded.blocks if isinstance(block.expand, CodedSum)
    )
    assert count_kept_bytes(coded, images) < outputs


def test_speeds_are_compared_in_turns() -> None:
    calls: list[str] = []
    works = [lambda: calls.append("a"), lambda: calls.append("b")]
    timings = compare_steadily(works, device=torch.device("cpu"), rounds=3, most_rounds=3)
    seconds = [timing.seconds for timing in timings]
    assert calls == ["a", "b"] * 4
    assert len(seconds) == 2
    assert all(second >= 0 for second in seconds)


def test_unsteady_timings_are_repeated_and_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("codedtool.analysis.cost.time.perf_counter", lambda: clock[0])

    def work(durations: Iterator[float]) -> Callable[[], None]:
        def wait() -> None:
            clock[0] += next(durations)

        return wait

    cpu = torch.device("cpu")

    def timed(*durations: Iterator[float]) -> list[Timing]:
        return compare_steadily([work(each) for each in durations], device=cpu, rounds=5, most_rounds=20)

    assert timed(itertools.repeat(2.0), itertools.repeat(1.0)) == [(2.0, False), (1.0, False)]
    steady, noisy = timed(itertools.repeat(1.0), itertools.cycle([1.0, 3.0, 5.0, 7.0]))
    assert steady == (1.0, False)
    assert noisy.is_noisy
    # The first rounds are disturbed, and later ones are not.
    recovering = timed(itertools.chain([9.0, 1.0, 4.0, 1.0, 6.0, 1.0], itertools.repeat(1.0)))
    assert recovering == [(1.0, False)]


def test_a_noisy_speed_is_marked_in_the_table() -> None:
    networks = [NetworkCost("coded", 10, 10, 100, 4, None, 1.0, 1.0, is_noisy) for is_noisy in (True, False)]
    for one, mark in zip(networks, ("~1.0", "1.0"), strict=True):
        result = CostResult("tiny", 8, 2, "cpu", "fp32", (one,), ())
        (table,) = result.tables()
        assert table.rows[0][3:5] == (mark, mark)
        assert bool(result.lines()) == one.is_noisy


def test_table_5_of_a_run(tiny: CodedNetwork, tmp_path: Path) -> None:
    data = noisy_data(tuple("0123456789"), train=1, val=1)
    subject = make_subject(tmp_path, tiny, data, schemes=tiny_schemes())
    before = {key: value.clone() for key, value in tiny.state_dict().items()}
    result = cost(subject, class_name="4")
    assert [one.name for one in result.networks] == ["coded", "plain", "binary classifier of 4"]
    coded, plain, classifier = result.networks
    assert coded.parameters == plain.parameters == sum(parameter.numel() for parameter in tiny.parameters())
    assert plain.macs < coded.macs < 1.2 * plain.macs
    assert classifier.parameters < coded.parameters
    assert classifier.macs < coded.macs
    assert all(one.images_per_second > one.training_images_per_second > 0 for one in result.networks)
    rows = result.network_rows()
    assert rows[0]["macs_ratio"] == rows[0]["speed_ratio"] == 1
    assert rows[2]["parameters_ratio"] == classifier.parameters / coded.parameters
    assert json.loads(json.dumps(result.to_json(), allow_nan=False))["networks"] == rows
    assert all(torch.equal(value, before[key]) for key, value in tiny.state_dict().items())
    assert all(parameter.grad is None for parameter in tiny.parameters())


def test_passes_are_timed_in_the_run_s_precision_and_training_mode(tiny: CodedNetwork, tmp_path: Path) -> None:
    data = noisy_data(tuple("0123456789"), train=1, val=1)
    subject = make_subject(tmp_path, tiny, data, schemes=tiny_schemes(), precision="bf16")
    passes: list[tuple[bool, bool, torch.dtype]] = []

    def seen(network: nn.Module, _: object, output: Output) -> None:
        passes.append((torch.is_grad_enabled(), network.training, output.logits.dtype))

    tiny.register_forward_hook(seen)
    result = cost(subject)
    assert (result.precision, result.to_json()["precision"]) == ("bf16", "bf16")
    assert "bf16" in result.tables()[0].caption
    # Counts are of single passes in float32.
    assert passes.count((False, False, torch.bfloat16)) > 5
    assert passes.count((True, True, torch.bfloat16)) > 5
    assert not tiny.training


def test_a_plain_run_costs_itself_alone_and_says_so(tmp_path: Path) -> None:
    network = randomize(build_network("resnext_tiny"))
    data = noisy_data(tuple("0123456789"), train=1, val=1)
    result = cost(make_subject(tmp_path, network, data, schemes={}, preset="resnext_tiny"))
    assert [one.name for one in result.networks] == ["plain"]
    assert "trained without schemes" in result.skipped[0]
