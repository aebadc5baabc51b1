"""From a number of classes, or a folder of images, to candidates for a network and the commands that train it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from codedtool.budget import Budget, Progress, silent
from codedtool.coding.arguments import checked_num_classes
from codedtool.coding.bounds import highest_possible_distance
from codedtool.coding.quick import quick_scheme
from codedtool.coding.result import SchemeResult
from codedtool.coding.scheme import CodingScheme
from codedtool.coding.search import find_scheme
from codedtool.errors import InputError
from codedtool.files import expanded, is_dir
from codedtool.models import CodedNetwork
from codedtool.models.counts import count_kept_bytes, count_macs, count_parameters, training_loss
from codedtool.models.families import choose_network, default_acts, usual_size
from codedtool.models.presets import build_network
from codedtool.models.pruning import extract_binary_classifier
from codedtool.training.devices import opened_runtime
from codedtool.training.recipe import Recipe
from codedtool.training.recipes import default_data
from codedtool.training.run_data import find_recipe

# Lengths of codewords that are considered; the paper has 10, 20 and 32.
_LENGTHS = (4, 6, 8, 10, 12, 16, 20, 24, 32, 40, 48, 64)

# Candidates at most, and the processor's seconds of the searches for all their schemes: a busy machine finds the same.
_MOST_CANDIDATES = 5
_ALL_SECONDS = 6.0

# A timed step has as many images as autograd keeps this many bytes for, at least this many. Of small batches a GPU is
# slow. Timed steps of a candidate, and the seconds after which its timing ends.
_TIMED_BYTES, _TIMED_BYTES_ELSEWHERE = 400_000_000, 2_000_000_000
_FEWEST_TIMED = 4
_TIMED_STEPS = 3
_TIMED_SECONDS = 2.0

# Part of a folder's images for validation, where it has no val/.
_SPLIT = 0.2

# Training images of the paper's data sets.
_NUM_IMAGES = {"cifar10": 50_000, "cifar100": 50_000}


@dataclass(frozen=True)
class PlannedScheme:
    """The scheme of one coded part of a network.

    Attributes:
        act: N_act.
        min_distance: the highest H_min at which K codewords were found in a short search.
        bound: the highest H_min that is not proved impossible for K codewords.
        shipped: name of a shipped scheme with these figures, or None.
    """

    act: int
    min_distance: int
    bound: int
    shipped: str | None


@dataclass(frozen=True)
class Candidate:
    """A network that could be trained.

    Attributes:
        length: N.
        schemes: those of the earlier and of the last coded part.
        preset: name of the architecture.
        parameters: number of parameters.
        macs: multiply-adds per image.
        kept_bytes: bytes that autograd keeps per image in training, at the training's image size.
        classifier_share: share of the parameters that the binary classifier of a class keeps.
        images_per_second: measured speed of training on this machine.
    """

    length: int
    schemes: tuple[PlannedScheme, PlannedScheme]
    preset: str
    parameters: int
    macs: int
    kept_bytes: int
    classifier_share: float
    images_per_second: float


@dataclass(frozen=True)
class Plan:
    """Candidates, the one to take, and what training it needs.

    Attributes:
        num_classes: K.
        class_name: name or number of a class, for the command that extracts its classifier.
        image_size: side of the images in pixels.
        train_size: their side in training.
        data: name of the data set, or None if only K is known.
        recipe: the recipe of the data set.
        recipe_reason: why this recipe.
        candidates: by N.
        chosen: place of the one to take.
        reason: one sentence on why.
        num_images: number of training images, without those that ``recipe.split`` sets aside; None if unknown.
        device: where the speeds were measured.
        size_was_given: whether the size was asked for, so that the commands must set it.
    """

    num_classes: int
    class_name: str
    image_size: int
    train_size: int
    data: str | None
    recipe: Recipe
    recipe_reason: str
    candidates: tuple[Candidate, ...]
    chosen: int
    reason: str
    num_images: int | None
    device: str
    size_was_given: bool = False

    @property
    def best(self) -> Candidate:
        """The candidate to take."""
        return self.candidates[self.chosen]

    def hours(self, candidate: Candidate) -> float | None:
        """Hours that the recipe takes with a candidate on this machine; None if the number of images is unknown."""
        if self.num_images is None:
            return None
        return self.num_images * self.recipe.epochs / candidate.images_per_second / 3600

    def scheme_paths(self) -> list[str]:
        """Name or file of each scheme of the chosen candidate, as options take them."""
        best = self.best
        return [
            one.shipped or f"schemes/k{self.num_classes}_{one.act}of{best.length}_h{one.min_distance}.npy"
            for one in best.schemes
        ]

    def scheme_commands(self) -> list[list[str]]:
        """The commands that make the schemes; none for shipped ones."""
        commands: list[list[str]] = []
        paths = self.scheme_paths()
        for number, (one, path) in enumerate(zip(self.best.schemes, paths, strict=True)):
            if one.shipped is None:
                figures = {"K": self.num_classes, "N": self.best.length, "act": one.act, "hmin": one.min_distance}
                options = [text for key, value in figures.items() for text in (f"--{key}", str(value))]
                with_first = ["--with", paths[0]] if number else []
                commands.append(["codedtool", "scheme", *options, *with_first, "--out", path])
        return commands

    def commands(self) -> list[list[str]]:
        """The commands from here to a binary classifier."""
        schemes = [text for path in self.scheme_paths() for text in ("--scheme", path)]
        preset = ["--preset", self.best.preset]
        data = [
            "--data",
            self.data or "folder:PATH",
            *(text for key, value in self._settings().items() for text in (f"--{key.replace('_', '-')}", str(value))),
        ]
        return [
            *self.scheme_commands(),
            ["codedtool", "train", *schemes, *preset, *data],
            ["codedtool", "bc", "--class", self.class_name],
        ]

    def config(self) -> str:
        """The training as the TOML file that `train --config` reads."""
        values: dict[str, object] = {"scheme": self.scheme_paths(), "preset": self.best.preset}
        values["data"] = self.data or "folder:PATH"
        values |= self._settings()
        return "".join(f"{key} = {_toml(value)}\n" for key, value in values.items())

    def _settings(self) -> dict[str, float]:
        """Values that the recipe of the data set would not have by itself."""
        split = {"split": self.recipe.split} if self.recipe.split else {}
        sizes = {"train_size": self.train_size, "eval_size": self.image_size} if self.size_was_given else {}
        return {**split, **sizes}

    def to_json(self) -> dict[str, Any]:
        """The plan as plain JSON types."""
        return {
            "K": self.num_classes,
            "image_size": self.image_size,
            "train_size": self.train_size,
            "data": self.data,
            "recipe": self.recipe.recipe,
            "recipe_reason": self.recipe_reason,
            "split": self.recipe.split,
            "num_images": self.num_images,
            "candidates": [asdict(candidate) | {"hours": self.hours(candidate)} for candidate in self.candidates],
            "chosen": self.chosen,
            "reason": self.reason,
            "images_per_second": self.best.images_per_second,
            "device": self.device,
            "hours": self.hours(self.best),
            "commands": self.commands(),
        }


def plan(
    num_classes: int | None = None,
    *,
    data: str | None = None,
    image_size: int | None = None,
    device: str = "auto",
    progress: Progress = silent,
) -> Plan:
    """Propose networks for a number of classes or for a data set, and choose one.

    Args:
        num_classes: K; None: that of ``data``.
        data: cifar10, cifar100 or folder:PATH; of a folder the names of its classes and files, and the sizes of some
            images, are read. A folder without val/ is planned with a part of its images for validation. None: only K
            counts.
        image_size: side of the images in pixels; None: that of the recipe, or of the paper's data with about K classes.
        device: auto, cpu, cuda or xla, for the measured speed.
        progress: called with the state of the work.

    Raises:
        InputError: neither K nor a data set, a K that the data set contradicts, or a folder without classes.
    """
    classes, num_images, split = _look_at(data)
    size_was_given = image_size is not None
    if num_classes is None:
        if classes is None:
            raise InputError("give `num_classes`, or `data` as cifar10, cifar100 or folder:PATH")
        num_classes = len(classes)
    num_classes = checked_num_classes(num_classes)
    if classes is not None and len(classes) != num_classes:
        raise InputError(f"`num_classes` {num_classes}: {data} has {len(classes)} classes; leave one of the two out")
    known = data
    if known is None and image_size is None:
        # The paper's data set, where K is one of the paper's.
        with suppress(InputError):
            known = default_data(num_classes, Recipe().data_dir)
    recipe, recipe_reason = find_recipe(known or "folder:", None if known else "small")
    recipe = recipe.with_values({"split": split})
    if image_size is None and known is None:
        image_size = usual_size(num_classes)
    if image_size is None:
        image_size, train_size = max(recipe.train_size, recipe.eval_size), recipe.train_size
    else:
        train_size = image_size
    if known is None or size_was_given:
        recipe = recipe.with_values({"train_size": image_size, "eval_size": image_size})
    if data is None:
        num_images = _NUM_IMAGES.get(known or "")
    wanted = _usual_length(num_classes)
    lengths = sorted(_feasible_lengths(num_classes), key=lambda length: (abs(math.log(length / wanted)), length))
    if not lengths:
        raise InputError(f"`num_classes` {num_classes} is too large for codewords of up to {_LENGTHS[-1]} digits")
    # The preferred length is searched first, while there is time.
    preferred = lengths[0]
    budget = Budget(_ALL_SECONDS, clock=time.process_time)
    lengths = lengths[:_MOST_CANDIDATES]
    schemes = {}
    for number, length in enumerate(lengths):
        progress("planning", number, len(lengths), f"N = {length}")
        schemes[length] = [_planned_scheme(num_classes, length, act, budget) for act in default_acts(length)]
    found: list[Candidate] = []
    where = ""
    there = recipe.with_values({"device": device})
    for number, length in enumerate(lengths):
        preset = choose_network(length, image_size).preset
        progress("timing", number, len(lengths), preset)
        candidate, where = _candidate(length, preset, schemes[length], image_size, there, train_size)
        found.append(candidate)
    candidates = tuple(sorted(found, key=lambda one: one.length))
    chosen = next(number for number, one in enumerate(candidates) if one.length == preferred)
    best = candidates[chosen]
    share = f"{best.classifier_share:.0%}"
    reason = (
        f"N = {preferred} continues the paper's choice (10 for 10 classes, 20 for 100, 32 for 1000): a class's "
        f"classifier keeps {share} of the parameters, and codewords differ in at least "
        f"{best.schemes[0].min_distance} and {best.schemes[1].min_distance} of {preferred} digits"
    )
    return Plan(
        num_classes,
        "0" if classes is None else classes[0],
        image_size,
        train_size,
        known,
        recipe,
        recipe_reason if known else "recipe small: that of most folders of one's own images",
        candidates,
        chosen,
        reason,
        num_images,
        where,
        size_was_given,
    )


def _look_at(data: str | None) -> tuple[list[str] | None, int | None, float]:
    """What is known of a data set without reading its images.

    Returns:
        The names of its classes; the number of its training images; and the part of its images to be set aside for
        validation, 0 where it has such images.
    """
    kind, _, path = (data or "").partition(":")
    if kind in _NUM_IMAGES:
        return [str(number) for number in range(10 if kind == "cifar10" else 100)], _NUM_IMAGES[kind], 0.0
    if data is None:
        return None, None, 0.0
    if kind != "folder" or not path:
        raise InputError(
            f"`data` {data!r}: plans are made for cifar10, cifar100 and folder:PATH, or for `num_classes` alone"
        )
    from codedtool.data.folder import survey_folder
    from codedtool.data.listing import list_classes

    root = expanded(path)
    split = 0.0 if is_dir(root / "val") else _SPLIT
    root = root / "train" if is_dir(root / "train") else root
    if not is_dir(root):
        raise InputError(f"`data` folder:{path}: there is no folder {root}")
    try:
        classes = list(list_classes(root))
    except OSError as error:
        raise InputError(f"`data` folder:{path}: cannot list {root} ({error.strerror or error})") from None
    if len(classes) < 2:
        raise InputError(f"`data` folder:{path}: {root} holds {len(classes)} folders; it needs one per class")
    survey = survey_folder(expanded(path), count_all=True)
    return classes, None if survey is None else round((1 - split) * survey.num_images), split


def _usual_length(num_classes: int) -> float:
    """The N to which the paper's three lead: 10 for 10 classes, 20 for 100, 32 for 1000, on a logarithmic scale."""
    return float(np.interp(math.log10(num_classes), (0, 1, 2, 3, 5), (4, 10, 20, 32, 64)))


def _feasible_lengths(num_classes: int) -> list[int]:
    """The lengths with K codewords of both weights."""
    return [length for length in _LENGTHS if all(math.comb(length, act) >= num_classes for act in default_acts(length))]


def _candidate(
    length: int,
    preset: str,
    schemes: Sequence[tuple[PlannedScheme, CodingScheme]],
    image_size: int,
    recipe: Recipe,
    train_size: int,
) -> tuple[Candidate, str]:
    """The network for codewords of one length with all its figures, and the device where its speed was measured."""
    (first, first_table), (second, second_table) = schemes
    network = build_network(preset, [first_table, second_table])
    parameters = count_parameters(network)
    kept = count_kept_bytes(network, torch.zeros(2, 3, train_size, train_size))
    macs = count_macs(network.eval(), torch.zeros(1, 3, image_size, image_size))
    share = count_parameters(extract_binary_classifier(network, 0)) / parameters
    speed, where = _measure(network.train(), recipe, train_size, kept)
    return Candidate(length, (first, second), preset, parameters, macs, kept, share, speed), where


def _planned_scheme(num_classes: int, length: int, act: int, budget: Budget) -> tuple[PlannedScheme, CodingScheme]:
    """A scheme at the highest distance at which a short search finds one, and its figures."""
    bound = highest_possible_distance(num_classes, length, act)
    scheme, name = quick_scheme(num_classes, length, act, highest=bound, budget=budget)
    return PlannedScheme(act, scheme.min_distance, bound, name), scheme


def _measure(network: CodedNetwork, recipe: Recipe, train_size: int, kept_bytes: int) -> tuple[float, str]:
    """Images per second of a few training steps, and the device; autograd keeps ``kept_bytes`` for an image."""
    with opened_runtime(recipe) as runtime:
        limit = _TIMED_BYTES if runtime.device.type == "cpu" else _TIMED_BYTES_ELSEWHERE
        num_images = max(_FEWEST_TIMED, min(recipe.batch_size, limit // kept_bytes))
        prepared = runtime.prepare(network)
        optimizer = torch.optim.SGD(network.parameters(), lr=0.0)
        images = runtime.put(torch.randn(num_images, 3, train_size, train_size))
        targets = torch.zeros(num_images, dtype=torch.int64, device=images.device)

        def step() -> float:
            with runtime.autocast():
                loss = training_loss(prepared(images, targets), targets)
            runtime.backward(loss)
            runtime.step(optimizer)
            optimizer.zero_grad(set_to_none=True)
            # Reading the loss waits for the device.
            return loss.item()

        return num_images / _median_seconds(step), str(runtime.device)


def _median_seconds(step: Callable[[], float]) -> float:
    """Median seconds of a few steps after one that is not counted; fewer steps where they are slow."""
    start = time.monotonic()
    step()
    seconds: list[float] = []
    while len(seconds) < _TIMED_STEPS and (not seconds or time.monotonic() - start < _TIMED_SECONDS):
        begin = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - begin)
    return float(np.median(seconds))


def make_schemes(planned: Plan, *, budget: Budget | None = None, progress: Progress = silent) -> Iterator[SchemeResult]:
    """Find the schemes of the chosen candidate that are not shipped; the second one's rows are ordered for the first.

    Yields:
        Each scheme as it is found.

    Raises:
        InfeasibleError, SearchInterrupted: as `codedtool.find_scheme`.
    """
    first: CodingScheme | None = None
    for one in planned.best.schemes:
        if one.shipped is not None:
            first = first or CodingScheme.shipped(one.shipped)
            continue
        companions = [] if first is None else [first]
        result = find_scheme(
            planned.num_classes,
            planned.best.length,
            one.act,
            one.min_distance,
            companions=companions,
            budget=budget,
            progress=progress,
        )
        first = first or result.scheme
        yield result


def _toml(value: object) -> str:
    """A text or a list of texts in TOML, whose basic strings are escaped as JSON's."""
    import json

    return json.dumps(value, ensure_ascii=False)
