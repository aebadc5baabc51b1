"""The networks of table 1: sizes, forward passes, masks, pruning, and which scheme codes which stage."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

from codedtool.coding.scheme import CodingScheme
from codedtool.errors import InputError
from codedtool.models import CodedNetwork, assign_schemes, build_network, preset_for
from codedtool.models.pruning import extract_binary_classifier, keep_masks_of_class
from tests.subjects import randomize, shipped, zeroed_logits

# preset -> schemes, parameters, parameters of a binary classifier (EXPERIMENTS: exact counts), parameters per stage.
TABLE1 = {
    "coded_resnext29_10x11d": (("c10_5of10", "c10_3of10"), 4_638_926, 2_149_034, (0.2, 0.9, 3.5)),
    "coded_resnext29_20x6d": (("c100_8of20", "c100_4of20"), 4_749_136, 1_777_744, (0.2, 0.9, 3.5)),
    "coded_resnext50_32x4d": (("in1k_16of32", "in1k_8of32"), 25_027_904, 10_416_448, (0.2, 1.2, 7.0, 14.5)),
}


def build(preset: str) -> CodedNetwork:
    return build_network(preset, [shipped(name) for name in TABLE1[preset][0]])


@pytest.mark.parametrize("preset", TABLE1)
def test_parameter_counts_are_exact(preset: str) -> None:
    _, total, of_classifier, per_stage = TABLE1[preset]
    network = build(preset)
    assert sum(parameter.numel() for parameter in network.parameters()) == total
    plain = build_network(preset.removeprefix("coded_"))
    assert sum(parameter.numel() for parameter in plain.parameters()) == total
    classifier = extract_binary_classifier(network, 0)
    assert sum(parameter.numel() for parameter in classifier.parameters()) == of_classifier
    sizes = [sum(parameter.numel() for parameter in block.parameters()) for block in network.blocks]
    counts = (3, 4, 6, 3) if len(per_stage) == 4 else (3, 3, 3)
    ends = np.cumsum(counts)
    for stage, millions in enumerate(per_stage):
        size = sum(sizes[ends[stage] - counts[stage] : ends[stage]])
        assert size / 1e6 == pytest.approx(millions, abs=0.1)  # table 1 says "approximately"


def test_forward_needs_no_labels_and_gives_every_part() -> None:
    network = build("coded_resnext29_10x11d")
    x = torch.randn(2, 3, 32, 32)
    output = network(x)
    assert output.logits.shape == (2, 10)
    assert output.coding_losses == ()
    assert [energies.shape for energies in output.energies] == [(2, 10)] * 6
    with_targets = network(x, torch.tensor([0, 9]))
    assert len(with_targets.coding_losses) == 6
    assert network.block_names == ("s2.1", "s2.2", "s2.3", "s3.1", "s3.2", "s3.3")
    assert network.drop_group_lengths == (10, 10)
    assert network.drop_groups == (0, 0, 0, 1, 1, 1)
    assert [prediction.shape for prediction in network.decode(output.energies)] == [(2,)] * 6


def test_a_coded_block_knows_its_name_stage_scheme_and_decoder() -> None:
    schemes = {"s2": shipped("c10_5of10"), "s3": shipped("c10_3of10")}
    network = build_network("coded_resnext_tiny", schemes)
    assert [block.name for block in network.blocks] == ["s1.1", "s2.1", "s2.2", "s3.1", "s3.2"]
    assert [block.stage for block in network.coded_blocks] == ["s2", "s2", "s3", "s3"]
    for block, number in zip(network.coded_blocks, network.coded_indices, strict=True):
        assert network.blocks[number] is block
        assert block.scheme == schemes[block.stage]
        # A codeword, read as energies, is that of its own class.
        codewords_KN = torch.tensor(block.scheme.table, dtype=torch.float32)
        assert block.decode(codewords_KN).tolist() == list(range(10))
    pruned = extract_binary_classifier(network, 3)
    assert [block.name for block in pruned.blocks] == [block.name for block in network.blocks]
    plain = network.blocks[0]
    assert not plain.is_coded
    with pytest.raises(TypeError, match=r"block s1\.1 is plain"):
        plain.coded_sum  # noqa: B018  # the property raises


def test_every_parameter_gets_a_gradient() -> None:
    network = build_network("coded_resnext_tiny", [shipped("c10_5of10"), shipped("c10_3of10")], in_channels=1)
    for block in network.blocks:
        torch.nn.init.ones_(block.expand_bn.weight)
    output = network(torch.randn(4, 1, 8, 8), torch.tensor([0, 1, 2, 3]))
    (output.logits.logsumexp(1).sum() + 6 * torch.stack(output.coding_losses).sum()).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_consecutive_blocks_with_one_scheme_share_a_drop_group() -> None:
    scheme = shipped("c10_5of10")
    network = build_network("coded_resnext_tiny", {"s2": scheme, "s3": scheme})
    assert network.drop_group_lengths == (10,)
    assert network.drop_groups == (0, 0, 0, 0)


def test_drop_masks_change_the_output_and_not_the_first_energies() -> None:
    schemes = [shipped("c10_5of10"), shipped("c10_3of10")]
    network = randomize(build_network("coded_resnext_tiny", schemes, in_channels=1))
    x = torch.randn(3, 1, 8, 8)
    drop = [torch.ones(3, 10), torch.ones(3, 10)]
    drop[0][:, :4] = 0
    whole, dropped = network(x), network(x, drop_masks=drop)
    torch.testing.assert_close(dropped.energies[0], whole.energies[0])
    assert not torch.allclose(dropped.logits, whole.logits)
    torch.testing.assert_close(network(x, drop_masks=[torch.ones(3, 10)] * 2).logits, whole.logits)


@pytest.mark.parametrize("preset", [*TABLE1, "coded_resnext_tiny"])
def test_pruned_equals_masked(preset: str) -> None:
    names = TABLE1.get(preset, (("c10_5of10", "c10_3of10"),))[0]
    # In float64: of random float32 inputs, some round further apart than any margin worth asserting.
    network = randomize(build_network(preset, [shipped(name) for name in names])).double()
    size = 64 if "50" in preset else 32
    x = torch.randn(2, 3, size, size, dtype=torch.float64)
    for k in (0, network.num_classes - 1):
        with torch.no_grad():
            masked = network(x, keep_masks=keep_masks_of_class(network, k)).logits[:, k]
            pruned = extract_binary_classifier(network, k)(x).logits[:, 0]
        assert (masked - pruned).abs().max() <= 1e-9 * masked.abs().max().clamp_min(1)
    with pytest.raises(InputError, match="does not exist"):
        extract_binary_classifier(network, network.num_classes)


def test_channels_last_gives_the_same_numbers() -> None:
    network = randomize(build_network("coded_resnext_tiny", [shipped("c10_5of10"), shipped("c10_3of10")])).double()
    x, targets = torch.randn(2, 3, 16, 16, dtype=torch.float64), torch.tensor([3, 4])
    first = network(x, targets)
    second = network.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last), targets)
    torch.testing.assert_close(first.logits, second.logits)
    torch.testing.assert_close(first.coding_losses, second.coding_losses)


@pytest.mark.slow
def test_compiles_without_graph_breaks() -> None:
    network = build_network("coded_resnext_tiny", [shipped("c10_5of10"), shipped("c10_3of10")], in_channels=1)
    for block in network.blocks:
        torch.nn.init.ones_(block.expand_bn.weight)
    network.eval()
    x, targets = torch.randn(4, 1, 8, 8), torch.tensor([0, 1, 2, 3])
    drop = [torch.full((4, 10), 1.25), torch.full((4, 10), 1.25)]

    def gradients(run: torch.nn.Module) -> list[torch.Tensor]:
        network.zero_grad()
        output = run(x, targets, drop_masks=drop)
        (output.logits.square().sum() + torch.stack(output.coding_losses).sum()).backward()
        return [parameter.grad.clone() for parameter in network.parameters() if parameter.grad is not None]

    eager = gradients(network)
    compiled = gradients(torch.compile(network, fullgraph=True))
    for one, other in zip(eager, compiled, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_trains_under_autocast_with_float32_energies(dtype: torch.dtype) -> None:
    network = build_network("coded_resnext_tiny", [shipped("c10_5of10"), shipped("c10_3of10")], in_channels=1)
    with torch.autocast("cpu", dtype=dtype):
        output = network(torch.randn(4, 1, 8, 8), torch.tensor([0, 1, 2, 3]), drop_masks=[torch.ones(4, 10)] * 2)
    assert {energies.dtype for energies in output.energies} == {torch.float32}
    assert {loss.dtype for loss in output.coding_losses} == {torch.float32}
    (output.logits.float().sum() + torch.stack(output.coding_losses).sum()).backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)


def test_schemes_go_to_the_stages_of_their_ratios() -> None:
    five, three = shipped("c10_5of10"), shipped("c10_3of10")
    preset = "coded_resnext29_10x11d"
    assert assign_schemes(preset, [three, five]) == {"s2": five, "s3": three}
    assert assign_schemes(preset, [three], sibling=lambda stage, ratio: five) == {"s2": five, "s3": three}
    assert assign_schemes(preset, [three], uncoded_stages=["s2"]) == {"s3": three}
    assert assign_schemes(preset, [three, five], stages=["s1", "s2"], uncoded_stages=["s3"]) == {
        "s1": three,
        "s2": five,
    }
    # Stages that are named to stay plain do, though a scheme has their ratio.
    with pytest.raises(InputError, match="scheme of ratio 3/10 codes no stage"):
        assign_schemes(preset, [three, five], uncoded_stages=["s3"])
    with pytest.raises(InputError, match="s1 has a scheme by `stages`, and is to stay plain by `uncoded_stages`"):
        assign_schemes(preset, [three, five], stages=["s1", "s2"], uncoded_stages=["s1", "s3"])
    with pytest.raises(InputError, match="takes whole stages"):
        assign_schemes(preset, [three, five], uncoded_stages=["s3.1"])
    assert preset_for(shipped("c100_4of20")) == "coded_resnext29_20x6d"
    assert preset_for(shipped("in1k_8of32")) == "coded_resnext50_32x4d"
    assert preset_for(shipped("in1k_8of32"), image_size=32) == "coded_resnext29_32x4d"
    asked: list[tuple[str, Fraction]] = []
    with pytest.raises(InputError, match="stage s2 .* has ratio 5/10 and no scheme"):
        assign_schemes(preset, [three], sibling=lambda stage, ratio: asked.append((stage, ratio)))  # type: ignore[func-returns-value]
    assert asked == [("s2", Fraction(1, 2))]


def test_schemes_of_other_ratios_go_to_the_last_stages_the_larger_ratio_first() -> None:
    def scheme(act: int, length: int = 16) -> CodingScheme:
        return CodingScheme(np.stack([np.roll([1] * act + [0] * (length - act), k) for k in range(8)]))

    preset = "coded_resnext29_16x8d"
    two, five, eight, ten = scheme(2), scheme(5), scheme(8), scheme(10)
    assert assign_schemes(preset, [five]) == {"s3": five}
    assert list(assign_schemes(preset, [five, ten]).items()) == [("s2", ten), ("s3", five)]
    assert assign_schemes(preset, [two, ten, five]) == {"s1": ten, "s2": five, "s3": two}
    # A usual ratio has no place of its own beside one that is not.
    assert assign_schemes(preset, [eight, ten]) == {"s2": ten, "s3": eight}
    mobile = "coded_mobilenetv2_16"
    assert assign_schemes(mobile, [five]) == {"s6": five, "s7": five}
    assert assign_schemes(mobile, [five, ten]) == {"s4": ten, "s5": ten, "s6": five, "s7": five}
    assert assign_schemes(mobile, [five], uncoded_stages=["s6"]) == {"s7": five}
    assert assign_schemes(preset, [five], uncoded_stages=["s3"]) == {"s2": five}
    with pytest.raises(InputError, match="has 2 parts to code"):
        assign_schemes(mobile, [two, five, ten])


def test_blocks_of_a_stage_have_schemes_of_their_own() -> None:
    """Appendix B: the first three blocks of s3 at 16/32, the last three at 8/32."""
    sixteen, eight = shipped("in1k_16of32"), shipped("in1k_8of32")
    places = ["s3.4-6", "s3.1-3", "s4"]
    schemes = assign_schemes("coded_resnext50_32x4d", [eight, sixteen, eight], stages=places)
    assert list(schemes) == ["s3.1-3", "s3.4-6", "s4"]
    with torch.device("meta"):
        network = build_network("coded_resnext50_32x4d", schemes)
    assert [block.scheme.act for block in network.coded_blocks] == [16] * 3 + [8] * 6
    # Consecutive blocks of one scheme drop the same subNNs, also across stages.
    assert network.drop_groups == (0, 0, 0, 1, 1, 1, 1, 1, 1)
    five, three = shipped("c10_5of10"), shipped("c10_3of10")
    network = randomize(build_network("coded_resnext29_10x11d", {"s3.2-3": three, "s2.2": five}))
    assert network.block_names == ("s2.2", "s3.2", "s3.3")
    assert list(network.schemes) == ["s2.2", "s3.2-3"]
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        masked = network(x, keep_masks=keep_masks_of_class(network, 4)).logits[:, 4]
        torch.testing.assert_close(extract_binary_classifier(network, 4)(x).logits[:, 0], masked, rtol=1e-4, atol=1e-4)
        plain = randomize(build_network("resnext29_10x11d"))
        likewise = extract_binary_classifier(plain, 4, schemes=network.schemes)(x).logits[:, 0]
        torch.testing.assert_close(likewise, zeroed_logits(plain, network.schemes, 4, x), rtol=1e-4, atol=1e-4)


def test_what_does_not_fit_is_named() -> None:
    five, three, other = shipped("c10_5of10"), shipped("c10_3of10"), shipped("c100_4of20")
    preset = "coded_resnext29_10x11d"
    with pytest.raises(InputError, match="did you mean coded_resnext29_10x11d"):
        build_network("coded_resnext28_10x11d")
    with pytest.raises(InputError, match="N=10 subNNs per block, this scheme has N=20"):
        build_network(preset, {"s2": other})
    with pytest.raises(InputError, match="N=10 subNNs per block, this scheme has N=20"):
        assign_schemes(preset, [other])
    with pytest.raises(InputError, match="no stage 's9'"):
        assign_schemes(preset, [five], stages=["s9"])
    with pytest.raises(InputError, match="two schemes are given for stage s2"):
        assign_schemes(preset, [five, five])
    with pytest.raises(InputError, match="`stages` names 1 stages for 2 schemes"):
        assign_schemes(preset, [five, three], stages=["s2"])
    fewer = CodingScheme(three.table[:8])
    with pytest.raises(InputError, match="different numbers of classes"):
        assign_schemes(preset, [five, fewer])
    with pytest.raises(InputError, match="disagree about the number of classes K"):
        build_network(preset, [five, three], num_classes=11)
    with pytest.raises(InputError, match="4 schemes are given, and coded_resnext29_10x11d has 3 parts to code"):
        assign_schemes(preset, [CodingScheme(np.eye(10, dtype=np.uint8))] * 4)
    with pytest.raises(InputError, match=r"no blocks 's3\.2-4': stage s3 has blocks s3\.1 to s3\.3"):
        assign_schemes(preset, [five], stages=["s3.2-4"])
    with pytest.raises(InputError, match=r"two schemes are given for block s3\.2: those of s3\.1-2 and s3\.2"):
        assign_schemes(preset, [five, three], stages=["s3.1-2", "s3.2"], uncoded_stages=["s2"])
    with pytest.raises(InputError, match="resnext_tiny is a plain control"):
        assign_schemes("resnext_tiny", [three])
