"""No test of this folder opens an address; a small folder of images."""

from __future__ import annotations

import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a test must not open an address")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)


def write_image(path: Path, size: tuple[int, int] = (6, 5), *, value: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(value).integers(0, 256, size=(size[1], size[0], 3), dtype=np.uint8)
    options: dict[str, Any] = {"lossless": True} if path.suffix == ".webp" else {}
    Image.fromarray(pixels).save(path, **options)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Three classes, three training and two validation images of each, 6x5 pixels, lossless."""
    for split, number in (("train", 3), ("val", 2)):
        for label, name in enumerate(("ant", "bee", "cow")):
            for image in range(number):
                suffix = ("png", "webp", "PNG")[image]
                write_image(tmp_path / split / name / f"{image}.{suffix}", value=10 * label + image)
    return tmp_path
