"""Names of architectures: what they stand for, which of them fits given images, and what is said of a wrong one."""

from __future__ import annotations

import pytest
import torch

from codedtool.errors import InputError
from codedtool.models import build_network
from codedtool.models.families import EXAMPLES, FAMILIES, choose_network, default_acts, parse_name, width_for
from codedtool.models.presets import get_preset


def parameters(name: str) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build_network(name).parameters())


def test_every_n_has_its_networks() -> None:
    for N in range(2, 65):
        names = [f"{family}_{N}x{width_for(family, N)}d" for family in FAMILIES if family != "resnext_tiny"]
        for name in [*names, f"resnext_tiny_{N}", f"mobilenetv2_{N}"]:
            plain, coded = get_preset(name), get_preset(f"coded_{name}")
            assert plain.num_subnns == coded.num_subnns == N
            assert plain.stages == coded.stages
            assert plain.ratios == {}
            first, second = default_acts(N)
            assert {ratio * N for ratio in coded.ratios.values()} == {first, second}
            assert list(coded.ratios.values()) == sorted(coded.ratios.values(), reverse=True)
            assert list(coded.stages)[-len(coded.ratios) :] == list(coded.ratios)


def test_the_width_is_the_one_of_the_reference_s_parameters() -> None:
    """Section 3.2.2, and table 1's three networks."""
    assert [width_for("resnext29", N) for N in (10, 20, 32)] == [11, 6, 4]
    reference = parameters("resnext29_10x11d")
    for N in (2, 3, 16, 24, 48, 64):
        assert parameters(f"resnext29_{N}x{width_for('resnext29', N)}d") == pytest.approx(reference, rel=0.15), N


def test_the_network_for_two_cores_has_its_size() -> None:
    preset = get_preset("coded_resnext17_10x8d")
    rows = [(row.out_channels, row.subnn_channels, row.num_blocks, row.stride) for row in preset.stages.values()]  # type: ignore[union-attr]
    assert rows == [(128, 8, 1, 2), (256, 16, 2, 2), (512, 32, 2, 2)]
    assert parameters("resnext17_10x8d") == 1_149_024


@pytest.mark.parametrize(
    ("num_subnns", "size", "expected"),
    [
        (10, 8, "coded_resnext_tiny"),
        (16, 16, "coded_resnext_tiny_16"),
        (10, 32, "coded_resnext29_10x11d"),
        (20, 32, "coded_resnext29_20x6d"),
        (32, 224, "coded_resnext50_32x4d"),
        (16, 64, "coded_resnext29_16x8d"),
        (16, 65, "coded_resnext50_16x8d"),
        (24, 160, "coded_resnext50_24x5d"),
        (20, 160, "coded_resnext50_20x6d"),
    ],
)
def test_the_size_of_the_images_and_n_choose_the_network(num_subnns: int, size: int, expected: str) -> None:
    choice = choose_network(num_subnns, size)
    assert choice.preset == expected
    assert f"images of {size} pixels" in choice.reason
    assert f"N = {num_subnns}" in choice.reason


def test_examples_are_names() -> None:
    for name in EXAMPLES:
        assert parse_name(name).coded == name.startswith("coded_")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("coded_resnext29_1x8d", "N must be 2 to 64"),
        ("mobilenetv2_65", "N must be 2 to 64"),
        ("resnext29_10x0d", "did you mean resnext29_10x11d"),
        ("resnext29_10", "did you mean resnext29_10x11d"),
        ("resnext51_32x4d", "did you mean resnext50_32x4d"),
        ("resnet", "Known forms: coded_resnext29_{N}x{d}d"),
    ],
)
def test_a_wrong_name_is_told_the_nearest_and_the_forms(name: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        parse_name(name)
    assert message in str(error.value)
