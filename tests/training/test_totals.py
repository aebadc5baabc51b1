"""Running sums over images, and the watch for losses that are not finite."""

from __future__ import annotations

import pytest
import torch

from codedtool.training.totals import FiniteWatch, Totals, all_finite

pytestmark = pytest.mark.quick

CPU = torch.device("cpu")


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
