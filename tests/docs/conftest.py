"""One folder with two short trained runs of the digits, from which every page's own folder is copied."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image

from tests.docs.blocks import House
from tests.paths import SCHEMES

# The trainings that pages show, the plain run first, so that the latest run is the coded one.
TRAININGS = (
    "codedtool train --data digits --preset resnext_tiny --run-name plain",
    "codedtool train --scheme schemes/c10_5of10.npy --data digits",
)


def short(arguments: list[str]) -> list[str]:
    """The arguments with two epochs where a training has no number of its own."""
    trains = arguments[:1] in (["train"], ["sweep"]) and "--epochs" not in arguments
    return [*arguments, "--epochs", "2"] if trains else arguments


def furnish(path: Path, *, full_length: bool = False) -> House:
    """A folder with the shipped schemes, the runs that pages speak of and an image of a digit."""
    from codedtool.data import load_dataset

    shutil.copytree(SCHEMES, path / "schemes")
    house = House(path, shorten=list if full_length else short)
    for command in TRAININGS:
        house.trained[command] = house.print_of(command)
    digits = load_dataset("digits", data_dir=path, download=False)
    Image.fromarray(digits.val.images[0]).save(path / "IMAGE.png")
    return house


@pytest.fixture(scope="session")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> House:
    return furnish(tmp_path_factory.mktemp("docs") / "house")


@pytest.fixture
def house(furnished: House, tmp_path: Path) -> House:
    """A copy of the furnished folder."""
    shutil.copytree(furnished.path, tmp_path / "house", symlinks=True)
    return House(tmp_path / "house", trained=furnished.trained, shorten=furnished.shorten)
