"""Removal of subNNs (figures 2a and 9) against a literal loop, one image and one draw at a time."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from codedtool.analysis.specialization import (
    BlockCurves,
    SpecializeResult,
    even_choice,
    random_removal_masks,
    specialize,
)
from codedtool.cli import app
from codedtool.coding.scheme import CodingScheme
from codedtool.data import Split, normalize
from codedtool.errors import InputError
from codedtool.report.figures_specialization import draw_specialization
from codedtool.training.recipes import recipe_for
from codedtool.training.run import Run
from codedtool.training.subject import NotApplicableError, Subject, opened_run
from codedtool.training.train import train
from tests.conftest import TABLE4_3OF10

NUM_IMAGES = 36


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A tiny network after a few epochs of digits, stage s3 coded by table 4's 3/10."""
    torch.set_num_threads(1)
    table = np.array([[int(digit) for digit in word] for word in TABLE4_3OF10], dtype=np.uint8)
    recipe = recipe_for("digits").with_values(
        {
            "preset": "coded_resnext_tiny",
            "epochs": 3,
            "batch_size": 60,
            "lr": 0.05,
            "device": "cpu",
            "precision": "fp32",
        }
    )
    folder = tmp_path_factory.mktemp("runs")
    return train(recipe, {"s3": CodingScheme(table)}, run_name="digits", folder=folder).run


@pytest.fixture
def subject(run: Run) -> Iterator[Subject]:
    """The run, with a few dozen of its validation images."""
    with opened_run(run) as opened:
        for block in opened.network.coded_blocks:
            # So short a training leaves the blocks faint beside their shortcuts.
            block.expand_bn.weight.data += 1
        val = opened.data.val
        some = replace(opened.data, val=Split(val.images[:NUM_IMAGES], val.targets[:NUM_IMAGES]))
        yield replace(opened, find_data=lambda: some)


def with_batches_of(subject: Subject, batch_size: int) -> Subject:
    return replace(subject, recipe=subject.recipe.with_values({"batch_size": batch_size}))


def literal_accuracy(subject: Subject, block: str, k: int, *, active: bool, repeats: int, seed: int) -> float:
    """What `specialize` is to give: every image alone, its subNNs sorted by its own row of random numbers."""
    number = subject.network.block_names.index(block)
    scheme = subject.network.coded_blocks[number].scheme
    assert scheme is not None
    images, targets = subject.data.val.images, subject.data.val.targets
    right = 0
    for repeat in range(repeats):
        scores = np.random.default_rng((seed, number, repeat, int(active))).random((len(targets), scheme.length))
        for image, target, score in zip(images, targets, scores, strict=True):
            candidates = [n for n in range(scheme.length) if bool(scheme.table[target, n]) == active]
            keep = torch.ones(scheme.length)
            keep[sorted(candidates, key=score.__getitem__)[:k]] = 0
            x = normalize(torch.from_numpy(image).permute(2, 0, 1)[None], subject.run.normalization)
            with torch.no_grad():
                logits = subject.network(x, keep_masks={number: keep}).logits
            right += int(logits.argmax()) == target
    return right / (len(targets) * repeats)


def test_curves_are_those_of_a_literal_loop(subject: Subject) -> None:
    result = specialize(subject, blocks=["s3.2"], repeats=2, seed=3)
    (curves,) = result.blocks
    assert (curves.block, curves.num_subnns, curves.act, result.num_images) == ("s3.2", 10, 3, NUM_IMAGES)
    assert (len(curves.active), len(curves.inactive)) == (4, 8)
    for k in range(4):
        assert curves.active[k] == literal_accuracy(subject, "s3.2", k, active=True, repeats=2, seed=3), k
    for k in (0, 1, 4, 7):
        assert curves.inactive[k] == literal_accuracy(subject, "s3.2", k, active=False, repeats=2, seed=3), k
    assert len({*curves.active, *curves.inactive}) > 2, "the witness should see something change"


def test_no_removal_is_the_plain_accuracy(subject: Subject) -> None:
    images = normalize(torch.from_numpy(subject.data.val.images).permute(0, 3, 1, 2), subject.run.normalization)
    with torch.no_grad():
        right = subject.network(images).logits.argmax(1).numpy() == subject.data.val.targets
    for curves in specialize(subject).blocks:
        assert curves.active[0] == curves.inactive[0] == right.mean()


@pytest.mark.parametrize("batch_size", [1, 7])
def test_the_batch_size_decides_nothing(subject: Subject, batch_size: int) -> None:
    whole = specialize(with_batches_of(subject, NUM_IMAGES), seed=1)
    assert specialize(with_batches_of(subject, batch_size), seed=1) == whole


def test_a_block_gets_the_same_draws_alone_and_with_others(subject: Subject) -> None:
    every = specialize(subject)
    assert [curves.block for curves in every.blocks] == ["s3.1", "s3.2"]
    assert specialize(subject, blocks=["s3.2", "s3.2"]).blocks == every.blocks[1:]


def test_another_seed_draws_otherwise(subject: Subject) -> None:
    curves = [specialize(subject, seed=seed).blocks for seed in (0, 0, 1)]
    assert curves[0] == curves[1] != curves[2]


def test_progress_reaches_no_more_than_the_end(subject: Subject) -> None:
    seen: list[float] = []
    specialize(
        with_batches_of(subject, 10),
        progress=lambda phase, done, total, note="": seen.append(done / (total or 0)),
    )
    assert seen == sorted(seen)
    assert max(seen) <= 1
    assert len(seen) > 20


@pytest.mark.parametrize("active", [True, False])
def test_masks_remove_k_of_the_right_kind_and_are_nested(scheme: CodingScheme, active: bool) -> None:
    codewords = torch.tensor(scheme.table)[torch.arange(200) % 10]
    sizes = range(scheme.act + 1 if active else scheme.length - scheme.act + 1)
    keep = random_removal_masks(codewords, sizes, active=active, generator=np.random.default_rng(0))
    assert keep.shape == (len(sizes), 200, 10)
    assert keep.dtype == torch.bool
    for k, mask in zip(sizes, keep, strict=True):
        assert ((~mask).sum(dim=1) == k).all()
        assert (codewords[~mask] == int(active)).all()
    assert (keep[1:] <= keep[:-1]).all()


def test_masks_are_uniform_over_subsets() -> None:
    rows = 12_000
    codewords = torch.tensor([[0, 1, 1, 0, 1, 1]]).expand(rows, -1)
    (keep,) = random_removal_masks(codewords, [2], active=True, generator=np.random.default_rng(1))
    counts = {pair: int((~keep[:, pair]).all(dim=1).sum()) for pair in combinations((1, 2, 4, 5), 2)}
    assert sum(counts.values()) == rows
    expected = rows / len(counts)
    assert sum((count - expected) ** 2 / expected for count in counts.values()) < 20.5  # chi-square, 5 d.o.f., p 0.001


def test_masks_of_rows_in_parts_are_those_of_the_whole(scheme: CodingScheme) -> None:
    codewords = torch.tensor(scheme.table)
    whole = random_removal_masks(codewords, [0, 2], active=False, generator=np.random.default_rng(5))
    generator = np.random.default_rng(5)
    parts = [random_removal_masks(part, [0, 2], active=False, generator=generator) for part in codewords.split(3)]
    assert torch.equal(torch.cat(parts, dim=1), whole)


@pytest.mark.parametrize(("k", "active"), [(4, True), (8, False), (-1, True)])
def test_masks_refuse_what_is_not_there(scheme: CodingScheme, k: int, active: bool) -> None:
    with pytest.raises(InputError, match=f"{k} (in)?active subNNs cannot be removed"):
        random_removal_masks(torch.tensor(scheme.table), [k], active=active, generator=np.random.default_rng(0))


def test_errors_are_clear(subject: Subject, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'s9.1' is no coded block of this run; its coded blocks are s3.1, s3.2"):
        specialize(subject, blocks=["s9.1"])
    with pytest.raises(InputError, match="`repeats` must be at least 1, got 0"):
        specialize(subject, repeats=0)
    with pytest.raises(InputError, match="`seed` must be at least 0, got -1"):
        specialize(subject, seed=-1)
    recipe = subject.recipe.with_values({"preset": "resnext_tiny"})
    plain = Run.create(recipe, {}, subject.classes, subject.run.normalization, name="plain", folder=tmp_path)
    with pytest.raises(NotApplicableError, match="specialize needs coded blocks"):
        specialize(replace(subject, run=plain, network=plain.build_network().eval(), recipe=recipe))


RESULT = SpecializeResult(
    "digits",
    "epoch1",
    8,
    20,
    1,
    0,
    tuple(BlockCurves(f"s3.{n}", 4, 1, (0.5, 0.25), (0.5, 0.5, 0.75, 1.0)) for n in range(4)),
)


@given(st.lists(st.integers(0, 6), min_size=1, max_size=40), st.floats(0, 1), st.integers(0, 9))
def test_images_are_drawn_evenly_from_the_classes(targets: list[int], part: float, seed: int) -> None:
    targets_n = np.array(targets)
    count = 1 + int(part * (len(targets) - 1))
    numbers = even_choice(targets_n, count, seed=seed)
    assert numbers.tolist() == sorted(set(numbers.tolist()))
    assert len(numbers) == count
    assert np.array_equal(numbers, even_choice(targets_n, count, seed=seed))
    drawn, there = (np.bincount(of, minlength=7) for of in (targets_n[numbers], targets_n))
    # A class has an image less than another one only if it has no more.
    for k in range(7):
        assert drawn[k] == there[k] or drawn[k] >= drawn.max() - 1


def test_other_seeds_draw_other_images_of_every_class() -> None:
    targets_n = np.repeat(np.arange(3), 50)
    first, second = (even_choice(targets_n, 30, seed=seed) for seed in range(2))
    assert np.bincount(targets_n[first]).tolist() == np.bincount(targets_n[second]).tolist() == [10, 10, 10]
    assert first.tolist() != second.tolist()


def test_of_some_images_the_curves_are_those_of_a_split_of_them(subject: Subject) -> None:
    some = specialize(subject, blocks=["s3.2"], images=12, seed=3)
    val = subject.data.val
    chosen = replace(subject.data, val=val.taking(even_choice(val.targets, 12, seed=3)))
    alone = specialize(replace(subject, find_data=lambda: chosen), blocks=["s3.2"], seed=3)
    assert (some.num_images, some.num_available, alone.num_available) == (12, NUM_IMAGES, 12)
    assert some.blocks == alone.blocks
    assert "12 of 36 images" in some.tables()[0].caption
    assert " of " not in alone.tables()[0].caption.partition(":")[2].replace("images of", "")
    assert specialize(subject, blocks=["s3.2"], images=NUM_IMAGES + 1, seed=3).num_images == NUM_IMAGES
    with pytest.raises(InputError, match="`images` must be at least 1, got 0"):
        specialize(subject, images=0)


def test_rows_and_json_hold_every_point() -> None:
    assert RESULT.rows()["specialize"][1] == {"block": "s3.0", "removed": "active", "k": 1, "accuracy": 0.25}
    assert len(RESULT.rows()["specialize"]) == 4 * 6
    assert json.loads(json.dumps(RESULT.to_json()))["blocks"][3]["inactive"] == [0.5, 0.5, 0.75, 1.0]


def test_the_figure_has_a_panel_per_block_and_a_line_per_kind() -> None:
    figure = draw_specialization(RESULT)
    assert len(figure.axes) == 4
    for axes in figure.axes:
        lines = {line.get_label(): list(line.get_ydata()) for line in axes.lines}
        assert lines == {"active": [50, 25], "inactive": [50, 50, 75, 100]}
    low, high = figure.axes[0].get_ylim()
    assert low < 25
    assert high > 100
    assert {axes.get_ylim() for axes in figure.axes} == {(low, high)}


def test_the_verbs_write_their_files_and_one_json_document(run: Run) -> None:
    common = ["--run", str(run.path), "--device", "cpu", "--quiet", "--json"]
    for verb, more in (("specialize", ["--block", "s3.2"]), ("activations", ["--subnns", "2"])):
        result = CliRunner().invoke(app, [verb, *common, *more])
        assert result.exit_code == 0, result.output
        folder = run.path / "analysis"
        assert json.loads(result.stdout) == json.loads((folder / f"{verb}.json").read_text())
        assert next(csv.DictReader((folder / f"{verb}.csv").open()))["block"] == "s3.2"
        assert (folder / f"{verb}.png").read_bytes()[:4] == b"\x89PNG"
        assert "<svg" in (folder / f"{verb}.svg").read_text()
        assert result.stderr == ""
    told = CliRunner().invoke(app, ["activations", *common[:4], "--subnns", "2"])
    assert "s3.2" in told.stdout
    refused = CliRunner().invoke(app, ["specialize", *common, "--block", "s1.1"])
    assert refused.exit_code == 2
    assert "no coded block" in json.loads(refused.stdout)["error"]
