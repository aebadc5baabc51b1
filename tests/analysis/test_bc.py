"""``bc`` of one class: a classifier that recognises nothing is not written unless that is asked for."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from codedtool.analysis.bc import bc, file_names
from codedtool.analysis.classifier_metrics import CODED, evaluate_classifiers
from codedtool.errors import InputError, OutOfMemoryError
from tests.subjects import make_subject, noisy_data, tiny_coded, tiny_plain, tiny_schemes, tiny_subjects

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


@pytest.mark.filterwarnings("ignore:the binary classifier of .* recognises nothing")
def test_a_classifier_is_kept_where_memory_does_not_suffice_for_its_cost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OutOfMemoryError("memory ran out")

    monkeypatch.setattr("codedtool.analysis.bc.cost", refuse)
    subject, _ = tiny_subjects(tmp_path, tiny_coded(), tiny_plain())
    path = tmp_path / "out.safetensors"
    with pytest.raises(OutOfMemoryError):
        bc(subject, class_name="0", out=path, force=True)
    assert path.exists()


CLASS_NAMES = st.text(alphabet=st.sampled_from("aA bß_-.0/\n"), min_size=1, max_size=4)


@given(st.lists(CLASS_NAMES | CLASS_NAMES.map("{}_scores".format), unique=True, max_size=12))
@example(["a b", "a_b", "a_b-1", "A_B"])
@example(["scores", "a", "a scores", "a_scores_scores"])
def test_no_two_classes_share_a_file(classes: list[str]) -> None:
    names = file_names(classes)
    # Beside each class's results lie its scores, and beside those of all classes theirs.
    files = ["scores", *names, *(f"{name}_scores" for name in names)]
    assert len({file.casefold() for file in files}) == len(files) == 1 + 2 * len(classes)
    for name in names:
        assert name
        assert not name.startswith(".")
        assert not set(name) & set("/\n ")


def test_the_results_of_classes_with_like_names_are_kept_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("codedtool.analysis.bc.cost", lambda *_, **__: None)
    classes = ("a b", "a_b", *"cdefghij")
    data = noisy_data(classes, train=4, val=3)
    subject = make_subject(tmp_path, tiny_coded(), data, schemes=tiny_schemes())
    files, names = set(), set()
    for name in classes[:2]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it recognises nothing
            result = bc(subject, class_name=name, force=True)
        files.add(result.file)
        names.add(result.name)
    assert {path.name for path in files if path is not None} == {"a_b.safetensors", "a_b-1.safetensors"}
    assert names == {"bc_a_b", "bc_a_b-1"}
    assert len(list((subject.run.path / "bc").iterdir())) == 4
