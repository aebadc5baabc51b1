"""Expected confusions between classes, as a similarity of classes for ``codedtool scheme assign``."""

from __future__ import annotations

import hashlib
import io
import warnings

import numpy as np
import torch
from numpy.typing import NDArray

from codedtool.analysis.artifacts import artifact_path
from codedtool.budget import Progress, silent
from codedtool.files import FileError, write_atomically
from codedtool.training.subject import Subject


@torch.no_grad()
def expected_confusions(subject: Subject, *, progress: Progress = silent) -> NDArray[np.float64]:
    """Expected confusion counts over the training images, which are not augmented.

    The training images are used because the validation images must not influence the order of a scheme's rows. Softmax
    probabilities are summed instead of counted answers because a good network confuses few of its training images.

    Args:
        subject: a coded or plain run.
        progress: where to report the progress.

    Returns:
        (K, K) float64: entry (i, j) is the sum of the probabilities of class j over images of class i.
    """
    num_classes = len(subject.classes)
    sums_KK = torch.zeros(num_classes, num_classes, dtype=torch.float64)
    for images, targets_B in subject.batches(subject.data.train, progress, "confusions of training images"):
        with subject.runtime.autocast():
            logits_BK = subject.network(images).logits
        sums_KK.index_add_(0, targets_B, logits_BK.double().softmax(1).cpu())
    return sums_KK.numpy()


def save_confusions(subject: Subject, *, progress: Progress = silent) -> tuple[NDArray[np.float64], str]:
    """Measure `expected_confusions` and write them to RUN/analysis/confusions.npy, or warn if that cannot be written.

    Returns:
        The matrix, and the SHA-256 of the file's content.
    """
    matrix_KK = expected_confusions(subject, progress=progress)
    buffer = io.BytesIO()
    np.save(buffer, matrix_KK)
    path = artifact_path(subject.run, "confusions.npy")
    try:
        write_atomically(path, buffer.getvalue())
    except FileError as error:
        warnings.warn(f"the confusions are not stored in {path}: {error.reason}", stacklevel=2)
    return matrix_KK, hashlib.sha256(buffer.getvalue()).hexdigest()
