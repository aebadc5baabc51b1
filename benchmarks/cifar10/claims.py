"""The paper's claims, each judged by the figures of several seeds: it holds, it does not hold, or it is undecided."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

from benchmarks.cifar10.figures import EXIT

# Figures of one seed, from `figures.seed_figures`.
Seed = dict[str, Any]


@dataclass(frozen=True)
class Claim:
    """One row of the table of claims.

    Attributes:
        text: the claim, with the paper's figures.
        margins: by how much every seed fulfils the claim, in points of per cent; negative where it does not.
        figures: the figures that decide, as text.
    """

    text: str
    margins: tuple[float, ...]
    figures: str

    @property
    def verdict(self) -> str:
        """What the margins say: the claim is decided where their mean is more than a sample standard deviation from 0.

        One seed has no deviation, so it decides nothing.
        """
        if len(self.margins) < 2 or abs(mean(self.margins)) <= stdev(self.margins):
            return "undecided"
        return "holds" if mean(self.margins) > 0 else "does not hold"


def percent(values: Iterable[float | None], *, digits: int = 1, scale: float = 100) -> str:
    """Mean and, of several, sample standard deviation of shares, in per cent; of those that there are."""
    found = [scale * value for value in values if value is not None]
    if not found:
        return ""
    return f"{mean(found):.{digits}f}" + (f" ± {stdev(found):.{digits}f}" if len(found) > 1 else "")


def claims(seeds: Sequence[Seed]) -> list[Claim]:
    """The claims of sections 4.2 to 4.4 and appendices C and F on CIFAR-10."""
    return [
        _compare(
            seeds,
            "coded is more accurate than plain (94.41 against 93.66)",
            lambda seed: (seed["accuracy"]["coded"], seed["accuracy"]["plain"]),
        ),
        _compare(
            seeds,
            "coded binary classifiers are more precise than those cut from a plain network (93 against 13)",
            lambda seed: (
                _classifier(seed, "coded BC")["val_precision"],
                _classifier(seed, "plain BC")["val_precision"],
            ),
        ),
        _compare(
            seeds,
            "their F1 comes within two points of the plain network's logit (84 against 86)",
            lambda seed: (
                _classifier(seed, "coded BC")["val_f1"],
                _classifier(seed, "plain network's logit")["val_f1"],
            ),
            allowance=0.02,
        ),
        _hardest_class(seeds),
        _compare(
            seeds,
            "they reject out-of-distribution images more often than those cut from a plain network (precision)",
            lambda seed: (
                _classifier(seed, "coded BC")["ood_precision"],
                _classifier(seed, "plain BC")["ood_precision"],
            ),
        ),
        *(_specialized(seeds, block) for block in seeds[0]["specialization"]),
        _compare(
            seeds,
            "the last early decoder is better than the first (figure 4)",
            lambda seed: (list(seed["decoders"].values())[-1], next(iter(seed["decoders"].values()))),
        ),
        _compare(
            seeds,
            "answers with all early decoders agreeing are more often right than those with fewer (table 3)",
            _all_agree_and_fewer,
        ),
        _compare(
            seeds,
            f"an early exit ({EXIT}) costs at most half a point of accuracy",
            lambda seed: (seed["exits"][EXIT]["accuracy"], seed["accuracy"]["coded"]),
            allowance=0.005,
            more=lambda: f"; {percent(seed['exits'][EXIT]['macs_ratio'] for seed in seeds)}% of the multiply-adds",
        ),
        *(_calibrated(seeds, share) for share in (0.25, 0.5)),
        _compare(
            seeds,
            "subNNs answer more strongly to their own classes than to others (figure 6: mean absolute output, ×100)",
            lambda seed: tuple(mean(panel[part] for panel in seed["activations"]) for part in ("active", "inactive")),
        ),
        _compare(
            seeds,
            "the paths tell other data sets' images better than the coded network's energy score (AUROC)",
            lambda seed: (_best_path_score(seed), _auroc(seed, "coded", "energy score")),
        ),
        _compare(
            seeds,
            "the coded network tells them better than the plain one (AUROC of the energy score)",
            lambda seed: (_auroc(seed, "coded", "energy score"), _auroc(seed, "plain control", "energy score")),
        ),
    ]


def _compare(
    seeds: Sequence[Seed],
    text: str,
    pair: Callable[[Seed], tuple[float, ...]],
    *,
    allowance: float = 0.0,
    more: Callable[[], str] = str,
) -> Claim:
    """The claim that the first of two figures is higher than the second, less an allowance."""
    pairs = [pair(seed) for seed in seeds]
    margins = tuple(100 * (first - second + allowance) for first, second in pairs)
    firsts, seconds = zip(*pairs, strict=True)
    return Claim(text, margins, f"{percent(firsts)} against {percent(seconds)}{more()}")


def _classifier(seed: Seed, source: str) -> dict[str, float]:
    found: dict[str, float] = seed["classifiers"][source]
    return found


def _hardest_class(seeds: Sequence[Seed]) -> Claim:
    """The paper names the cat, with out-of-distribution negatives."""
    others = [min(f1 for name, f1 in seed["classifier_f1"].items() if name != "cat") for seed in seeds]
    cats = [seed["classifier_f1"]["cat"] for seed in seeds]
    margins = tuple(100 * (other - cat) for other, cat in zip(others, cats, strict=True))
    return Claim('"cat" is the hardest class', margins, f"F1 {percent(cats)}, the next lowest {percent(others)}")


def _specialized(seeds: Sequence[Seed], block: str) -> Claim:
    without = [{kind: seed["specialization"][block][kind][-1] for kind in ("active", "inactive")} for seed in seeds]
    return Claim(
        f"{block}: without all of its active subNNs the network is worse than without all inactive ones (figure 2a)",
        tuple(100 * (one["inactive"] - one["active"]) for one in without),
        f"{percent(one['active'] for one in without)} against {percent(one['inactive'] for one in without)}, "
        f"whole {percent(seed['accuracy']['coded'] for seed in seeds)}",
    )


def _all_agree_and_fewer(seed: Seed) -> tuple[float, float]:
    *fewer, everyone = seed["agreement"]
    images = sum(row["num_images"] for row in fewer)
    right = sum(row["num_images"] * row["accuracy"] for row in fewer if row["num_images"])
    return everyone["accuracy"], right / images


def _calibrated(seeds: Sequence[Seed], share: float) -> Claim:
    methods = [
        {row["method"]: row["mce"] for row in seed["calibration"]["coded"] if row["fit_share"] == share}
        for seed in seeds
    ]
    return Claim(
        f"h_aug calibrates better than h_T, fitted on {share:.0%} of the images (table 6: MCE)",
        tuple(100 * (one["h_T"] - one["h_aug"]) for one in methods),
        f"MCE {percent(one['h_aug'] for one in methods)} against {percent(one['h_T'] for one in methods)}",
    )


def _best_path_score(seed: Seed) -> float:
    """AUROC of the best score that the paths give: agreeing decoders, or a distance to the codeword."""
    return max(
        row["auroc"]
        for row in seed["ood"]
        if row["network"] == "coded" and row["score"] not in ("softmax", "energy score")
    )


def _auroc(seed: Seed, network: str, score: str) -> float:
    return next(row["auroc"] for row in seed["ood"] if (row["network"], row["score"]) == (network, score))
