"""The cost of an architecture before it is trained (table 5): with given, shipped or stand-in schemes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, islice
from math import comb

import numpy as np
import torch

from codedtool.analysis.cost import CostResult, measure_networks
from codedtool.budget import Progress, silent
from codedtool.coding.scheme import CodingScheme
from codedtool.coding.shipped import shipped_names
from codedtool.errors import InputError
from codedtool.models.families import parse_name
from codedtool.models.presets import assign_schemes, build_network, get_preset
from codedtool.models.pruning import extract_binary_classifier
from codedtool.training.devices import opened_runtime
from codedtool.training.recipe import Recipe


def cost_of_preset(
    preset: str,
    schemes: Sequence[CodingScheme] = (),
    *,
    num_classes: int | None = None,
    image_size: int | None = None,
    class_name: str = "0",
    recipe: Recipe | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> CostResult:
    """Measure the size and speed of an architecture, its plain control and one binary classifier (table 5).

    The weights are random: neither counts nor speeds depend on them.

    Args:
        preset: name of the architecture. For a plain control, only its own network is measured.
        schemes: for `assign_schemes`; empty: shipped ones of this K, N and ratio, else stand-ins.
        num_classes: K; None: that of the schemes, or of the data set that the architecture is made for.
        image_size: side of the images in pixels; None: 16, 32 or 224, whichever the architecture is made for.
        class_name: number of the binary classifier's class.
        recipe: its device and precision are used; None: the defaults.
        seed: seed of weights and images.
        progress: where to report the progress.

    Raises:
        InputError: an unknown name, schemes that do not fit, no such class, or fewer codewords than classes.
    """
    name = parse_name(preset)
    lines: tuple[str, ...] = ()
    if schemes:
        assigned = assign_schemes(preset, schemes)
    else:
        assigned, lines = _usual_schemes(preset, num_classes)
    recipe = (recipe or Recipe()).with_values({"preset": preset})
    usual = 224 if name.for_photos else min(name.pixels[1] or 32, 32)
    with opened_runtime(recipe) as runtime, torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        network = build_network(preset, assigned, num_classes=num_classes).eval()
        if not class_name.isdecimal() or int(class_name) >= network.num_classes:
            raise InputError(
                f"`class_name` {class_name!r} must be a number from 0 to {network.num_classes - 1}: without a run, "
                "classes have no names"
            )
        networks, skipped = {"coded" if assigned else "plain": network}, []
        if assigned:
            control = preset.removeprefix("coded_")
            networks["plain"] = build_network(control, num_classes=network.num_classes).eval()
            networks[f"binary classifier of {class_name}"] = extract_binary_classifier(network, int(class_name))
        else:
            skipped.append(f"coded network and binary classifier: {preset} is a plain control")
        for one in networks.values():
            runtime.prepare(one)
        costs, batch = measure_networks(networks, runtime, image_size or usual, seed=seed, progress=progress)
        device, precision = str(runtime.device), runtime.precision
    return CostResult(preset, image_size or usual, batch, device, precision, costs, tuple(skipped), lines)


def _usual_schemes(preset: str, num_classes: int | None) -> tuple[dict[str, CodingScheme], tuple[str, ...]]:
    """Stage -> scheme for every coded stage of an architecture, and one line per ratio that says which."""
    found = get_preset(preset)
    acts = {stage: int(ratio * found.num_subnns) for stage, ratio in found.ratios.items()}
    K = num_classes or min([found.num_classes, *(comb(found.num_subnns, act) for act in acts.values())])
    of_act, lines = {}, []
    for act in dict.fromkeys(acts.values()):
        stages = " and ".join(stage for stage, own in acts.items() if own == act)
        shape = f"K={K}, N={found.num_subnns}, N_act={act}"
        shipped = _shipped(K, found.num_subnns, act)
        if shipped is None:
            of_act[act] = _stand_in(K, found.num_subnns, act)
            lines.append(f"{stages}: a stand-in of random codewords; no shipped scheme has {shape}.")
        else:
            of_act[act] = CodingScheme.shipped(shipped)
            lines.append(f"{stages}: the shipped scheme {shipped} ({shape}).")
    return {stage: of_act[act] for stage, act in acts.items()}, tuple(lines)


def _shipped(num_classes: int, length: int, act: int) -> str | None:
    """The shortest name of a shipped scheme with these numbers."""
    for name in sorted(shipped_names(), key=len):
        scheme = CodingScheme.shipped(name)
        if (scheme.num_classes, scheme.length, scheme.act) == (num_classes, length, act):
            return name
    return None


def _stand_in(num_classes: int, length: int, act: int) -> CodingScheme:
    """Distinct codewords without regard to their distances; the same on every call."""
    number = comb(length, act)
    if number < num_classes:
        raise InputError(
            f"only {number} codewords of {length} digits with {act} ones exist, fewer than `num_classes` {num_classes}"
        )
    if number <= 2 * num_classes:
        rows = list(islice(combinations(range(length), act), num_classes))
    else:
        rng = np.random.default_rng(0)
        chosen: dict[tuple[int, ...], None] = {}
        while len(chosen) < num_classes:
            chosen[tuple(sorted(rng.choice(length, act, replace=False).tolist()))] = None
        rows = list(chosen)
    table = np.zeros((num_classes, length), dtype=np.uint8)
    for k, ones in enumerate(rows):
        table[k, list(ones)] = 1
    return CodingScheme(table)
