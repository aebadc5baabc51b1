"""Networks of random N, d, ratios and K: they are built, train a step, are pruned, saved, loaded and exported."""

from __future__ import annotations

import io
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from codedtool.coding.scheme import CodingScheme
from codedtool.data import Normalization
from codedtool.deploy.export import export_network
from codedtool.models import CodedNetwork, assign_schemes, build_network
from codedtool.models.families import parse_name, width_for
from codedtool.models.places import parse_place
from codedtool.models.presets import get_preset
from codedtool.models.pruning import extract_binary_classifier, keep_masks_of_class
from tests.subjects import randomize


def _scheme(num_classes: int, length: int, act: int, seed: int) -> CodingScheme:
    rng = np.random.default_rng(seed)
    rows: set[tuple[int, ...]] = set()
    while len(rows) < num_classes:
        rows.add(tuple(rng.permutation([1] * act + [0] * (length - act)).tolist()))
    return CodingScheme(np.array(sorted(rows), dtype=np.uint8))


@st.composite
def networks(
    draw: st.DrawFn, families: tuple[str, ...] = ("resnext_tiny", "resnext17", "resnext23", "mobilenetv2")
) -> tuple[str, dict[str, CodingScheme]]:
    """The name of an architecture, and schemes for some of its stages or blocks."""
    N = draw(st.integers(2, 64))
    family = draw(st.sampled_from(families))
    name = f"coded_{family}_{N}"
    if family in ("resnext17", "resnext23"):
        # Small ones, and the one of the reference's size.
        name += f"x{draw(st.sampled_from([1, 2, 3, min(width_for(family, N), 8)]))}d"
    acts = draw(st.lists(st.integers(1, N - 1), min_size=1, max_size=2))
    K = draw(st.integers(2, 12))
    assume(all(comb(N, act) >= 2 * K for act in acts))
    schemes = [_scheme(K, N, act, number) for number, act in enumerate(acts)]
    *_, last = get_preset(name).stages
    blocks = draw(st.booleans()) and get_preset(name).stages[last].num_blocks >= 2 and len(schemes) == 2
    if blocks:
        places = [f"{last}.1", f"{last}.2-{get_preset(name).stages[last].num_blocks}"]
    else:
        # As without the stages' names, also where one of the ratios is a usual one.
        places = list(get_preset(name).ratios)[-len(schemes) :]
    plain = set(get_preset(name).ratios) - {parse_place(place).stage for place in places}
    return name, assign_schemes(name, schemes, stages=places, uncoded_stages=plain)


def check(name: str, schemes: dict[str, CodingScheme]) -> CodedNetwork:
    torch.manual_seed(0)
    N, K = parse_name(name).num_subnns, next(iter(schemes.values())).num_classes
    network = build_network(name, schemes)
    x, targets = torch.randn(3, 3, 16, 16), torch.arange(3) % K
    # One step of training.
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    masks = [torch.ones(3, length) for length in network.drop_group_lengths]
    before = network.fc.weight.detach().clone()
    output = network(x, targets, drop_masks=masks)
    assert output.logits.shape == (3, K)
    assert [energies.shape for energies in output.energies] == [(3, N)] * len(network.coded_blocks)
    (torch.nn.functional.cross_entropy(output.logits, targets) + torch.stack(output.coding_losses).sum()).backward()
    optimizer.step()
    assert not torch.equal(network.fc.weight, before)
    assert all(torch.isfinite(parameter).all() for parameter in network.parameters())
    randomize(network)
    with torch.no_grad():
        logits = network(x).logits
        # Saved and loaded.
        buffer = io.BytesIO()
        torch.save(network.state_dict(), buffer)
        buffer.seek(0)
        again = build_network(name, schemes).eval()
        again.load_state_dict(torch.load(buffer, weights_only=True))
        assert torch.equal(again(x).logits, logits)
        # Masked and pruned.
        k = K - 1
        masked = network(x, keep_masks=keep_masks_of_class(network, k)).logits[:, k]
        pruned = extract_binary_classifier(network, k)(x).logits[:, 0]
        torch.testing.assert_close(pruned, masked, rtol=1e-3, atol=1e-3)
    sizes = [sum(p.numel() for p in one.parameters()) for one in (extract_binary_classifier(network, k), network)]
    assert sizes[0] < sizes[1]
    return network


def check_export(network: CodedNetwork, path: Path) -> None:
    """`export_network` compares the file with the network on random images."""
    result = export_network(
        network,
        path,
        kind="torch",
        normalization=Normalization((0.5, 0.4, 0.3), (0.2, 0.25, 0.3)),
        image_size=16,
        crop_part=1.0,
        class_names=[str(k) for k in range(network.num_classes)],
        metadata={},
        force=True,
    )
    assert result.outputs == ("logits", *(f"energies.{name}" for name in network.block_names))


ANY: Any = {"deadline": None, "suppress_health_check": list(HealthCheck)}


@settings(max_examples=4, **ANY)
@given(networks())
def test_any_network_trains_and_is_pruned_saved_and_loaded(drawn: tuple[str, dict[str, CodingScheme]]) -> None:
    check(*drawn)


@pytest.mark.slow
def test_a_network_of_37_classes_with_two_schemes_in_a_stage_is_exported(tmp_path: Path) -> None:
    schemes = {"s2": _scheme(37, 16, 8, 0), "s3.1": _scheme(37, 16, 5, 1), "s3.2": _scheme(37, 16, 3, 2)}
    check_export(check("coded_resnext_tiny_16", schemes), tmp_path / "network.pt2")


@pytest.mark.slow
@settings(max_examples=60, **ANY)
@given(networks())
def test_many_networks_train_and_are_pruned_saved_and_loaded(drawn: tuple[str, dict[str, CodingScheme]]) -> None:
    check(*drawn)


@pytest.mark.slow
@settings(max_examples=2, **ANY)
@given(drawn=networks(families=("resnext_tiny",)))  # an export takes long
def test_some_networks_are_exported(drawn: tuple[str, dict[str, CodingScheme]], tmp_path: Path) -> None:
    check_export(check(*drawn), tmp_path / "network.pt2")
