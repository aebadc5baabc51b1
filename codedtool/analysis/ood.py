"""Out-of-distribution detection: how well a run's scores tell another data set's images from its own.

Shape suffixes: n images, K classes, N subNNs, B any number of images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from codedtool.analysis.result import Result, Rows, Table, percent
from codedtool.analysis.temperature import agreement
from codedtool.budget import Progress, silent
from codedtool.data import ImageData
from codedtool.errors import InputError
from codedtool.models.energy import codeword_distance
from codedtool.models.network import CodedNetwork
from codedtool.training.subject import NotApplicableError, Outputs, Subject, collect_outputs

RECALL = 0.95

# Points of a curve in the JSON document and the CSV.
_MAX_POINTS = 200


@dataclass(frozen=True)
class ScoreDetection:
    """Detection by one score of one network; a higher score means "an image of the run's own kind".

    Attributes:
        network: "coded" or "plain", the run's own network; "plain control", the one to compare with.
        score: name of the score.
        auroc: area under the curve of true against false positives, 0..1; 0.5 is chance.
        fpr95: share of the other data set's images that are taken for the run's own at the threshold, 0..1.
        threshold: the score that 95% of the run's validation images reach or exceed.
        curve: (false positive rate, true positive rate), thinned to at most 200 points.
    """

    network: str
    score: str
    auroc: float
    fpr95: float
    threshold: float
    curve: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class OodResult(Result):
    """The result of `ood`.

    Attributes:
        data, checkpoint: the run's data set and checkpoint.
        ood: name of the other data set.
        num_images: number of the run's validation images.
        num_ood: number of the other data set's images.
        detections: one per network and score.
        skipped: the parts that were left out, each with the reason.
    """

    data: str
    checkpoint: str
    ood: str
    num_images: int
    num_ood: int
    detections: tuple[ScoreDetection, ...]
    skipped: tuple[str, ...]

    @property
    def name(self) -> str:
        return "ood"

    @property
    def best(self) -> ScoreDetection:
        """The run's own score of highest AUROC."""
        first = self.detections[0].network
        return max((one for one in self.detections if one.network == first), key=lambda one: one.auroc)

    def left_out(self) -> tuple[str, ...]:
        return self.skipped

    def lines(self) -> tuple[str, ...]:
        best = self.best
        return (f"The best score of the {best.network} network is {best.score}: AUROC {percent(best.auroc)}%.",)

    def tables(self) -> tuple[Table, ...]:
        return (
            Table(
                f"{self.num_images:,} images of {self.data} against {self.num_ood:,} of {self.ood}, %",
                ("network, score", "AUROC", f"false positives at {RECALL:.0%} recall"),
                tuple(
                    (f"{one.network}, {one.score}", percent(one.auroc), percent(one.fpr95)) for one in self.detections
                ),
            ),
        )

    def rows(self) -> dict[str, Rows]:
        scores = [
            {
                "network": one.network,
                "score": one.score,
                "auroc": one.auroc,
                "fpr95": one.fpr95,
                "threshold": one.threshold,
            }
            for one in self.detections
        ]
        points = [
            {"network": one.network, "score": one.score, "false_positive_rate": fpr, "true_positive_rate": tpr}
            for one in self.detections
            for fpr, tpr in one.curve
        ]
        return {self.name: scores, f"{self.name}_curves": points}

    def to_json(self) -> dict[str, Any]:
        return {
            "data": self.data,
            "checkpoint": self.checkpoint,
            "ood": self.ood,
            "num_images": self.num_images,
            "num_ood": self.num_ood,
            "best": self.best.score,
            "scores": self.rows()[self.name],
            "skipped": list(self.skipped),
        }


def scores_of(outputs: Outputs, network: CodedNetwork) -> dict[str, torch.Tensor]:
    """Every score of every image, (n,) float64; a higher score means an image of the run's own kind.

    - softmax: the highest softmax probability.
    - energy score: log sum exp of the logits (Liu et al. 2020, temperature 1).
    - agreeing decoders: the number of early decoders that give the predicted class (table 3).
    - codeword, BLOCK: minus the distance of the block's energies to the codeword of the predicted class.
    - codeword, all blocks: the mean of these over the coded blocks.

    Args:
        outputs: of n images.
        network: that gave them; a plain network has the first two scores only.
    """
    logits_nK = outputs.logits.double()
    found = {"softmax": logits_nK.softmax(1).amax(1), "energy score": logits_nK.logsumexp(1)}
    if not network.coded_blocks:
        return found
    found["agreeing decoders"] = agreement(outputs.logits, outputs.decoded).sum(1).double()
    blocks = {}
    for block, energies_nN in zip(network.coded_blocks, outputs.energies, strict=True):
        codewords_nN = torch.from_numpy(block.scheme.table.copy())[outputs.predictions]
        blocks[f"codeword, {block.name}"] = -codeword_distance(energies_nN.double(), codewords_nN)
    together = torch.stack(list(blocks.values())).mean(0)
    return found | blocks | {"codeword, all blocks": together}


def detect(network: str, score: str, own_n: NDArray[np.float64], other_n: NDArray[np.float64]) -> ScoreDetection:
    """Measure one score; the run's own images are the positives.

    Args:
        network, score: names.
        own_n: scores of the run's images.
        other_n: scores of the other data set's images.

    Raises:
        InputError: a score that is not finite.
    """
    from sklearn.metrics import roc_auc_score, roc_curve

    values = np.concatenate([own_n, other_n])
    if not np.isfinite(values).all():
        raise InputError(f"the score {score} is not finite: the network's weights are damaged or diverged")
    is_own = np.arange(len(values)) < len(own_n)
    fpr, tpr, _ = roc_curve(is_own, values)
    # The largest threshold that at least 95% of the run's images reach.
    threshold = float(np.sort(own_n)[::-1][int(np.ceil(RECALL * len(own_n))) - 1])
    thinned = np.unique(np.linspace(0, len(fpr) - 1, min(len(fpr), _MAX_POINTS)).round().astype(int))
    return ScoreDetection(
        network=network,
        score=score,
        auroc=float(roc_auc_score(is_own, values)),
        fpr95=float((other_n >= threshold).mean()),
        threshold=threshold,
        curve=tuple((float(fpr[i]), float(tpr[i])) for i in thinned),
    )


def ood(
    subject: Subject, *, plain: Subject | None = None, ood: ImageData | None = None, progress: Progress = silent
) -> OodResult:
    """Measure how well scores tell another data set's images from the run's validation images.

    Args:
        subject: a coded or plain run.
        plain: a run of the plain control, for comparison.
        ood: the other data set; its validation images are used.

    Raises:
        NotApplicableError: no other data set.
        InputError: no image of a data set can be read, a score is not finite, or ``plain`` has other classes or coded
            blocks.
    """
    if ood is None:
        raise NotApplicableError("out-of-distribution detection needs images of other classes: name a data set `ood`")
    runs: Mapping[str, Subject] = {"coded" if subject.network.coded_blocks else "plain": subject}
    skipped: tuple[str, ...] = ()
    if plain is not None:
        subject.check_control(plain)
        runs = {**runs, "plain control": plain}
    elif subject.network.coded_blocks:
        skipped = ("scores of the plain network: no run `plain` was given to compare with",)
    detections, num_ood = [], 0
    for name, one in runs.items():
        # Both networks see the same images, whatever the plain run was trained on.
        mine = one.outputs(progress) if one is subject else collect_outputs(one, subject.data.val, progress=progress)
        own = scores_of(mine, one.network)
        outputs = collect_outputs(one, ood.val, progress=progress, phase=f"images of {ood.name}")
        other = scores_of(outputs, one.network)
        num_ood = len(outputs.targets)
        detections += [detect(name, score, own[score].numpy(), other[score].numpy()) for score in own]
    return OodResult(
        data=subject.recipe.data,
        checkpoint=subject.checkpoint,
        ood=ood.name,
        num_images=len(subject.outputs(progress).targets),
        num_ood=num_ood,
        detections=tuple(detections),
        skipped=skipped,
    )
