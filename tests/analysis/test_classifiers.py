"""Binary classifiers of many classes at once, against extracted, masked and zeroed networks."""

from __future__ import annotations

import pytest
import torch

from codedtool.analysis import classifiers as classifiers_module
from codedtool.analysis.classifiers import BinaryClassifiers
from codedtool.errors import InputError
from codedtool.models import CodedNetwork
from codedtool.models.pruning import active_channels, extract_binary_classifier, keep_masks_of_class
from tests.subjects import (
    shipped,
    tiny_coded,
    tiny_plain,
    tiny_schemes,
    zeroed_logits,
)


@pytest.fixture(scope="module")
def coded() -> CodedNetwork:
    """The coded tiny network."""
    return tiny_coded()


@pytest.fixture(scope="module")
def plain() -> CodedNetwork:
    """Its plain control."""
    return tiny_plain()


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(1))


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
