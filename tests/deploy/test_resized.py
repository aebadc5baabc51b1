"""Predictions for images of another size than the network's, which was trained and evaluated on whole images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from codedtool.data import choose_crop_part, load_dataset
from codedtool.data.augmentation import centre_crop
from codedtool.deploy.prediction import predict, read_images
from codedtool.training.recipes import recipe_for
from codedtool.training.subject import opened_run
from codedtool.training.train import train
from tests.subjects import tiny_schemes


def enlarged(pixels: np.ndarray, side: int) -> Image.Image:
    """An image of ``side`` x ``side`` pixels that becomes about ``pixels`` (8, 8, 3) when it is reduced.

    Reducing an image blurs it. So the pixels are sharpened by what the blur takes, a few times (van Cittert 1931).
    """
    sharp = pixels.astype(float)
    image = Image.fromarray(pixels)
    for _ in range(5):
        image = Image.fromarray(sharp.round().astype(np.uint8)).resize((side, side), Image.Resampling.NEAREST)
        sharp = np.clip(sharp + pixels - np.asarray(centre_crop(image, 8, part=1.0)), 0, 255)
    return image


def enlarged_digits(folder: Path, side: int) -> list[Path]:
    """Files of the validation digits, enlarged from 8x8 pixels."""
    paths = []
    for number, pixels in enumerate(load_dataset("digits").val.images):
        paths.append(folder / f"{number}.png")
        enlarged(pixels, side).save(paths[-1])
    return paths


@pytest.mark.parametrize("side", [24, 50])
def test_enlarged_validation_images_become_the_pixels_that_were_evaluated(side: int, tmp_path: Path) -> None:
    val = load_dataset("digits").val
    paths = enlarged_digits(tmp_path, side)

    def difference(crop_part: float) -> float:
        found = read_images(paths, 8, crop_part=crop_part).permute(0, 2, 3, 1).double().numpy()
        return float(np.abs(found - val.images).mean())

    assert difference(choose_crop_part(val, 8)) < 8, "in grey values, 0..255"
    assert difference(0.875) > 35


@pytest.mark.slow
def test_enlarged_validation_images_are_recognised_as_well(tmp_path: Path) -> None:
    """The network was trained and evaluated on whole digits of 8x8 pixels: enlarged ones are not cropped either."""
    recipe = recipe_for("digits").with_values({"epochs": 12, "precision": "fp32", "preset": "coded_resnext_tiny"})
    result = train(recipe, tiny_schemes(), run_name="digits", folder=tmp_path)
    with opened_run(result.run) as subject:
        found = predict(subject, enlarged_digits(tmp_path, 32), evidence=subject.evidence())
        targets = subject.data.val.targets
    right = np.array([one.class_name == str(target) for one, target in zip(found, targets, strict=True)])
    assert result.best_accuracy > 0.9
    assert right.mean() > result.best_accuracy - 0.05
    # The confidences that are printed are true of images that did not give them, as far as these can tell.
    assert np.mean([one.confidence for one in found]) == pytest.approx(right.mean(), abs=0.05)
