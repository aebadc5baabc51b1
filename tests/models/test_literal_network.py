"""A whole network of coded blocks against the same network with literal blocks, in float64: every number it gives."""

from __future__ import annotations

import pytest
import torch

from benchmarks.literal_sum import make_literal
from codedtool.coding.scheme import CodingScheme
from codedtool.errors import InputError
from codedtool.models import CodedNetwork, build_network
from tests.paths import SCHEMES as SCHEMES_FOLDER

pytestmark = pytest.mark.quick

SCHEMES = [CodingScheme.load(SCHEMES_FOLDER / f"c10_{act}of10.npy") for act in (5, 3)]


def tiny() -> CodedNetwork:
    torch.manual_seed(0)
    network = build_network("coded_resnext_tiny", SCHEMES, in_channels=1).double()
    for block in network.blocks:
        torch.nn.init.ones_(block.expand_bn.weight)
    return network


@pytest.mark.parametrize("masked", [False, True])
def test_a_step_equals_the_literal_networks(masked: bool) -> None:
    torch.manual_seed(1)
    x, targets = torch.randn(6, 1, 8, 8, dtype=torch.float64), torch.arange(6)
    drop_masks, keep_masks = None, None
    if masked:
        drop_masks = [(torch.rand(6, 10) > 0.2).double() / 0.8 for _ in range(2)]
        keep_masks = {0: (torch.rand(6, 10) > 0.3).double(), 3: torch.tensor(SCHEMES[1].table[2])}
    found = []
    for network in (tiny(), make_literal(tiny())):
        output = network(x, targets, drop_masks=drop_masks, keep_masks=keep_masks)
        losses = torch.stack(output.coding_losses)
        (torch.nn.functional.cross_entropy(output.logits, targets) + 6 * losses.sum()).backward()
        gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
        found.append([output.logits, losses, *output.energies, *gradients])
    assert len(found[0]) == len(found[1]) == 2 + 4 + len(list(tiny().parameters()))
    for ours, literal in zip(*found, strict=True):
        assert float((ours - literal).detach().abs().max()) <= 1e-9 * float(literal.detach().abs().max())


def test_schemes_alone_have_to_code_every_coded_stage() -> None:
    with pytest.raises(InputError, match="stage s2 .* has ratio 5/10 and no scheme"):
        build_network("coded_resnext_tiny", SCHEMES[1:])
    assert len(build_network("coded_resnext_tiny", {"s3": SCHEMES[1]}).coded_blocks) == 2
