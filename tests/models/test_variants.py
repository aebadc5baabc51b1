"""The ablations and MobileNetV2, as whole networks: what each changes, and that masks, pruning and files go with it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from codedtool.analysis.classifier_metrics import CODED, FULL, evaluate_classifiers
from codedtool.analysis.classifiers import BinaryClassifiers
from codedtool.coding.orders.pairing import joint_distance_histogram
from codedtool.deploy.classifier_file import load_binary_classifier, save_binary_classifier
from codedtool.deploy.export import export_network
from codedtool.errors import InputError
from codedtool.models import CodedNetwork, build_network
from codedtool.models.pruning import extract_binary_classifier, keep_masks_of_class
from codedtool.models.variant import Variant
from codedtool.training.recipes import recipe_for
from codedtool.training.run import Run
from codedtool.training.stages import assign, permuted
from codedtool.training.subject import opened_run
from codedtool.training.train import train
from tests.paths import SCHEMES
from tests.subjects import NORMALIZATION, make_subject, noisy_data, randomize, shipped, zeroed_logits

FIVE, THREE = shipped("c10_5of10"), shipped("c10_3of10")
VARIANTS = {
    "threshold": Variant(exponent=2.0, threshold=0.2),
    "no energy norm": Variant(energy_norm=False),
    "concatenated": Variant(concatenate=True),
    "concatenated, no energy norm": Variant(concatenate=True, energy_norm=False),
    "gradient masking": Variant(gradient_masking=True),
    "gradient masking without shortcuts": Variant(gradient_masking=True, shortcuts=False),
}


def tiny(variant: Variant) -> CodedNetwork:
    torch.manual_seed(0)
    return build_network("coded_resnext_tiny", [FIVE, THREE], variant=variant)


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_pruned_equals_masked(variant: Variant) -> None:
    network = randomize(tiny(variant))
    x = torch.randn(4, 3, 8, 8)
    together = BinaryClassifiers(network, range(10)).scores(x)
    with torch.no_grad():
        for k in range(10):
            masked = network(x, keep_masks=keep_masks_of_class(network, k)).logits[:, k]
            pruned = extract_binary_classifier(network, k)(x).logits[:, 0]
            torch.testing.assert_close(pruned, masked, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(together[:, k], masked, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_every_parameter_gets_a_gradient(variant: Variant) -> None:
    network = tiny(variant)
    for block in network.blocks:
        nn.init.ones_(block.expand_bn.weight)
    output = network(torch.randn(8, 3, 8, 8), torch.arange(8))
    (output.logits.logsumexp(1).sum() + 6 * torch.stack(output.coding_losses).sum()).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_gradient_masking_teaches_inactive_subnns_nothing() -> None:
    """Without Energy Normalization, whose mean sees all subNNs, none of a class's loss reaches inactive weights."""
    network = tiny(Variant(gradient_masking=True, energy_norm=False))
    for block in network.blocks:
        nn.init.ones_(block.expand_bn.weight)
    network.eval()
    k = 3
    network(torch.randn(2, 3, 8, 8), torch.tensor([k, k])).logits.square().sum().backward()
    for block in network.coded_blocks:
        gradient = block.coded_sum.conv.weight.grad
        assert gradient is not None
        by_subnn = gradient.unflatten(1, (10, -1)).abs().sum(dim=(0, 2, 3, 4))
        assert (by_subnn > 0).tolist() == block.coded_sum.scheme_KN[k].bool().tolist()


def test_gradient_masking_changes_no_output() -> None:
    x, targets = torch.randn(3, 3, 8, 8), torch.tensor([1, 2, 3])
    one, other = randomize(tiny(Variant())), randomize(tiny(Variant(gradient_masking=True)))
    torch.testing.assert_close(one(x, targets).logits, other(x, targets).logits)


def test_without_shortcuts_the_network_begins_alive() -> None:
    network = tiny(Variant(shortcuts=False)).eval()
    x = torch.randn(4, 3, 8, 8)
    assert network(x).logits.std(dim=0).max() > 0
    assert not [name for name, _ in network.named_parameters() if "shortcut" in name]
    # With them, every block begins as its shortcut: what the subNNs make is multiplied by zero.
    assert all((block.expand_bn.weight == 0).all() for block in tiny(Variant()).blocks)


@pytest.mark.parametrize(
    ("preset", "schemes", "channels"),
    [
        ("coded_resnext29_10x11d", ("c10_5of10", "c10_3of10"), (256, 510, 1020)),
        ("coded_resnext29_20x6d", ("c100_8of20", "c100_4of20"), (256, 520, 1020)),
        ("coded_resnext50_32x4d", ("in1k_16of32", "in1k_8of32"), (256, 512, 1024, 2048)),
    ],
)
def test_concatenated_blocks_keep_their_size(preset: str, schemes: tuple[str, ...], channels: tuple[int, ...]) -> None:
    with torch.device("meta"):
        network = build_network(preset, [shipped(name) for name in schemes], variant=Variant(concatenate=True))
    assert tuple(dict.fromkeys(block.expand_bn.num_features for block in network.blocks)) == channels


def test_mobilenetv2_is_torchvisions_but_for_the_bias() -> None:
    from torchvision.models import mobilenet_v2

    with torch.device("meta"):
        ours, theirs = build_network("mobilenetv2_32"), mobilenet_v2()
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters()) - 1000
    shapes = Counter(p.shape for name, p in theirs.named_parameters() if name != "classifier.1.bias")
    assert Counter(p.shape for p in ours.parameters()) == shapes


@pytest.mark.parametrize(
    ("preset", "schemes", "size"),
    [
        ("coded_mobilenetv2_10", ("c10_5of10", "c10_3of10"), 32),
        ("coded_mobilenetv2_20", ("c100_8of20", "c100_4of20"), 32),
        ("coded_mobilenetv2_32", ("in1k_16of32", "in1k_8of32"), 64),
    ],
)
def test_coded_mobilenetv2(preset: str, schemes: tuple[str, ...], size: int) -> None:
    torch.manual_seed(0)
    network = build_network(preset, [shipped(name) for name in schemes])
    plain = build_network(preset.removeprefix("coded_"))
    assert sum(p.numel() for p in network.parameters()) == sum(p.numel() for p in plain.parameters())
    assert len(network.coded_blocks) == 11
    assert network.drop_group_lengths == (network.coded_blocks[0].num_subnns,) * 2
    x, targets = torch.randn(2, 3, size, size), torch.tensor([0, 1])
    output = network(x, targets)
    (output.logits.logsumexp(1).sum() + torch.stack(output.coding_losses).sum()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())
    randomize(network)
    with torch.no_grad():
        masked = network(x, keep_masks=keep_masks_of_class(network, 1)).logits[:, 1]
        pruned = extract_binary_classifier(network, 1)(x).logits[:, 0]
        torch.testing.assert_close(pruned, masked, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(BinaryClassifiers(network, [1]).scores(x)[:, 0], masked, rtol=1e-4, atol=1e-4)
        # "Likewise" from the plain control.
        randomize(plain)
        likewise = extract_binary_classifier(plain, 1, schemes=network.schemes)(x).logits[:, 0]
        torch.testing.assert_close(likewise, zeroed_logits(plain, network.schemes, 1, x), rtol=1e-4, atol=1e-4)


def test_a_mobilenet_stage_that_does_not_split_is_refused() -> None:
    with pytest.raises(InputError, match="stage s2 cannot be coded: its blocks have 96 inner channels"):
        build_network("coded_mobilenetv2_10", {"s2": FIVE})


def test_a_scheme_codes_every_stage_of_its_ratio() -> None:
    found = assign([SCHEMES / "c10_5of10.npy"], preset="coded_mobilenetv2_10")
    assert found.schemes == {"s4": FIVE, "s5": FIVE, "s6": THREE, "s7": THREE}
    assert found.siblings == {"s6", "s7"}


@given(seed=st.integers(1, 2**31 - 1))
def test_permuted_schemes_are_as_good(seed: int) -> None:
    schemes = {"s4": FIVE, "s5": FIVE, "s6": THREE}
    found = permuted(schemes, seed)
    assert found["s4"] == found["s5"]
    for stage, scheme in schemes.items():
        assert found[stage].distance_histogram == scheme.distance_histogram
        assert (found[stage].act, found[stage].spread) == (scheme.act, scheme.spread)
    assert joint_distance_histogram([found["s4"], found["s6"]]) == joint_distance_histogram([FIVE, THREE])
    assert found == permuted(schemes, seed)


def test_permutations_differ_by_seed_and_zero_is_none() -> None:
    schemes = {"s2": FIVE, "s3": THREE}
    assert permuted(schemes, 0) == schemes
    assert permuted({}, 3) == {}
    assert len({permuted(schemes, seed)["s2"] for seed in range(20)}) == 20
    # A permutation of rows alone, or columns alone, would keep the multiset of the other's.
    assert not np.array_equal(np.sort(permuted(schemes, 1)["s2"].words), np.sort(FIVE.words))


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_activations_are_the_outputs_that_the_block_sums(variant: Variant) -> None:
    network = randomize(tiny(variant)).double()
    block = network.coded_blocks[1]
    end = block.coded_sum
    assert isinstance(block.reduce, nn.Conv2d)
    h = block.bottleneck(torch.randn(3, block.reduce.in_channels, 4, 4, dtype=torch.float64))
    parts = list(end.outputs(h, 10))
    whole = torch.cat(parts, dim=1) if variant.concatenate else torch.stack(parts).sum(dim=0)
    torch.testing.assert_close(whole, end(h).sum)
    energies = torch.stack([part.square().mean(dim=(1, 2, 3)) for part in parts], dim=1)
    torch.testing.assert_close(energies, end(h).energies)


@pytest.mark.parametrize("name", ["concatenated", "gradient masking without shortcuts"])
def test_a_classifier_file_knows_its_variant(name: str, tmp_path: Path) -> None:
    network = randomize(tiny(VARIANTS[name]))
    schemes = {"s2": FIVE, "s3": THREE}
    data = noisy_data(tuple("abcdefghij"), train=1, val=1)
    subject = make_subject(tmp_path, network, data, schemes=schemes)
    path = save_binary_classifier(subject, 4, tmp_path / "bc.safetensors", threshold=0.5, metrics={})
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        loaded = load_binary_classifier(path).network(x).logits
        torch.testing.assert_close(loaded, extract_binary_classifier(network, 4)(x).logits)


def test_a_concatenated_classifier_exports(tmp_path: Path) -> None:
    classifier = extract_binary_classifier(randomize(tiny(VARIANTS["concatenated"])), 4)
    result = export_network(
        classifier,
        tmp_path / "bc.pt2",
        kind="torch",
        normalization=NORMALIZATION,
        image_size=8,
        crop_part=1.0,
        class_names=("e",),
        metadata={},
    )
    assert result.max_difference < 1e-4


def test_a_run_trains_with_every_option_and_is_analysed(tmp_path: Path) -> None:
    """Two epochs of a few digits for each; the run's own files say how its network is built."""
    for number, changes in enumerate(
        (
            {"threshold": 0.1, "exponent": 2.0, "permutation": 5},
            {"energy_norm": False, "mu": 0.5, "images_per_class": 40, "batch_size": 16},
            {"concatenate": True, "images_per_class": 40, "batch_size": 16},
            {"gradient_masking": True, "mu": 0.0, "shortcuts": False, "images_per_class": 40, "batch_size": 16},
        )
    ):
        recipe = recipe_for("digits").with_values(
            {"preset": "coded_resnext_tiny", "epochs": 2, "precision": "fp32", **changes}
        )
        train(recipe, {"s2": FIVE, "s3": THREE}, run_name=f"run{number}", folder=tmp_path)
        run = Run.load(tmp_path / f"run{number}")
        assert run.schemes == permuted({"s2": FIVE, "s3": THREE}, recipe.permutation)
        assert run.load_network("last").variant == Variant(
            **{key: value for key, value in changes.items() if key in Variant.__dataclass_fields__}
        )
        first, second = run.metrics()
        assert second["train_loss"] < first["train_loss"]
        with opened_run(run, checkpoint="last") as subject:
            assert len(subject.data.train) == (10 * recipe.images_per_class or 1433)
            result = evaluate_classifiers(subject, [3])
            assert [one.source for one in result.classifiers] == [CODED, FULL]
