"""Folders of images: decoded into memory or left on disk, and refused with the fix when they are broken."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from codedtool.data import folder as folder_module
from codedtool.data import load_dataset, read_classes
from codedtool.data.folder import FolderSurvey, survey_folder
from codedtool.errors import InputError
from tests.data.conftest import write_image

pytestmark = pytest.mark.quick


def test_of_negatives_a_val_folder_is_enough(tree: Path) -> None:
    shutil.rmtree(tree / "train")
    with pytest.raises(InputError, match="train"):
        load_dataset(f"folder:{tree}")
    data = load_dataset(f"folder:{tree}", val_only=True)
    assert (len(data.train), data.val.targets.tolist()) == (0, [0, 0, 1, 1, 2, 2])


def test_a_survey_counts_training_images_and_finds_their_median_size(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert survey_folder(tree) == FolderSurvey(9, 5)
    for path in (tree / "train" / "bee").iterdir():
        write_image(path, (70, 90))
    for path in (tree / "train" / "cow").iterdir():
        write_image(path, (80, 90))
    assert survey_folder(tree) == FolderSurvey(9, 70)
    with monkeypatch.context() as patch:
        patch.setattr("codedtool.data.folder.COUNT_LIMIT", 4)
        few = survey_folder(tree)
        assert few is not None
        assert few.num_images == 6
        assert survey_folder(tree, count_all=True) == FolderSurvey(9, 70)
    # An icon that is its folder's first file does not decide.
    for name in ("ant", "bee", "cow"):
        write_image(tree / "train" / name / "!icon.png", (8, 8))
    found = survey_folder(tree)
    assert found is not None
    assert found.side > 8
    for name in ("ant", "bee", "cow"):
        (tree / "train" / name / "!icon.png").unlink()
    shutil.move(tree / "train", tree / "classes")
    shutil.rmtree(tree / "val")
    assert survey_folder(tree / "classes") == FolderSurvey(9, 70)
    assert survey_folder(tree / "nothing") is None


def test_the_first_images_of_each_class(tree: Path) -> None:
    in_memory = load_dataset(f"folder:{tree}").train
    fewer = in_memory.first_of_each_class(2)
    assert fewer.targets.tolist() == [0, 0, 1, 1, 2, 2]
    assert (np.asarray(fewer.images) == np.asarray(in_memory.images)[[0, 1, 3, 4, 6, 7]]).all()
    write_image(tree / "train" / "ant" / "3.png", (7, 7))
    on_disk = load_dataset(f"folder:{tree}").train
    assert on_disk.first_of_each_class(2).images == tuple(on_disk.images[number] for number in (0, 1, 4, 5, 7, 8))
    assert on_disk.first_of_each_class(9).images == on_disk.images


def test_folder_images_of_one_size_are_decoded_into_memory(tree: Path) -> None:
    reports: list[tuple[str, float, float | None]] = []
    data = load_dataset(
        f"folder:{tree}", progress=lambda phase, done, total, note="": reports.append((phase, done, total))
    )
    assert data.classes == ("ant", "bee", "cow")
    assert data.train.targets.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert data.val.targets.tolist() == [0, 0, 1, 1, 2, 2]
    assert isinstance(data.train.images, np.ndarray)
    assert data.train.image_size == data.val.image_size == (5, 6)
    literal = np.asarray(Image.open(tree / "val" / "cow" / "1.webp").convert("RGB"))
    assert np.array_equal(data.val.images[5], literal)
    assert reports[-1] == ("decoding images", 15, 15)


@pytest.mark.parametrize("odd", ["train/ant/2.PNG", "val/bee/0.png"])
def test_folder_images_of_several_sizes_stay_files(tree: Path, odd: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write_image(tree / odd, (7, 9))
    for probes in (32, 1):
        monkeypatch.setattr(folder_module, "_NUM_PROBES", probes)
        data = load_dataset(f"folder:{tree}")
        assert data.train.images[:2] == (str(tree / "train/ant/0.png"), str(tree / "train/ant/1.webp"))
        assert (len(data.train), len(data.val), data.train.image_size) == (9, 6, None)


def test_folder_images_over_the_memory_limit_stay_files(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for limit, image_size in ((15 * 5 * 6 * 3, (5, 6)), (15 * 5 * 6 * 3 - 1, None)):
        monkeypatch.setattr(folder_module, "MEMORY_LIMIT", limit)
        assert load_dataset(f"folder:{tree}").train.image_size == image_size


def test_grey_palette_and_transparent_images_are_read_as_rgb(tree: Path) -> None:
    for name, mode in (("0.png", "L"), ("1.webp", "RGBA"), ("2.PNG", "P")):
        path = tree / "train" / "ant" / name
        Image.open(path).convert(mode).save(path)
    assert load_dataset(f"folder:{tree}").train.images.shape == (9, 5, 6, 3)


def test_16_bit_grey_keeps_its_upper_bits_and_32_bits_are_refused(tree: Path) -> None:
    path = tree / "train" / "ant" / "0.png"
    grey = np.random.default_rng(0).integers(0, 2**16, size=(5, 6), dtype=np.uint16)
    Image.fromarray(grey).save(path)
    assert np.array_equal(load_dataset(f"folder:{tree}").train.images[0], np.repeat(grey[..., None] // 256, 3, axis=2))
    Image.fromarray(grey.astype(np.float32)).save(path.with_suffix(".tiff"))
    with pytest.raises(InputError, match=r"cannot read the image .*0\.tiff \(pixels .* F have no agreed range"):
        load_dataset(f"folder:{tree}")


def without_val(tree: Path, *, train: bool) -> str:
    """Seven images of the first class and three of the others, and no val; returns the data set's name."""
    shutil.rmtree(tree / "val")
    for number in range(3, 7):
        write_image(tree / "train" / "ant" / f"{number}.png", value=100 + number)
    if train:
        return f"folder:{tree}"
    shutil.move(tree / "train", tree / "photos")
    return f"folder:{tree / 'photos'}"


@pytest.mark.parametrize("train", [True, False])
def test_a_split_sets_a_part_of_every_class_aside_and_is_the_same_every_time(tree: Path, train: bool) -> None:
    name = without_val(tree, train=train)
    with pytest.raises(InputError, match=r"validation with `split` 0\.2"):
        load_dataset(name)
    data, again = load_dataset(name, split=0.3), load_dataset(name, split=0.3)
    assert data.val.targets.tolist() == [0, 0, 1, 2]
    assert data.train.targets.tolist() == [0, 0, 0, 0, 0, 1, 1, 2, 2]
    assert np.array_equal(data.val.images, again.val.images)
    assert data.split_sha256 == again.split_sha256 != ""
    pixels = [image.tobytes() for part in (data.train, data.val) for image in np.asarray(part.images)]
    assert len(set(pixels)) == 13
    others = [load_dataset(name, split=0.3, split_seed=seed) for seed in range(1, 6)]
    assert any(not np.array_equal(other.val.images, data.val.images) for other in others)
    most = load_dataset(name, split=0.9)
    assert np.bincount(most.train.targets).tolist() == [1, 1, 1]


def test_a_split_needs_two_images_of_a_class_and_gives_way_to_a_val_folder(tree: Path) -> None:
    assert load_dataset(f"folder:{tree}", split=0.5).split_sha256 == ""
    name = without_val(tree, train=True)
    for image in ("1.webp", "2.PNG"):
        (tree / "train" / "cow" / image).unlink()
    with pytest.raises(InputError, match=r"train/cow holds one image: `split` needs one for training"):
        load_dataset(name, split=0.3)


def test_classes_in_another_order_keep_their_images(tree: Path, tmp_path: Path) -> None:
    data = load_dataset(f"folder:{tree}")
    other = data.in_order(("cow", "ant", "bee"))
    assert other.classes == ("cow", "ant", "bee")
    for one, two in ((data.train, other.train), (data.val, other.val)):
        assert np.array_equal(one.images, two.images)
        assert [data.classes[k] for k in one.targets] == [other.classes[k] for k in two.targets]
    for names, message in (
        (("cow", "ant"), "`classes` does not name class 'bee' of folder:"),
        (("cow", "ant", "bee", "elk"), "`classes` names class 'elk' of .*, which it does not have"),
        (("cow", "ant", "bee", "cow"), "`classes` names 'cow' twice"),
    ):
        with pytest.raises(InputError, match=message):
            data.in_order(names)


def test_class_names_are_read_from_lines_or_json(tmp_path: Path) -> None:
    (tmp_path / "c.txt").write_text("cow\nant \n\nbee\n")
    (tmp_path / "c.json").write_text('["cow", "ant", "bee"]')
    assert read_classes(tmp_path / "c.txt") == read_classes(tmp_path / "c.json") == ("cow", "ant", "bee")
    for name, text in (("gone.txt", None), ("bad.json", "{"), ("other.json", '{"a": 1}'), ("empty.txt", "")):
        if text is not None:
            (tmp_path / name).write_text(text)
        with pytest.raises(InputError, match=name):
            read_classes(tmp_path / name)


def break_nothing_there(tree: Path) -> None:
    shutil.rmtree(tree)


def break_no_val(tree: Path) -> None:
    shutil.rmtree(tree / "val")


def break_no_classes(tree: Path) -> None:
    shutil.rmtree(tree / "train")
    write_image(tree / "train" / "0.png")


def break_other_classes(tree: Path) -> None:
    (tree / "val" / "bee").rename(tree / "val" / "dog")


def break_missing_class(tree: Path) -> None:
    shutil.rmtree(tree / "val" / "cow")


def break_empty_class(tree: Path) -> None:
    shutil.rmtree(tree / "val" / "bee")
    (tree / "val" / "bee").mkdir()
    (tree / "val" / "bee" / "notes.txt").write_text("no image")


def break_no_image(tree: Path) -> None:
    (tree / "train" / "cow" / "0.png").write_bytes(b"no image")


def break_cut_short(tree: Path) -> None:
    path = tree / "val" / "ant" / "0.png"
    path.write_bytes(path.read_bytes()[:-40])


def break_no_bytes(tree: Path) -> None:
    (tree / "train" / "ant" / "0.png").write_bytes(b"")


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (
            break_nothing_there,
            r"no folder .*; it must hold train/CLASS/IMAGE and val/CLASS/IMAGE; name a folder that does",
        ),
        (break_no_val, r"no folder .*val; it must hold train/CLASS/IMAGE"),
        (break_no_classes, r"train has no class folders; it must hold"),
        (break_other_classes, r"they differ: class 'bee' is in train and not in val; make"),
        (break_missing_class, r"train has 3 classes and val 2, .* class 'cow' is in train and not in val"),
        (break_empty_class, r"class folder .*val/bee holds no image; images end in \.jpg"),
        (break_no_image, r"cannot read the image .*train/cow/0\.png \(.*\); .* set `skip_bad_images`$"),
        (break_cut_short, r"cannot read the image .*val/ant/0\.png \(.*truncated.*\)"),
        (break_no_bytes, r"cannot read the image .*train/ant/0\.png"),
    ],
)
def test_broken_folders_are_refused_with_what_is_wrong_and_the_fix(tree: Path, break_it: Any, message: str) -> None:
    break_it(tree)
    with pytest.raises(InputError, match=message):
        load_dataset(f"folder:{tree}")


def test_unreadable_images_can_be_left_out_but_not_a_whole_class(tree: Path) -> None:
    break_no_image(tree)
    break_cut_short(tree)
    message = r"^2 images were skipped, the first: cannot read the image .*cow/0\.png \(.*\)$"
    with pytest.warns(UserWarning, match=message):
        data = load_dataset(f"folder:{tree}", skip_bad_images=True)
    assert data.train.targets.tolist() == [0, 0, 0, 1, 1, 1, 2, 2]
    assert data.val.targets.tolist() == [0, 1, 1, 2, 2]
    literal = np.asarray(Image.open(tree / "train" / "cow" / "1.webp").convert("RGB"))
    assert np.array_equal(data.train.images[6], literal)
    (tree / "val" / "ant" / "1.webp").write_bytes(b"")
    with (
        pytest.warns(UserWarning, match="^3 images"),
        pytest.raises(InputError, match=r"no image of class folder .*val/ant can be read"),
    ):
        load_dataset(f"folder:{tree}", skip_bad_images=True)


def test_a_folder_that_may_not_be_listed_is_named(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def refuse(folder: str) -> Any:
        if folder.endswith("bee"):
            raise PermissionError(13, "Permission denied", folder)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InputError, match=r"cannot list .*train/bee \(Permission denied\)$"):
        load_dataset(f"folder:{tree}")
