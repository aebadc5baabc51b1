"""The small parts of training against twins written another way: masks, sums, the watch for NaN, the optimizer."""

from __future__ import annotations

import shutil
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from torch import nn

from codedtool.coding.scheme import CodingScheme
from codedtool.errors import InputError
from codedtool.training.drop import drop_key, drop_mask
from codedtool.training.optimizer import build_average, build_optimizer
from codedtool.training.recipe import Recipe
from codedtool.training.stages import find_sibling
from codedtool.training.totals import FiniteWatch, Totals, all_finite
from tests.paths import SCHEMES

CPU = torch.device("cpu")
WORD = 2**64


def masks(indices: torch.Tensor, *, seed: int = 0, epoch: int = 0, group: int = 0, p_drop: float = 0.1) -> torch.Tensor:
    return drop_mask(indices, drop_key(seed=seed, epoch=epoch, group=group), length=20, p_drop=p_drop)


def splitmix64(state: int) -> int:
    """Steele, Lea & Flood (2014) in Python's unbounded integers."""
    word = (state + 0x9E3779B97F4A7C15) % WORD
    word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9 % WORD
    word = (word ^ (word >> 27)) * 0x94D049BB133111EB % WORD
    return word ^ (word >> 31)


def test_drop_masks_are_splitmix64_of_seed_epoch_group_sample_and_subnn() -> None:
    mask = masks(torch.tensor([0, 7, 49_999]), seed=5, epoch=3, group=1, p_drop=0.3)
    for row, index in enumerate((0, 7, 49_999)):
        key = splitmix64(splitmix64(splitmix64(5 + 3) + 1) + index)
        for column in range(20):
            dropped = splitmix64(key + column) >> 11 < int(0.3 * 2**53)
            assert mask[row, column].item() == pytest.approx(0.0 if dropped else 1 / 0.7)


def test_drop_masks_know_only_the_sample_not_its_place_in_the_batch() -> None:
    indices = torch.randperm(1000, generator=torch.Generator().manual_seed(1))
    whole = masks(indices, epoch=2)
    parts = torch.cat([masks(part, epoch=2) for part in indices.split(7)])
    assert torch.equal(whole, parts)


def test_drop_masks_drop_with_p_and_keep_the_mean() -> None:
    mask = masks(torch.arange(50_000))
    # A million draws: one standard deviation of the share is 0.0003.
    assert (mask == 0).float().mean().item() == pytest.approx(0.1, abs=0.0015)
    assert mask.mean(0).sub(1).abs().max().item() < 0.01
    correlation = torch.corrcoef((mask > 0).float().T) - torch.eye(20)
    assert correlation.abs().max().item() < 0.03
    for other in ({"seed": 1}, {"epoch": 1}, {"group": 1}):
        different = masks(torch.arange(50_000), **other) != mask
        assert different.float().mean().item() == pytest.approx(0.18, abs=0.01)


def test_totals_are_means_over_images_however_the_batches_fall() -> None:
    logits = torch.tensor([[2.0, 1.0], [0.0, 1.0], [3.0, 0.0]])
    targets = torch.tensor([0, 1, 1])
    decoded = torch.tensor([1, 1, 1])
    totals = Totals(["a", "b"], CPU, decoders=True)
    totals.add(torch.tensor(1.0), torch.tensor([1.0, 2.0]), logits[:2], targets[:2], [decoded[:2], targets[:2]])
    totals.add(torch.tensor(4.0), torch.tensor([4.0, 8.0]), logits[2:], targets[2:], [decoded[2:], 1 - targets[2:]])
    means = totals.means()
    assert means["num_images"] == 3
    assert means["accuracy"] == pytest.approx(2 / 3)
    assert means["loss"] == pytest.approx(2.0)
    assert means["coding_loss"] == pytest.approx({"a": 2.0, "b": 4.0})
    assert means["decoder_accuracy"] == pytest.approx({"a": 2 / 3, "b": 2 / 3})
    assert totals.means(2 * totals.sums)["loss"] == pytest.approx(2.0)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_the_watch_remembers_the_first_bad_step_and_its_term(bad: float) -> None:
    watch = FiniteWatch(["s2.1", "s2.2"], CPU)
    for step in range(6):
        assert (watch.first_bad() is None) == (step < 4)
        coding = torch.tensor([0.0, bad if step >= 3 else 0.0])
        watch.see(torch.tensor(bad if step >= 3 else 1.0), coding)
        watch.next_step()
    assert watch.first_bad() == (3, "coding loss of block s2.2")


def test_the_watch_names_the_classification_loss_when_it_alone_is_bad() -> None:
    watch = FiniteWatch([], CPU)
    watch.see(torch.tensor(float("nan")), torch.zeros(0))
    assert watch.first_bad() == (0, "classification loss")


def test_finite_weights_are_told_from_others() -> None:
    assert all_finite([torch.zeros(3), torch.tensor(2)])
    assert not all_finite([torch.zeros(3), torch.tensor([1.0, float("inf")])])


def test_weight_decay_reaches_batch_norm_only_where_the_recipe_says_so() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4))
    decays = {
        norm_decay: {
            parameter.dim(): group["weight_decay"]
            for group in build_optimizer(network, Recipe(norm_decay=norm_decay, weight_decay=0.5)).param_groups
            for parameter in group["params"]
        }
        for norm_decay in (True, False)
    }
    assert decays == {True: {4: 0.5, 1: 0.5}, False: {4: 0.5, 1: 0.0}}


def test_the_moving_average_is_off_by_default_and_decays_as_told() -> None:
    network = nn.Linear(1, 1, bias=False)
    nn.init.constant_(network.weight, 1.0)
    assert build_average(network, Recipe()) is None
    average = build_average(network, Recipe(ema_decay=0.75))
    assert average is not None
    average.update_parameters(network)
    nn.init.constant_(network.weight, 5.0)
    average.update_parameters(network)
    assert average.module.weight.item() == pytest.approx(0.75 * 1.0 + 0.25 * 5.0)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("c10_5of10", "c10_3of10"),
        ("c10_5of10_joint", "c10_3of10"),
        ("in1k_16of32", "in1k_8of32"),
        ("in1k_16of32_h12", "in1k_8of32_h8"),
        ("in1k_8of32_h8", "in1k_16of32_h12"),
        ("in1k_8of32_joint", "in1k_16of32"),
        ("c100_4of20_joint", "c100_8of20"),
    ],
)
def test_the_sibling_is_of_the_same_name_or_the_one_the_rows_were_ordered_for(given: str, expected: str) -> None:
    path = SCHEMES / f"{given}.npy"
    other = CodingScheme.load(SCHEMES / f"{expected}.npy")
    found = find_sibling(CodingScheme.load(path), path, other.ratio)
    assert found is not None
    assert found[1].stem == expected
    assert found[0] == other


def test_schemes_that_fit_equally_well_are_not_guessed_between(tmp_path: Path) -> None:
    shutil.copy(SCHEMES / "c10_5of10.npy", tmp_path / "one.npy")
    for name in ("a", "b"):
        shutil.copy(SCHEMES / "c10_3of10.npy", tmp_path / f"{name}.npy")
    with pytest.raises(InputError, match="several schemes of ratio 3/10"):
        find_sibling(CodingScheme.load(tmp_path / "one.npy"), tmp_path / "one.npy", Fraction(3, 10))
