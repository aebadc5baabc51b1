"""The coded block without its N outputs against the literal equations, in float64: outputs, loss and every gradient."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from codedtool.coding.scheme import CodingScheme
from codedtool.errors import InputError
from codedtool.models.coded_sum import CodedConcatenation, CodedSum
from codedtool.models.energy import (
    ENERGY_EPS,
    nearest_codeword,
    normalize_energies,
    normalized_sum,
    subnn_energies,
)
from codedtool.models.variant import Variant
from tests.literal import literal_coded_sum

pytestmark = pytest.mark.quick


def random_scheme(rng: np.random.Generator, K: int, N: int, act: int) -> CodingScheme:
    rows: set[tuple[int, ...]] = set()
    while len(rows) < K:
        row = np.zeros(N, dtype=np.uint8)
        row[rng.choice(N, act, replace=False)] = 1
        rows.add(tuple(row.tolist()))
    return CodingScheme(np.array(sorted(rows), dtype=np.uint8))


def masks(seed: int, batch: int, N: int, drop: bool, keep: str) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    found: dict[str, torch.Tensor] = {}
    if drop:
        found["drop_mask"] = (torch.rand(batch, N, generator=generator) > 0.3).double() / 0.7
    if keep != "none":
        shape = (N,) if keep == "one" else (batch, N)
        mask = (torch.rand(shape, generator=generator) > 0.4).double()
        mask[..., :2] = 1  # of one subNN alone the normalization leaves no gradient, only rounding, to compare
        found["keep_mask"] = mask
    return found


def relative(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one.detach() - other.detach()).abs().max() / other.detach().abs().max().clamp_min(1e-30))


@settings(deadline=None, max_examples=150)
@given(
    seed=st.integers(0, 10_000),
    batch=st.integers(1, 4),
    N=st.sampled_from([4, 5, 10]),
    d=st.integers(1, 5),
    C=st.sampled_from([1, 3, 16]),
    pixels=st.sampled_from([(1, 1), (3, 2), (4, 4)]),
    drop=st.booleans(),
    keep=st.sampled_from(["none", "one", "each"]),
    variant=st.builds(
        Variant,
        exponent=st.sampled_from([2.0, 4.0]),
        threshold=st.sampled_from([0.0, 0.25]),
        energy_norm=st.booleans(),
        concatenate=st.booleans(),
        gradient_masking=st.booleans(),
    ),
    channels_last=st.booleans(),
)
def test_equals_the_literal_equations(
    seed: int,
    batch: int,
    N: int,
    d: int,
    C: int,
    pixels: tuple[int, int],
    drop: bool,
    keep: str,
    variant: Variant,
    channels_last: bool,
) -> None:
    torch.manual_seed(seed)
    scheme = random_scheme(np.random.default_rng(seed), 4, N, 2)
    if variant.concatenate:
        C *= N
    kind = CodedConcatenation if variant.concatenate else CodedSum
    module = kind(d, C, scheme, variant=variant).double()
    targets = torch.randint(0, 4, (batch,))
    h = torch.randn(batch, N * d, *pixels, dtype=torch.float64)
    if channels_last:
        h = h.to(memory_format=torch.channels_last)
    given_masks = masks(seed, batch, N, drop, keep)
    direction = torch.randn(batch, C, *pixels, dtype=torch.float64)

    h_ours = h.clone().requires_grad_()
    ours = module(h_ours, targets, **given_masks)
    assert ours.loss is not None
    ((ours.sum * direction).sum() + 6 * ours.loss).backward()

    h_literal = h.clone().requires_grad_()
    weight = module.conv.weight.detach().clone().requires_grad_()
    table = torch.tensor(scheme.table, dtype=torch.float64)
    total, energies, loss = literal_coded_sum(
        h_literal,
        weight,
        table,
        targets,
        original_subnns=N,
        exponent=variant.exponent,
        threshold=variant.threshold,
        energy_norm=variant.energy_norm,
        concatenate=variant.concatenate,
        gradient_masking=variant.gradient_masking,
        eps=ENERGY_EPS,
        **given_masks,
    )
    ((total * direction).sum() + 6 * loss).backward()

    assert relative(ours.sum, total) < 1e-9
    assert relative(ours.energies, energies) < 1e-9
    assert relative(ours.loss, loss) < 1e-9
    assert h_ours.grad is not None
    assert h_literal.grad is not None
    assert module.conv.weight.grad is not None
    assert weight.grad is not None
    assert relative(h_ours.grad, h_literal.grad) < 1e-9
    assert relative(module.conv.weight.grad, weight.grad) < 1e-9


def test_the_energy_guard_has_no_visible_effect_on_a_working_signal() -> None:
    torch.manual_seed(0)
    scheme = random_scheme(np.random.default_rng(0), 4, 10, 3)
    module = CodedSum(4, 32, scheme).double()
    h = torch.randn(8, 40, 4, 4, dtype=torch.float64)
    targets = torch.arange(8) % 4
    table = torch.tensor(scheme.table, dtype=torch.float64)
    total, _, loss = literal_coded_sum(h, module.conv.weight, table, targets, original_subnns=10, eps=0.0)
    ours = module(h, targets)
    assert relative(ours.sum, total) < 1e-10
    assert relative(ours.loss, loss) < 1e-10


def test_energies_sum_to_n_and_a_zero_signal_stays_finite() -> None:
    torch.manual_seed(0)
    scheme = random_scheme(np.random.default_rng(1), 4, 10, 3)
    module = CodedSum(2, 8, scheme)
    h = torch.randn(3, 20, 4, 4)
    h[1] = 0
    h.requires_grad_()
    out = module(h, torch.tensor([0, 1, 2]))
    assert out.loss is not None
    torch.testing.assert_close(out.energies.sum(dim=1), torch.tensor([10.0, 0.0, 10.0]))
    (out.sum.sum() + out.loss).backward()
    for tensor in (out.sum, out.loss, h.grad, module.conv.weight.grad):
        assert tensor is not None
        assert torch.isfinite(tensor).all()
    assert (out.sum[1] == 0).all()


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("given_type", [torch.float32, None])
def test_a_zero_signal_stays_finite_under_autocast(precision: torch.dtype, given_type: torch.dtype | None) -> None:
    torch.manual_seed(0)
    scheme = random_scheme(np.random.default_rng(1), 4, 10, 3)
    module = CodedSum(2, 8, scheme)
    h = torch.randn(3, 20, 4, 4).to(given_type or precision)
    h[1] = 0
    h.requires_grad_()
    with torch.autocast("cpu", dtype=precision):
        out = module(h, torch.tensor([0, 1, 2]), drop_mask=torch.full((3, 10), 1 / 0.9))
    assert out.loss is not None
    assert out.sum.dtype == precision
    (out.sum.float().sum() + out.loss).backward()
    for tensor in (out.sum, out.loss, h.grad, module.conv.weight.grad):
        assert tensor is not None
        assert torch.isfinite(tensor).all()
    assert h.grad is not None
    assert h.grad.dtype == h.dtype
    assert (h.grad[1] == 0).all()


def test_survivors_of_a_removal_are_amplified_to_the_whole_energy() -> None:
    energies = torch.tensor([[4.0, 0.0, 0.0, 4.0]])
    normalized, inverse_root = normalize_energies(energies, 4)
    torch.testing.assert_close(normalized, torch.tensor([[2.0, 0.0, 0.0, 2.0]]))
    torch.testing.assert_close(inverse_root, torch.tensor([[2.0**-0.5]]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_energies_are_float32_under_autocast(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    h = torch.randn(2, 40, 8, 8)
    weight = torch.randn(64, 40, 1, 1)
    exact = subnn_energies(h.to(dtype).double(), weight.double(), 10)
    with torch.autocast("cpu", dtype=dtype):
        energies = subnn_energies(h.to(dtype), weight, 10)
    assert energies.dtype == torch.float32
    assert relative(energies.double(), exact) < 1e-5


@pytest.mark.parametrize("pixels", [(4, 4), (10, 15)])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 0.02), (torch.float16, 0.0025)]
)
def test_energies_and_gradients_in_every_precision(
    pixels: tuple[int, int],
    layout: torch.memory_format,
    dtype: torch.dtype,
    tolerance: float,
) -> None:
    """Against the literal equations in float64: energies as exact as float32 is, the rest as its type is."""
    torch.manual_seed(0)
    scheme = random_scheme(np.random.default_rng(0), 4, 10, 3)
    h = torch.randn(2, 80, *pixels).relu().to(dtype).to(memory_format=layout).requires_grad_()
    # Weights that every type holds exactly, so that only the arithmetic differs.
    weight = torch.randn(64, 80, 1, 1).to(torch.bfloat16).half().float().requires_grad_()
    drop_mask = torch.ones(2, 10)
    drop_mask[:, 3] = 0
    directions = torch.randn(2, 64, *pixels), torch.randn(2, 10)
    with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
        ours = normalized_sum(h, weight, 10, drop_mask=drop_mask)
    assert ours[0].dtype == dtype
    assert ours[1].dtype == torch.float32
    ((ours[0].float() * directions[0]).sum() + (ours[1] * directions[1]).sum()).backward()

    exact_h, exact_weight = (x.detach().double().requires_grad_() for x in (h, weight))
    exact_total, exact_energies, _ = literal_coded_sum(
        exact_h,
        exact_weight,
        torch.tensor(scheme.table, dtype=torch.float64),
        torch.tensor([0, 1]),
        original_subnns=10,
        drop_mask=drop_mask.double(),
    )
    ((exact_total * directions[0]).sum() + (exact_energies * directions[1]).sum()).backward()
    assert relative(ours[1].double(), exact_energies) < 1e-6
    assert relative(ours[0].double(), exact_total) < tolerance
    for one, other in ((h, exact_h), (weight, exact_weight)):
        assert one.grad is not None
        assert other.grad is not None
        assert relative(one.grad.double(), other.grad) < tolerance


@settings(deadline=None)
@given(seed=st.integers(0, 10_000))
def test_the_early_decoder_is_the_nearest_codeword(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scheme = random_scheme(rng, 6, 8, 3)
    energies = rng.random((5, 8))
    scaled = energies / energies.sum(axis=1, keepdims=True) * 3
    distances = ((scaled[:, None] - scheme.table[None]) ** 2).sum(axis=2)
    ours = nearest_codeword(torch.tensor(energies), torch.tensor(scheme.table))
    assert ours.tolist() == distances.argmin(axis=1).tolist()


@pytest.mark.parametrize("wrong", [-1, -100, 10])
def test_a_target_that_is_no_class_is_refused(wrong: int) -> None:
    table = np.eye(10, dtype=np.uint8)
    end = CodedSum(2, 4, CodingScheme(table))
    with pytest.raises(InputError, match=f"from 0 to 9, got {wrong}"):
        end(torch.randn(2, 20, 3, 3), torch.tensor([0, wrong]))
