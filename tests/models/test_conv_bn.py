"""`conv_bn` in evaluation against the two layers one after the other, and where it leaves them alone."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from codedtool.models import build_network
from codedtool.models.conv_bn import ConvBN, conv_bn
from codedtool.models.variant import Variant
from tests.subjects import randomize, shipped

LAYERS = {
    "1x1": {"kernel_size": 1},
    "3x3 of stride 2": {"kernel_size": 3, "stride": 2, "padding": 1},
    "grouped": {"kernel_size": 3, "padding": 1, "groups": 4},
    "depthwise": {"kernel_size": 3, "padding": 1, "groups": 8},
}


def layers(title: str, dtype: torch.dtype = torch.float64) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    """A convolution of 8 to 16 channels and a BatchNorm with statistics of its own."""
    generator = torch.Generator().manual_seed(0)
    conv, bn = nn.Conv2d(8, 16, bias=False, **LAYERS[title]), nn.BatchNorm2d(16)
    for values, low, high in (
        (bn.weight, -1.0, 2.0),
        (bn.bias, -1.0, 1.0),
        (bn.running_mean, -3.0, 3.0),
        (bn.running_var, 0.0, 5.0),
    ):
        assert values is not None
        values.data.uniform_(low, high, generator=generator)
    return conv.to(dtype).eval(), bn.to(dtype).eval()


class Operations(TorchDispatchMode):
    """Collects the names of the operations that run inside."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))

    @property
    def normalizes(self) -> bool:
        return any("batch_norm" in name for name in self.names)


@pytest.mark.quick
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["NCHW", "channels_last"])
@pytest.mark.parametrize("title", LAYERS)
def test_one_convolution_is_the_two_layers(title: str, layout: torch.memory_format) -> None:
    conv, bn = layers(title)
    x = torch.randn(5, 8, 7, 6, dtype=torch.float64).contiguous(memory_format=layout)
    expected = bn(conv(x))
    with torch.no_grad(), Operations() as seen:
        found = conv_bn(conv, bn, x)
    assert not seen.normalizes
    assert torch.allclose(found, expected, rtol=0, atol=1e-12)
    assert found.is_contiguous(memory_format=layout)


@pytest.mark.quick
def test_the_layers_run_for_themselves_with_gradients_in_training_and_under_a_hook() -> None:
    conv, bn = layers("1x1")
    x = torch.randn(5, 8, 7, 6, dtype=torch.float64)
    with Operations() as seen:
        conv_bn(conv, bn, x)
    assert seen.normalizes
    with torch.no_grad(), Operations() as seen:
        conv_bn(conv, bn.train(), x)
    assert seen.normalizes
    bn.eval()
    met: list[torch.Size] = []
    for layer in (conv, bn):
        handle = layer.register_forward_hook(lambda _, __, output: met.append(output.shape))
        with torch.no_grad():
            conv_bn(conv, bn, x)
        handle.remove()
    assert len(met) == 2
    identity = nn.Identity()
    with torch.no_grad():
        assert conv_bn(identity, identity, x) is x


@pytest.mark.quick
def test_a_change_of_weights_or_statistics_counts_at_once() -> None:
    conv, bn = layers("grouped")
    both = ConvBN(conv, bn, nn.ReLU())
    x = torch.randn(2, 8, 5, 5, dtype=torch.float64)
    with torch.no_grad():
        before = both(x)
        conv.weight.mul_(2)
        bn.running_mean.add_(1)  # type: ignore[union-attr]
        assert not torch.equal(both(x), before)
        assert torch.allclose(both(x), bn(conv(x)).relu(), rtol=0, atol=1e-12)
    assert list(both.state_dict()) == [f"0.{name}" for name in conv.state_dict()] + [
        f"1.{name}" for name in bn.state_dict()
    ]


@pytest.mark.parametrize("preset", ["coded_resnext_tiny", "coded_resnext17_10x8d", "coded_mobilenetv2_10"])
def test_a_network_says_the_same_with_and_without_gradients(preset: str) -> None:
    torch.manual_seed(0)
    network = build_network(preset, {}).double()
    x = torch.randn(8, 3, 32, 32, dtype=torch.float64)
    for _ in range(3):
        network(x)
    network.eval()
    before = copy.deepcopy(network.state_dict())
    expected = network(x)
    with torch.no_grad(), Operations() as seen:
        found = network(x)
    assert torch.allclose(found.logits, expected.logits, rtol=1e-9, atol=1e-12)
    # In a plain network nothing else normalizes.
    assert not seen.normalizes
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("variant", [Variant(), Variant(gradient_masking=True), Variant(energy_norm=False)])
def test_a_coded_network_says_the_same_with_and_without_gradients(variant: Variant, masked: bool) -> None:
    schemes = [shipped("c10_5of10"), shipped("c10_3of10")]
    network = randomize(build_network("coded_resnext_tiny", schemes, variant=variant)).double()
    x, targets = torch.randn(6, 3, 8, 8, dtype=torch.float64), torch.arange(6)
    masks = {}
    if masked:
        masks["drop_masks"] = [torch.rand(6, 10, dtype=torch.float64) for _ in range(2)]
        masks["keep_masks"] = {0: (torch.rand(6, 10) < 0.5).double(), 3: (torch.arange(10) < 4).double()}
    expected = network(x, targets, **masks)
    with torch.no_grad(), Operations() as seen:
        found = network(x, targets, **masks)
    assert torch.allclose(found.logits, expected.logits, rtol=1e-9, atol=1e-12)
    for name in ("coding_losses", "energies"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=1e-9, atol=1e-12)
    # Without Energy Normalization, an ablation, the last BatchNorm of a block runs for itself.
    assert seen.normalizes != variant.energy_norm
