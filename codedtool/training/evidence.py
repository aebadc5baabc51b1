"""Statistics of a run on its validation images that a prediction rests on; stored with every checkpoint.

They give the confidence of an answer (after table 3) and tell images that are unlike the run's own, so that
`codedtool predict` needs no data set.

Shape suffixes: n images of a split, B of a batch, K classes, N subNNs, L coded blocks, S scores.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from codedtool.models.energy import codeword_distance
from codedtool.models.network import CodedNetwork

# Name of the file in a checkpoint's folder.
EVIDENCE_FILE = "evidence.json"

# Share of the validation images that may count as unlike the training images.
UNLIKE_SHARE = 0.05

# Weight of the prior of `Evidence.confidence`, in images: as in Jeffreys' prior of a share.
_PRIOR_IMAGES = 1.0

_FORMAT = 1


@dataclass(frozen=True)
class Confidence:
    """Estimated probability that an answer is right.

    Attributes:
        value: the estimate, above 0 and below 1.
        num_images: number of validation images that it rests on.
    """

    value: float
    num_images: int


@dataclass(frozen=True)
class Evidence:
    """Statistics of one checkpoint on the validation images.

    Attributes:
        image_size: side of the images in pixels.
        num_classes: K.
        agreement: for 0, 1, ..., L early decoders that agree with the network's answer: the number of validation
            images, and how many of these answers are right (table 3). Empty for a plain network.
        thresholds: score -> its threshold; an image is unlike the training images if any score (`unlike_scores`) is
            above its threshold. Empty: not measured.
    """

    image_size: int
    num_classes: int
    agreement: tuple[tuple[int, int], ...]
    thresholds: dict[str, float]

    def confidence(self) -> tuple[Confidence, ...]:
        """The confidence of an answer that 0, 1, ..., L early decoders agree with; it never falls with their number.

        With n_a validation images where a decoders agree, and r_a right answers among them, the share of right answers
        is estimated as

            p_a = (r_a + w m_a) / (n_a + w)  with  m_a = 1/K + (A - 1/K) a/L  and  w = 1,

        where A = (sum r_a + 1/2) / (sum n_a + 1) is the accuracy of all answers. It is the posterior mean under a beta
        prior with the weight of one image, like Jeffreys' prior, so a few images never give 0% or 100%. The prior mean
        of an answer that no decoder supports is 1/K, the accuracy of guessing; it rises to A for one that all support.
        Then isotonic regression with weights n_a + w makes the p_a rise with a. It pools neighbouring a that contradict
        the order; the result is the most likely non-decreasing sequence (Robertson, Wright & Dykstra, 1988). A
        confidence rests on the images of all a that were pooled with it.

        Example:
            >>> found = Evidence(8, 10, ((0, 0), (2, 0), (3, 3), (60, 57)), {}).confidence()
            >>> [(round(one.value, 2), one.num_images) for one in found]
            [(0.1, 0), (0.12, 2), (0.91, 3), (0.95, 60)]
        """
        if not self.agreement:
            return ()
        from sklearn.isotonic import IsotonicRegression

        num_a, right_a = np.array(self.agreement, dtype=np.float64).T
        chance = 1 / self.num_classes
        accuracy = (right_a.sum() + 0.5) / (num_a.sum() + 1)
        prior_a = np.linspace(chance, max(chance, accuracy), len(num_a))
        weight_a = num_a + _PRIOR_IMAGES
        share_a = (right_a + _PRIOR_IMAGES * prior_a) / weight_a
        value_a = IsotonicRegression().fit_transform(np.arange(len(num_a)), share_a, sample_weight=weight_a)
        return tuple(Confidence(float(value), int(num_a[value_a == value].sum())) for value in value_a)

    def to_json(self) -> dict[str, Any]:
        """The evidence in JSON's types."""
        return {
            "format": _FORMAT,
            "image_size": self.image_size,
            "num_classes": self.num_classes,
            "agreement": [{"num_images": number, "right": right} for number, right in self.agreement],
            "unlike": {"share": UNLIKE_SHARE, "thresholds": self.thresholds},
        }

    @classmethod
    def from_json(cls, document: Any) -> Evidence:
        """Make the evidence from a document of `to_json`.

        Raises:
            ValueError: it is no such document.
        """
        try:
            if document["format"] != _FORMAT:
                raise ValueError(f"format {document['format']!r}")
            agreement = tuple((int(row["num_images"]), int(row["right"])) for row in document["agreement"])
            thresholds = {str(name): float(value) for name, value in document["unlike"]["thresholds"].items()}
            found = cls(int(document["image_size"]), int(document["num_classes"]), agreement, thresholds)
        except (KeyError, TypeError, AttributeError, OverflowError) as error:
            raise ValueError(f"{error!r} is missing or wrong") from None
        if found.num_classes < 1 or any(not 0 <= right <= number < 2**53 for number, right in agreement):
            raise ValueError("the numbers contradict each other")
        return found

    def to_bytes(self) -> bytes:
        """The content of the file."""
        return (json.dumps(self.to_json(), indent=2, allow_nan=False) + "\n").encode()


def checked_evidence(document: Any, network: CodedNetwork, image_size: int) -> Evidence | None:
    """Make the evidence from a document of `Evidence.to_json`; None if it is not of this network and image size."""
    try:
        found = Evidence.from_json(document)
    except ValueError:
        return None
    rows = len(network.block_names) + 1 if network.block_names else 0
    fits = (found.image_size, found.num_classes, len(found.agreement)) == (image_size, network.num_classes, rows)
    return found if fits else None


def parse_evidence(content: bytes | None, network: CodedNetwork, image_size: int) -> Evidence | None:
    """Read the content of an evidence file; None if there is none, or if it is not of this network and image size."""
    if content is None:
        return None
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return checked_evidence(document, network, image_size)


class Collector:
    """Collects the evidence of one evaluation, batch by batch and on every rank.

    Args:
        network: the network that is evaluated.
        num_images: number n of images of the split.
        device: device of the network.
    """

    def __init__(self, network: CodedNetwork, num_images: int, device: torch.device) -> None:
        self._network = network
        self._names = score_names(network)
        rows = len(network.block_names) + 1 if network.block_names else 0
        # Columns: seen, right, number of agreeing decoders, then the scores.
        self._values = torch.zeros(num_images, 3 + len(self._names), device=device)
        self._rows = rows

    def see(
        self,
        logits_BK: torch.Tensor,
        energies: Sequence[torch.Tensor],
        decoded: Sequence[torch.Tensor],
        targets_B: torch.Tensor,
        indices_B: torch.Tensor,
    ) -> None:
        """Add a batch.

        Args:
            logits_BK: (B, K) float32 logits.
            energies: for every coded block, (B, N) energies.
            decoded: for every coded block, the (B,) classes that its early decoder predicts.
            targets_B: (B,) int64 classes.
            indices_B: (B,) int64 numbers of the images in their split, 0..n-1.
        """
        answers_B = logits_BK.argmax(1)
        agreeing_B = torch.zeros_like(answers_B)
        for classes_B in decoded:
            agreeing_B = agreeing_B + (classes_B == answers_B)
        columns = [torch.ones_like(agreeing_B), answers_B == targets_B, agreeing_B]
        scores_BS = unlike_scores(logits_BK, energies, self._network)
        values = torch.cat([torch.stack([one.to(scores_BS.dtype) for one in columns], dim=1), scores_BS], dim=1)
        self._values.index_copy_(0, indices_B, values)

    @property
    def values(self) -> torch.Tensor:
        """One row for each image, zero for images that this rank has not seen; the sum over all ranks is whole."""
        return self._values

    def evidence(self, values: torch.Tensor, image_size: int) -> Evidence:
        """The evidence of ``values``, summed over all ranks; waits for the device.

        Args:
            values: sum of the ranks' `values`.
            image_size: side of the images in pixels.
        """
        found = values.cpu().double().numpy()
        found = found[found[:, 0] > 0]
        right_n, agreeing_n = found[:, 1] > 0, found[:, 2].astype(np.int64)
        groups = [right_n[agreeing_n == number] for number in range(self._rows)]
        agreement = tuple((len(group), int(group.sum())) for group in groups)
        thresholds = dict(zip(self._names, shared_thresholds(found[:, 3:]), strict=True))
        if not np.isfinite(list(thresholds.values())).all():
            thresholds = {}
        return Evidence(image_size, self._network.num_classes, agreement, thresholds)


def score_names(network: CodedNetwork) -> tuple[str, ...]:
    """Names of the scores that `unlike_scores` gives for a network, in order."""
    return ("low energy score", "high energy score", *(f"codeword distance, {name}" for name in network.block_names))


def unlike_scores(logits_BK: torch.Tensor, energies: Sequence[torch.Tensor], network: CodedNetwork) -> torch.Tensor:
    """Scores that are high for images unlike the training images: (B, S) float32, in the order of `score_names`.

    - low energy score, high energy score: minus and plus log sum exp of the logits (Liu et al. 2020, temperature 1).
    - codeword distance, BLOCK: `codeword_distance` of the block's energies to the codeword of the answer.

    Args:
        logits_BK: (B, K) logits.
        energies: for every coded block, (B, N) energies.
        network: the network that gave them.
    """
    logits_BK = logits_BK.float()
    answers_B, energy_B = logits_BK.argmax(1), logits_BK.logsumexp(1)
    distances = [
        codeword_distance(energies_BN.float(), block.coded_sum.scheme_KN[answers_B])
        for block, energies_BN in zip(network.coded_blocks, energies, strict=True)
    ]
    return torch.stack([-energy_B, energy_B, *distances], dim=1)


def shared_thresholds(scores_nS: np.ndarray, share: float = UNLIKE_SHARE) -> list[float]:
    """Thresholds of S scores, so that at most ``share`` of the n images have any score above its threshold.

    Every score gets the same number k of images above its threshold, and k is the largest that keeps the promise. This
    needs no image of another kind. It is Bonferroni's correction (share / S for each score) but for the images that
    several scores have in common, which it does not count twice.

    Args:
        scores_nS: (n, S) scores.
        share: 0..1.

    Returns:
        S thresholds; not finite if there is no image.

    Example:
        >>> scores = np.stack([np.arange(100), -np.arange(100)], axis=1)
        >>> shared_thresholds(scores, 0.1)
        [94.0, -5.0]
    """
    num_images = len(scores_nS)
    if not num_images:
        return [float("nan")] * scores_nS.shape[1]
    ascending_nS = np.sort(scores_nS, axis=0)
    # For every image: the smallest k with which some score puts it above the threshold.
    needed_nS = [
        num_images - np.searchsorted(ordered_n, scores_n)
        for ordered_n, scores_n in zip(ascending_nS.T, scores_nS.T, strict=True)
    ]
    ordered_n = np.sort(np.min(needed_nS, axis=0))
    # With k images above, those with a need of at most k count: the first image that is too many limits k.
    allowed = int(share * num_images)
    k = int(ordered_n[allowed]) - 1 if allowed < num_images else num_images - 1
    return [float(value) for value in ascending_nS[num_images - 1 - k]]
