"""``bc`` of one class: a classifier that recognises nothing is not written unless that is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from codedtool.analysis.bc import bc
from codedtool.analysis.classifier_metrics import CODED, evaluate_classifiers
from codedtool.errors import InputError
from tests.subjects import tiny_coded, tiny_plain, tiny_subjects

pytestmark = pytest.mark.quick


def test_a_classifier_that_recognises_nothing_is_written_only_by_force(tmp_path: Path) -> None:
    # Classes of noise: what is learned of the training images does not hold for others.
    subject, _ = tiny_subjects(tmp_path, tiny_coded(), tiny_plain())
    measured = evaluate_classifiers(subject, range(10)).of(CODED)
    useless = [one.class_name for one in measured if one.val.precision == one.val.recall == 0]
    others = [one.class_name for one in measured if one.val.recall > 0]
    assert useless
    assert others
    path = tmp_path / "out.safetensors"
    with pytest.raises(
        InputError, match=r"recognises nothing: it accepts none of the 4 validation images .*not written.*`force`"
    ):
        bc(subject, class_name=useless[0], out=path)
    assert not path.exists()
    with pytest.warns(UserWarning, match="recognises nothing"):
        result = bc(subject, class_name=useless[0], out=path, force=True)
    assert result.file == path
    assert path.exists()
    assert bc(subject, class_name=others[0], out=tmp_path / "other.safetensors").file is not None
