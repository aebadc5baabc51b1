"""Early decoders, agreement and early exits against loops over single images; predictions of image files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from codedtool.analysis.cost import NOISY, count_macs
from codedtool.analysis.decoding import (
    Agreement,
    DecodeResult,
    ExitPoint,
    agreement_table,
    decode,
    load_decoding,
    load_evidence,
    measure_evidence,
)
from codedtool.analysis.early_exit import ExitRule, exit_macs, exits_of, margins, predict_with_exit
from codedtool.analysis.result import save_result
from codedtool.errors import InputError
from codedtool.models import CodedNetwork, build_network
from codedtool.training.subject import NotApplicableError, Outputs, Subject, collect_outputs
from tests.subjects import (
    DIGITS,
    make_subject,
    noisy_data,
    randomize,
    settle,
    settled_subject,
    tiny_schemes,
    with_batches_of,
)

LAYERS = 4
IMAGES = 160
TABLES = [torch.from_numpy(tiny_schemes()[stage].table.copy()) for stage in ("s2", "s2", "s3", "s3")]
RULES = [ExitRule("agree", m) for m in range(1, LAYERS + 2)] + [
    ExitRule("margin", margin) for margin in (0, 0.001, 0.01, 0.03, 0.1, 0.3, 1)
]


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randn(IMAGES, 3, 8, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


@pytest.fixture(scope="module")
def network(images: torch.Tensor) -> CodedNetwork:
    """The coded tiny network, in double precision, so that rounding decides no exit."""
    return settle(randomize(build_network("coded_resnext_tiny", tiny_schemes())).double(), images)


@pytest.fixture(scope="module")
def outputs(network: CodedNetwork, images: torch.Tensor) -> Outputs:
    """What the whole network says, with targets that it hits now and then."""
    with torch.no_grad():
        output = network(images)
    targets = output.logits.argmax(1)
    targets[::3] = 7
    return Outputs(output.logits, targets, output.energies, torch.stack(network.decode(output.energies), dim=1))


@pytest.fixture
def subject(tmp_path: Path) -> Subject:
    return settled_subject(tmp_path)


def literal_margin(energies: list[float], table: np.ndarray) -> float:
    """How much nearer the nearest codeword is than the second, by squared distances to the scaled energies.

    Codewords have one norm: |v - w|^2 = |v|^2 + N_act - 2 <v, w>, so half the difference is that of the products.
    """
    act = int(table[0].sum())
    v = np.array(energies, dtype=np.float64) * act / sum(energies)
    nearest, second = sorted(float(((v - word.astype(np.float64)) ** 2).sum()) for word in table)[:2]
    return (second - nearest) / 2 / act


def literal_exit(outputs: Outputs, image: int, rule: ExitRule) -> tuple[int, int]:
    """Answer and block of one image, decided block by block."""
    seen: list[int] = []
    for number, table in enumerate(TABLES):
        energies = outputs.energies[number][image].tolist()
        act = int(table[0].sum())
        v = np.array(energies) * act / sum(energies)
        seen.append(int(np.argmin([((v - word.numpy()) ** 2).sum() for word in table])))
        if rule.kind == "agree":
            last = seen[-int(rule.value) :]
            stops = len(last) == rule.value and len(set(last)) == 1
        else:
            stops = literal_margin(energies, table.numpy()) >= rule.value - 1e-12
        if stops:
            return seen[-1], number
    return int(outputs.logits[image].argmax()), LAYERS


def test_agreement_is_what_a_loop_counts(outputs: Outputs) -> None:
    rows = agreement_table(outputs)
    assert [row.agreeing for row in rows] == [0, 1, 2, 3, 4]
    for row in rows:
        right = [
            bool(outputs.logits[n].argmax() == outputs.targets[n])
            for n in range(len(outputs.targets))
            if sum(int(c) == int(outputs.logits[n].argmax()) for c in outputs.decoded[n]) == row.agreeing
        ]
        assert row.num_images == len(right)
        assert row.accuracy == (pytest.approx(sum(right) / len(right)) if right else None)
    assert sum(row.num_images for row in rows) == IMAGES
    assert sum(row.num_images > 0 for row in rows) >= 3, "several rows should be filled"


@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.integers(0, 6))
def test_agreement_of_any_outputs_is_what_a_loop_counts(seed: int, images: int, layers: int) -> None:
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(rng.random((images, 3)))
    decoded = torch.from_numpy(rng.integers(0, 3, (images, layers)))
    targets = torch.from_numpy(rng.integers(0, 3, images))
    counts: dict[int, list[int]] = {number: [0, 0] for number in range(layers + 1)}
    for n in range(images):
        answer = int(logits[n].argmax())
        agreeing = decoded[n].tolist().count(answer)
        counts[agreeing][0] += 1
        counts[agreeing][1] += answer == int(targets[n])
    rows = agreement_table(Outputs(logits, targets, (), decoded))
    assert [row.num_images for row in rows] == [counts[number][0] for number in range(layers + 1)]
    for row in rows:
        size, right = counts[row.agreeing]
        assert row.accuracy == (pytest.approx(right / size) if size else None)


@given(st.lists(st.lists(st.floats(1e-3, 10), min_size=10, max_size=10), min_size=1, max_size=4))
def test_margins_are_those_of_the_nearest_and_second_nearest_codeword(rows: list[list[float]]) -> None:
    energies = torch.tensor(rows, dtype=torch.float64)
    for table in (TABLES[0], TABLES[2]):
        expected = [literal_margin(row, table.numpy()) for row in rows]
        assert margins(energies, table).tolist() == pytest.approx(expected, abs=1e-9)
        assert margins(energies * 7, table).tolist() == pytest.approx(expected, abs=1e-9)


def test_margins_are_1_for_codewords_that_share_no_subnn_and_0_for_a_zero_signal() -> None:
    table = torch.tensor([[1, 1, 0, 0], [0, 0, 1, 1]])
    energies = torch.tensor([[3.0, 3.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    assert margins(energies, table).tolist() == [1, 0, 0]


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_exits_are_those_of_a_loop_over_single_images(rule: ExitRule, outputs: Outputs) -> None:
    answers, exits = exits_of(outputs, TABLES, rule)
    expected = [literal_exit(outputs, image, rule) for image in range(IMAGES)]
    assert list(zip(answers.tolist(), exits.tolist(), strict=True)) == expected


@pytest.mark.parametrize("batch_size", [1, 37, IMAGES])
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_images_that_really_stop_get_the_answers_of_the_whole_network(
    rule: ExitRule, batch_size: int, network: CodedNetwork, images: torch.Tensor, outputs: Outputs
) -> None:
    parts = [predict_with_exit(network, part, rule) for part in images.split(batch_size)]
    answers, exits = (torch.cat(list(column)) for column in zip(*parts, strict=True))
    assert (answers.dtype, exits.dtype) == (torch.int64, torch.int64)
    expected_answers, expected_exits = exits_of(outputs, TABLES, rule)
    assert exits.tolist() == expected_exits.tolist()
    assert answers.tolist() == expected_answers.tolist()


def test_the_rules_are_seen_to_stop_at_every_block(outputs: Outputs) -> None:
    seen = {int(value) for rule in RULES for value in exits_of(outputs, TABLES, rule)[1]}
    assert seen == {0, 1, 2, 3, LAYERS}
    mixed = [rule for rule in RULES if len(set(exits_of(outputs, TABLES, rule)[1].tolist())) > 2]
    assert len(mixed) >= 3


def test_nothing_is_computed_for_images_that_have_stopped(
    network: CodedNetwork, images: torch.Tensor, outputs: Outputs
) -> None:
    rule = ExitRule("agree", 2)
    begun: list[int] = []
    finished: list[int] = []
    for block in network.coded_blocks:
        block.grouped.register_forward_pre_hook(lambda _, inputs: begun.append(len(inputs[0])))
        block.expand_bn.register_forward_pre_hook(lambda _, inputs: finished.append(len(inputs[0])))
    predict_with_exit(network, images, rule)
    for block in network.coded_blocks:
        block.grouped._forward_pre_hooks.clear()
        block.expand_bn._forward_pre_hooks.clear()
    exits = exits_of(outputs, TABLES, rule)[1]
    # An image that stops at a block has come through its bottleneck only, if at least a sixteenth of the batch stopped.
    size, sizes = IMAGES, [IMAGES]
    for number in range(LAYERS):
        left = int((exits > number).sum())
        size = left if left <= size * 15 / 16 else size
        sizes.append(size)
    assert begun == sizes[:-1]
    assert finished == sizes[1:]
    assert finished[-1] < IMAGES


def test_multiply_adds_until_an_exit_end_with_those_of_the_whole_network(
    network: CodedNetwork, images: torch.Tensor
) -> None:
    found = exit_macs(network, images[:1])
    assert len(found) == LAYERS + 1
    assert found == sorted(set(found))
    assert found[-1] == count_macs(network, images[:1])
    # Until the first coded block decides: stem, s1, bottleneck and energies, by hand, of 8 x 8 and 4 x 4 pixels.
    stem = 3 * 9 * 16 * 64
    s1 = (16 * 20 + 20 * 2 * 9 + 20 * 32 + 16 * 32) * 64
    bottleneck = 32 * 40 * 64 + 40 * 4 * 9 * 16
    # The Gram matrices, and their products with those of the weights, which are computed once for a batch.
    grams = 10 * 4 * 4 * (16 + 1)
    assert found[0] == stem + s1 + bottleneck + grams


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("agree:1", ExitRule("agree", 1)),
        ("agree:12", ExitRule("agree", 12)),
        ("margin:0", ExitRule("margin", 0)),
        ("margin:0.1", ExitRule("margin", 0.1)),
        ("margin:1", ExitRule("margin", 1)),
        ("margin:1e-3", ExitRule("margin", 0.001)),
    ],
)
def test_a_rule_is_read_as_it_is_written(text: str, rule: ExitRule) -> None:
    assert ExitRule.parse(text) == rule
    assert str(ExitRule.parse(text)) in (text, "margin:0.001")


@given(
    st.one_of(
        st.text(),
        st.text(alphabet="agremin:0123456789.-+_einfa \n", max_size=20),
        st.sampled_from(["agree:", "margin:"]).flatmap(
            lambda kind: st.text(max_size=8).map(lambda value: kind + value)
        ),
        st.floats().map(lambda value: f"margin:{value}"),
        st.floats().map(lambda value: f"agree:{value}"),
    )
)
@example("agree:0")
@example("agree:1.5")
@example("agree:inf")
@example("agree:nan")
@example("margin:nan")
@example("margin:1.01")
@example("margin:-0.1")
@example("agree")
@example("")
@example("agree:2:3")
@example("Agree:2")
@example("agree:" + "9" * 5000)
def test_hostile_text_is_a_rule_or_refused_with_the_flag_s_name(text: str) -> None:
    rule, message = None, ""
    try:
        rule = ExitRule.parse(text)
    except InputError as error:
        message = str(error)
    if rule is None:
        assert message.startswith("`rules`")
        assert "is neither agree:M" in message
        return
    assert ExitRule.parse(str(rule)) == rule
    if rule.kind == "agree":
        assert rule.value >= 1
        assert isinstance(rule.value, int)
    else:
        assert 0 <= rule.value <= 1


@pytest.mark.parametrize("text", ["agree:0", "agree:1.5", "agree:inf", "margin:nan", "margin:1.01", "agree", "2", ""])
def test_what_is_no_rule_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="is neither agree:M"):
        ExitRule.parse(text)


def test_a_rule_of_more_blocks_than_there_are_never_stops(
    network: CodedNetwork, images: torch.Tensor, outputs: Outputs
) -> None:
    for text in ("agree:5", "agree:1e30"):
        rule = ExitRule.parse(text)
        assert predict_with_exit(network, images, rule)[1].tolist() == [LAYERS] * IMAGES
        assert exits_of(outputs, TABLES, rule)[1].tolist() == [LAYERS] * IMAGES


def test_decode_puts_it_together(subject: Subject) -> None:
    rules = ("agree:2", "margin:0.123")
    result = decode(subject, rules=rules)
    outputs = collect_outputs(subject, subject.data.val)
    targets = torch.from_numpy(subject.data.val.targets)
    assert (result.num_images, result.checkpoint) == (40, subject.checkpoint)
    assert result.accuracy == pytest.approx(float((outputs.logits.argmax(1) == targets).double().mean()))
    assert list(result.decoder_accuracy) == ["s2.1", "s2.2", "s3.1", "s3.2"]
    for number, value in enumerate(result.decoder_accuracy.values()):
        assert value == pytest.approx(float((outputs.decoded[:, number] == targets).double().mean()))
    points = {point.rule: point for point in result.exits}
    assert len(points) == len(result.exits)
    assert {"agree:1", "agree:2", "agree:3", "agree:4", "margin:0.1", "margin:0.123"} <= points.keys()
    with torch.no_grad():
        macs = exit_macs(subject.network, torch.zeros(1, 3, 8, 8))
    for point in result.exits:
        assert sum(point.exits) == pytest.approx(1)
        assert point.macs == pytest.approx(sum(a * b for a, b in zip(point.exits, macs, strict=True)))
        assert point.macs_ratio == pytest.approx(point.macs / macs[-1])
        assert point.time_ratio > 0
        expected = exits_of(outputs, TABLES, ExitRule.parse(point.rule))[0]
        assert point.accuracy == pytest.approx(float((expected == targets).double().mean()))
    assert points["agree:1"].exits == (1, 0, 0, 0, 0)
    assert points["agree:1"].accuracy == pytest.approx(result.decoder_accuracy["s2.1"])


def test_early_exits_are_timed_in_the_run_s_precision(subject: Subject, tmp_path: Path) -> None:
    lower = make_subject(
        tmp_path, subject.network, subject.data, schemes=tiny_schemes(), name="lower", precision="bf16"
    )
    kinds: list[torch.dtype] = []
    handle = subject.network.fc.register_forward_hook(lambda _, __, output: kinds.append(output.dtype))
    decode(lower)
    handle.remove()
    # All passes but those that count multiply-adds.
    assert kinds.count(torch.float32) <= 2
    assert kinds.count(torch.bfloat16) > 10


def test_batches_decide_no_output(subject: Subject) -> None:
    whole = collect_outputs(with_batches_of(subject, 64), subject.data.val)
    parts = collect_outputs(with_batches_of(subject, 7), subject.data.val)
    assert torch.equal(whole.targets, torch.from_numpy(subject.data.val.targets))
    assert torch.equal(whole.targets, parts.targets)
    assert torch.allclose(whole.logits, parts.logits, atol=1e-4)
    assert torch.equal(whole.decoded, parts.decoded)


def test_a_result_comes_back_for_its_own_checkpoint_alone(subject: Subject) -> None:
    result = decode(subject)
    assert load_decoding(subject) is None
    save_result(subject.run, result)
    assert load_decoding(subject) == result
    assert load_decoding(replace(subject, checkpoint="e0002s000000")) is None
    path = subject.run.path / "analysis" / "decode.json"
    for text in ("{", "[]", "{}", json.dumps(json.loads(path.read_text()) | {"exits": [1]})):
        path.write_text(text)
        assert load_decoding(subject) is None


def test_a_plain_network_has_no_early_decoder(tmp_path: Path) -> None:
    network = randomize(build_network("resnext_tiny"))
    data = noisy_data(DIGITS, train=1, val=1)
    plain = make_subject(tmp_path, network, data, schemes={}, preset="resnext_tiny")
    with pytest.raises(NotApplicableError, match="trained without schemes"):
        decode(plain)


def test_the_evidence_of_an_old_run_is_that_of_its_decode_json_and_an_empty_row_borrows_nothing(tmp_path: Path) -> None:
    subject = settled_subject(tmp_path)
    rows = (
        Agreement(0, 0, None),
        Agreement(1, 4, 0.25),
        Agreement(2, 0, None),
        Agreement(3, 0, None),
        Agreement(4, 8, 0.75),
    )
    assert load_evidence(subject) is None
    save_result(subject.run, DecodeResult(subject.checkpoint, "digits", 8, 12, 0.6, {}, rows, ()))
    evidence = load_evidence(subject)
    assert evidence is not None
    assert evidence.agreement == ((0, 0), (4, 1), (0, 0), (0, 0), (8, 6))
    assert evidence.thresholds == {}
    found = evidence.confidence()
    assert found[0].num_images == 0
    assert found[0].value < found[1].value < found[4].value, "no row is its neighbour's"
    # Of another number of blocks, it is as if there were none.
    save_result(subject.run, DecodeResult(subject.checkpoint, "digits", 8, 12, 0.6, {}, rows[1:], ()))
    assert load_evidence(subject) is None
    # What was measured is kept beside it, and comes first.
    assert measure_evidence(subject) == load_evidence(subject)
    # Not for another data set, and what another data set gave is not for the run's own.
    other = replace(subject, recipe=subject.recipe.with_values({"data": "synthetic:10"}))
    assert load_evidence(other) is None
    assert measure_evidence(other) == load_evidence(other)
    assert load_evidence(subject) is None


def test_a_noisy_time_of_an_early_exit_is_marked() -> None:
    for is_noisy, shown in ((False, "61.00"), (True, "~61.00")):
        point = ExitPoint("agree:1", 0.9, 100.0, 0.5, 0.61, (1.0, 0.0), is_noisy)
        result = DecodeResult("e", "digits", 8, 10, 0.9, {"s2.1": 0.9}, (Agreement(0, 10, 0.9),), (point,))
        assert result.tables()[-1].rows[0][-1] == shown
        assert (NOISY in result.lines()) == is_noisy
        assert DecodeResult.from_json(json.loads(json.dumps(result.to_json()))) == result
