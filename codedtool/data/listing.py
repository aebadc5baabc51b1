"""Lists the images of class folders: which files count, in which order, and which are left out and why."""

from __future__ import annotations

import errno
import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from codedtool.data.split import Fingerprint

# Pillow's formats that are read. The others are rare, no images (HDF5), or run another program (EPS: Ghostscript).
# TGA comes last, because a TGA file begins with no mark of its own.
_FORMATS = ("AVIF", "BMP", "DIB", "GIF", "PNG", "JPEG2000", "JPEG", "PPM", "TIFF", "QOI", "WEBP", "TGA")

# Multi-picture files are JPEG files that Pillow registers under a name of their own.
_ALSO_JPEG = "MPO"

_USUAL_ENDINGS = (".jpg", ".jpeg", ".png")

# Folders that systems and programs put beside the user's: their copies and thumbnails are no images of the class.
_SYSTEM_FOLDERS = frozenset(
    ("__MACOSX", "__pycache__", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found")
)

# Number of files whose size is part of the fingerprint.
_NUM_SIZES = 10_000

_MOST_ENDINGS = 4


@cache
def image_formats() -> tuple[str, ...]:
    """Names of the formats that images are read in, of those that this Pillow has."""
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


@cache
def image_endings() -> tuple[str, ...]:
    """Endings of the files that count as images, in lower case; the usual ones come first."""
    formats = {*image_formats(), _ALSO_JPEG}
    known = [ending for ending, name in Image.registered_extensions().items() if name in formats]
    return (*_USUAL_ENDINGS, *sorted(set(known).difference(_USUAL_ENDINGS)))


@dataclass(frozen=True)
class LeftOut:
    """Files and folders that a listing leaves out.

    Attributes:
        counts: reason -> number of files or folders.
        first: reason -> path of the first one.
        endings: ending -> number of files that are left out because of it.
    """

    counts: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)
    endings: Counter[str] = field(default_factory=Counter)

    def add(self, reason: str, path: str) -> None:
        """Count one file or folder."""
        self.counts[reason] += 1
        self.first.setdefault(reason, path)

    def add_ending(self, path: str) -> None:
        """Count one file whose ending is not that of an image."""
        self.endings[os.path.splitext(path)[1].lower() or "none"] += 1
        self.add("with another ending", path)

    def update(self, other: LeftOut) -> None:
        """Add everything that ``other`` has counted."""
        self.counts.update(other.counts)
        self.endings.update(other.endings)
        for reason, path in other.first.items():
            self.first.setdefault(reason, path)

    def __str__(self) -> str:
        """``8 files or folders left out: 6 with another ending (.txt 6), 2 hidden (a/.b)``, or ``no file left out``."""
        total = self.counts.total()
        if not total:
            return "no file left out"
        parts = []
        for reason, count in self.counts.most_common():
            example = self.first[reason]
            if reason == "with another ending":
                example = ", ".join(f"{ending} {number}" for ending, number in self.endings.most_common(_MOST_ENDINGS))
                example += ", ..." if len(self.endings) > _MOST_ENDINGS else ""
            elif count > 1:
                example = f"first {example}"
            parts.append(f"{count} {reason} ({example})")
        return (
            f"{total} file{'s' if total > 1 else ''} or folder{'s' if total > 1 else ''} left out: {', '.join(parts)}"
        )


@dataclass(frozen=True)
class Listing:
    """The images below one folder of class folders.

    Attributes:
        classes: sorted names of the class folders.
        files: paths of the images, sorted by class, then by the path of their folder, then by name.
        targets: (n,) int64 classes of the images.
        left_out: the files and folders that do not count.
    """

    classes: tuple[str, ...]
    files: list[str]
    targets: NDArray[np.int64]
    left_out: LeftOut


def list_images(folder: Path) -> Listing:
    """List the images of every class folder in ``folder``, and of the folders in these.

    A regular file with an ending of `image_endings` is an image. Hidden files and folders, and those of the system, do
    not count. A link to a folder counts unless the folder is listed anyway: because it contains ``folder``, lies in it,
    or was reached by another link.

    Raises:
        OSError: a folder cannot be listed.
    """
    walk = _Walk(folder)
    classes = walk.classes()
    files: list[str] = []
    targets: list[int] = []
    for number, name in enumerate(classes):
        # The order is part of a training's result. It is that of the folders' whole paths, not of their parts.
        for _, images in sorted(walk.images(name)):
            files += images
            targets += [number] * len(images)
    return Listing(classes, files, np.array(targets, dtype=np.int64), walk.left_out)


def list_classes(folder: Path) -> tuple[str, ...]:
    """List the class folders in ``folder``, as `list_images` does.

    Raises:
        OSError: the folder cannot be listed.
    """
    return _Walk(folder).classes()


def walk_images(folder: Path) -> Iterator[list[str]]:
    """Yield the images of each folder in a folder of class folders, as `list_images` finds them, while it goes on.

    Raises:
        OSError: a folder cannot be listed.
    """
    walk = _Walk(folder)
    for name in walk.classes():
        for _, images in walk.images(name):
            yield images


class _Walk:
    """One walk through a folder of class folders, which visits no folder twice."""

    def __init__(self, root: Path) -> None:
        self.left_out = LeftOut()
        self._root = str(root)
        self._real_root = os.path.realpath(self._root)
        self._seen: set[str] = set()
        self._real_of_class: dict[str, str] = {}

    def classes(self) -> tuple[str, ...]:
        folders, files = self._entries(self._root, self._real_root)
        for path in files:
            self.left_out.add("beside the class folders", path)
        self._real_of_class = {os.path.basename(path): real for path, real in folders}
        return tuple(sorted(self._real_of_class))

    def images(self, class_name: str) -> Iterator[tuple[str, list[str]]]:
        """Yield each folder of a class that has images, with their sorted paths."""
        pending = [(os.path.join(self._root, class_name), self._real_of_class[class_name])]
        endings = image_endings()
        while pending:
            folder, real = pending.pop()
            folders, files = self._entries(folder, real)
            pending += reversed(folders)
            images = []
            for path in files:
                if os.path.splitext(path)[1].lower() in endings:
                    images.append(path)
                else:
                    self.left_out.add_ending(path)
            if images:
                yield folder, images

    def _entries(self, folder: str, real: str) -> tuple[list[tuple[str, str]], list[str]]:
        """The folders (each with its real path) and the regular files in ``folder`` that count, sorted by name."""
        folders, files = [], []
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
        for entry in entries:
            path = entry.path
            is_folder, is_file = _kind(entry)
            if entry.name.startswith("."):
                self.left_out.add("hidden", path)
            elif is_folder and entry.name in _SYSTEM_FOLDERS:
                self.left_out.add("folder of the system", path)
            elif is_folder:
                # Without a link on the way, the real path needs no look at the disk.
                own = os.path.realpath(path) if entry.is_symlink() else os.path.join(real, entry.name)
                if own in self._seen or (entry.is_symlink() and self._is_listed_anyway(own)):
                    self.left_out.add("link to a folder that is listed already", path)
                else:
                    self._seen.add(own)
                    folders.append((path, own))
            elif is_file:
                files.append(path)
            elif entry.is_symlink() and not os.path.exists(path):
                self.left_out.add("link to nothing", path)
            else:
                self.left_out.add("not a regular file", path)
        return folders, files

    def _is_listed_anyway(self, real: str) -> bool:
        """Whether the folder lies within the walk's root, or contains it."""
        return os.path.commonpath((real, self._real_root)) in (real, self._real_root)


def _kind(entry: os.DirEntry[str]) -> tuple[bool, bool]:
    """Whether an entry is a folder, and whether it is a regular file; links are followed."""
    try:
        return entry.is_dir(), entry.is_file()
    except OSError as error:
        if error.errno == errno.ELOOP:  # a link to itself
            return False, False
        raise


def relative_names(folder: Path, files: Sequence[str]) -> Iterator[bytes]:
    """The paths of ``files`` below ``folder``, with slashes on every system."""
    start = len(os.path.join(folder, ""))
    for file in files:
        yield file[start:].replace(os.sep, "/").encode(errors="surrogateescape")


def fingerprint_of_files(
    root: Path, train_files: Sequence[str], val_root: Path, val_files: Sequence[str]
) -> Fingerprint:
    """The fingerprint of a data set on disk: names of all files, and sizes of up to 10,000, evenly spaced.

    Args:
        root, val_root: the folders that the names begin below, so that the data set may be moved.
        train_files, val_files: paths of the images of both splits.
    """
    digest = hashlib.sha256()
    for folder, files in ((root, train_files), (val_root, val_files)):
        for name in relative_names(folder, files):
            digest.update(name + b"\n")
        digest.update(b"\0")
    files = [*train_files, *val_files]
    for number in np.linspace(0, len(files) - 1, min(len(files), _NUM_SIZES)).astype(int):
        digest.update(b"%d\n" % os.stat(files[number]).st_size)
    return Fingerprint(len(train_files), len(val_files), digest.hexdigest())
