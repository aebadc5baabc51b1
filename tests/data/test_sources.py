"""Data sets by name: unknown names, other numbers of classes, and the augmentation of each."""

from __future__ import annotations

from pathlib import Path

import pytest

from codedtool.data import check_num_classes, load_dataset
from codedtool.errors import InputError
from codedtool.training.recipes import recipe_for

pytestmark = pytest.mark.quick


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cifar11", "data set 'cifar11' is unknown; did you mean 'cifar10'"),
        ("CIFAR100", "did you mean 'cifar100'"),
        ("imagenet", "data set 'imagenet' is unknown; .*Known: cifar10, cifar100, folder:PATH"),
        ("folder:", "lacks the part after the colon"),
        ("folder", "lacks the part after the colon"),
        ("digits:3", "nothing may follow digits"),
        ("synthetic:ten", "K must be a whole number from 2 to 10000"),
        ("synthetic:1", "K must be a whole number from 2"),
        ("synthetic:-3", "K must be a whole number from 2"),
        ("synthetic:20000", "K must be a whole number from 2 to 10000"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_dataset(name)


def test_a_bare_path_is_told_to_say_folder(tree: Path) -> None:
    with pytest.raises(InputError, match=f"write folder:{tree}$"):
        load_dataset(str(tree))


def test_a_scheme_with_another_number_of_classes_is_refused() -> None:
    data = load_dataset("digits")
    check_num_classes(data, 10)
    with pytest.raises(InputError, match="K = 100 codewords, the data set digits has 10 classes"):
        check_num_classes(data, 100)


def test_each_data_set_is_trained_with_the_papers_augmentation() -> None:
    imagenet = recipe_for("folder:images")
    assert (imagenet.random_resized_crop, imagenet.flip, imagenet.randaugment) == (True, 0.5, "rand-m7-mstd0.5-inc1")
    assert (imagenet.erasing, imagenet.erasing_count, imagenet.crop_padding) == (0.4, 3, 0)
    for name, policy in (("cifar10", "rand-m4-n3"), ("cifar100", "rand-m2-n1")):
        cifar = recipe_for(name)
        assert (cifar.crop_padding, cifar.flip, cifar.randaugment, cifar.erasing) == (4, 0.5, policy, 0.0)
    # Not the paper's: a digit is no longer one when it is mirrored, and made-up patterns are not varied.
    for name, padding in (("digits", 1), ("synthetic:10", 0)):
        small = recipe_for(name)
        assert (small.crop_padding, small.flip, small.randaugment, small.erasing) == (padding, 0.0, "", 0.0)
        assert not small.random_resized_crop
