"""Which files of a folder count as images, in which order, and what is said of the others."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets.folder import IMG_EXTENSIONS, find_classes, make_dataset

from codedtool.data import load_dataset
from codedtool.data.folder import FolderSurvey, survey_folder
from codedtool.data.listing import image_endings, list_classes, list_images
from codedtool.errors import InputError
from codedtool.files import files_ending
from tests.data.conftest import write_image

pytestmark = pytest.mark.quick


def copy_image(tree: Path, *parts: str) -> Path:
    """Copy one image of the tree to another place below it."""
    target = tree.joinpath(*parts)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes((tree / "val" / "ant" / "0.png").read_bytes())
    return target


def names(tree: Path) -> list[str]:
    return [os.path.relpath(path, tree / "train") for path in list_images(tree / "train").files]


def test_plain_folders_are_listed_in_the_order_of_torchvision(tree: Path) -> None:
    for parts in (("a b", "x.png"), ("a", "b", "y.png"), ("a", "z.png"), ("a-b", "w.JPEG"), ("B", "v.ppm"), ("ä.png",)):
        copy_image(tree, "train", "bee", *parts)
    copy_image(tree, "train", "cow eggs", "1.png")
    classes, numbers = find_classes(str(tree / "train"))
    literal = make_dataset(str(tree / "train"), numbers, extensions=IMG_EXTENSIONS)
    found = list_images(tree / "train")
    assert found.classes == tuple(classes) == list_classes(tree / "train")
    assert list(zip(found.files, found.targets.tolist(), strict=True)) == literal
    assert str(found.left_out) == "no file left out"


def test_every_ending_of_torchvision_counts_and_those_of_the_same_formats() -> None:
    assert set(IMG_EXTENSIONS) <= set(image_endings())
    assert {".jfif", ".jpe", ".gif", ".jp2", ".avif", ".mpo"} <= set(image_endings())
    assert not {".eps", ".pdf", ".h5", ".txt", ".psd", ""} & set(image_endings())


def test_hidden_files_and_folders_of_the_system_do_not_count(tree: Path) -> None:
    before = names(tree)
    for parts in (
        ("bee", ".ipynb_checkpoints", "0-checkpoint.png"),
        ("bee", "._0.png"),
        ("bee", "deep", ".thumbnails", "a.png"),
        ("bee", "@eaDir", "0.png", "SYNOPHOTO_THUMB_M.jpg"),
        (".ipynb_checkpoints", "0.png"),
        ("__MACOSX", "ant", "._0.png"),
    ):
        copy_image(tree, "train", *parts)
    found = list_images(tree / "train")
    assert found.classes == ("ant", "bee", "cow")
    assert names(tree) == before
    assert found.left_out.counts == {"hidden": 4, "folder of the system": 2}


def test_links_that_lead_back_or_to_the_same_folder_are_followed_once(tree: Path, tmp_path: Path) -> None:
    before = names(tree)
    copy_image(tree, "elsewhere", "more.png")
    (tree / "elsewhere" / "round").symlink_to(tree / "train")
    (tree / "elsewhere" / "self").symlink_to(tree / "elsewhere")
    for name, to in (
        ("up", ".."),
        ("upper", "../.."),
        ("sibling", "../cow"),
        ("out", "../../elsewhere"),
        ("out again", "../../elsewhere"),
    ):
        (tree / "train" / "bee" / name).symlink_to(to)
    (tree / "train" / "alias").symlink_to("bee")
    (tree / "train" / "itself").symlink_to("itself")
    found = list_images(tree / "train")
    assert found.classes == ("ant", "bee", "cow")
    assert set(names(tree)) == {*before, "bee/out/more.png"}
    assert found.left_out.counts == {"link to a folder that is listed already": 7, "link to nothing": 1}


def test_a_class_may_be_a_link_to_a_folder_elsewhere(tree: Path) -> None:
    copy_image(tree, "elsewhere", "elk", "deep", "1.png")
    (tree / "train" / "elk").symlink_to(tree / "elsewhere" / "elk")
    (tree / "train" / "ant" / "linked.png").symlink_to(tree / "val" / "ant" / "0.png")
    found = list_images(tree / "train")
    assert found.classes == ("ant", "bee", "cow", "elk")
    assert {"elk/deep/1.png", "ant/linked.png"} <= set(names(tree))


def test_only_regular_files_count_and_the_others_are_told_with_the_reason(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = names(tree)
    bee = tree / "train" / "bee"
    os.mkfifo(bee / "pipe.png")
    monkeypatch.chdir(bee)  # a socket's path must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.png")
    (bee / "gone.png").symlink_to("nothing.png")
    for name in ("a.txt", "b.TXT", "c.heic", "README"):
        (bee / name).write_text("no image")
    (tree / "train" / "labels.csv").write_text("no image")
    left_out = list_images(tree / "train").left_out
    assert names(tree) == before
    assert str(left_out) == (
        "8 files or folders left out: 4 with another ending (.txt 2, none 1, .heic 1), "
        f"2 not a regular file (first {bee}/pipe.png), 1 beside the class folders ({tree}/train/labels.csv), "
        f"1 link to nothing ({bee}/gone.png)"
    )


def test_a_data_set_says_its_classes_and_images_and_what_was_left_out(tree: Path) -> None:
    data = load_dataset(f"folder:{tree}")
    assert data.lines() == [
        f"data folder:{tree}: 3 classes, 9 training images and 6 validation images; 3 training images in every class",
        "  no file left out",
    ]
    for number in range(4):
        write_image(tree / "train" / "cow" / f"{number}.jfif", value=number)
    (tree / "train" / "ant" / "2.PNG").rename(tree / "train" / "ant" / "2.heic")
    (tree / "val" / "ant" / "notes.txt").write_text("no image")
    assert load_dataset(f"folder:{tree}").lines() == [
        f"data folder:{tree}: 3 classes, 12 training images and 6 validation images; smallest class ant (2 training "
        "images), largest cow (7)",
        "  2 files or folders left out: 2 with another ending (.heic 1, .txt 1)",
    ]
    assert load_dataset("synthetic:2").lines() == [
        "data synthetic:2: 2 classes, 128 training images and 32 validation images; 64 training images in every class; "
        "made up, not real images"
    ]


def test_the_survey_counts_what_the_loader_counts(tree: Path) -> None:
    copy_image(tree, "train", "bee", ".ipynb_checkpoints", "0.png")
    copy_image(tree, "train", "bee", "1.jfif")
    (tree / "train" / "bee" / "loop").symlink_to("..")
    assert survey_folder(tree) == FolderSurvey(len(load_dataset(f"folder:{tree}").train), 5)


def test_files_that_do_not_count_explain_missing_classes(tree: Path) -> None:
    (tree / "val" / "cow").rename(tree / "val" / ".cow")
    with pytest.raises(InputError, match=r"'cow' is in train and not in val; .* left out: 1 hidden \(.*val/\.cow\)"):
        load_dataset(f"folder:{tree}")


def test_moved_images_have_the_fingerprint_and_other_ones_another(tree: Path, tmp_path: Path) -> None:
    first = load_dataset(f"folder:{tree}").fingerprint
    assert first is not None
    assert (first.num_train, first.num_val) == (9, 6)
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for part in ("train", "val"):
        (tree / part).rename(moved / part)
    assert load_dataset(f"folder:{moved}").fingerprint == first
    write_image(moved / "val" / "cow" / "1.webp", value=77)
    other = load_dataset(f"folder:{moved}").fingerprint
    (moved / "val" / "cow" / "1.webp").rename(moved / "val" / "cow" / "2.webp")
    assert len({first, other, load_dataset(f"folder:{moved}").fingerprint}) == 3
    digits = load_dataset("digits")
    assert digits.fingerprint == load_dataset("digits").fingerprint != load_dataset("synthetic:10").fingerprint
    assert digits.in_order(digits.classes[::-1]).fingerprint == digits.fingerprint
    assert np.array_equal(digits.train.targets, load_dataset("digits").train.targets)


def test_ghostscript_is_never_started_for_a_file_that_is_called_an_image(tree: Path) -> None:
    Image.open(tree / "val" / "ant" / "0.png").save(tree / "train" / "ant" / "0.png", format="EPS")
    with pytest.raises(InputError, match=r"cannot read the image .*train/ant/0\.png \(cannot identify"):
        load_dataset(f"folder:{tree}")


def test_a_folder_of_schemes_is_listed_without_hidden_files_and_pipes(tmp_path: Path) -> None:
    for name in ("two.npy", "._two.npy", "one.npy"):
        (tmp_path / name).write_bytes(b"")
    os.mkfifo(tmp_path / "pipe.npy")
    assert [path.name for path in files_ending(tmp_path, ".npy")] == ["one.npy", "two.npy"]
