"""Classes are found by name or number."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from codedtool.errors import InputError
from codedtool.training.subject import class_index

pytestmark = pytest.mark.quick


def test_a_class_is_found_by_its_name_first_and_by_its_number() -> None:
    assert class_index(("cat", "dog", "0"), "dog") == 1
    assert class_index(("cat", "dog", "0"), "0") == 2
    assert class_index(("cat", "dog", "0"), "1") == 1
    with pytest.raises(InputError, match="did you mean cat"):
        class_index(("cat", "dog"), "catt")


@given(st.one_of(st.text(), st.integers().map(str)))
@example("9" * 5000)
@example("²")
@example("-1")
def test_any_other_text_is_refused_as_a_class(text: str) -> None:
    found, message = None, ""
    try:
        found = class_index(("cat", "dog"), text)
    except InputError as error:
        message = str(error)
    if found is None:
        assert message.startswith("`class_name`")
        assert text not in ("cat", "dog", "0", "1")
    else:
        assert text in ("cat", "dog") or int(text) == found
