"""`cifar10` and `cifar100` (Krizhevsky, 2009): read by torchvision, fetched on first use."""

from __future__ import annotations

import hashlib
import http.client
import io
import shlex
import tarfile
import urllib.request
from pathlib import Path
from typing import cast

import numpy as np
from torchvision.datasets import CIFAR10, CIFAR100

from codedtool.budget import Progress
from codedtool.data.augmentation import Normalization
from codedtool.data.split import ImageData, Split
from codedtool.errors import InputError
from codedtool.files import (
    FileError,
    absolute,
    is_file,
    make_folder,
    opened,
    remove,
    rename,
    temporary_beside,
    write_atomically,
)

_SETS: dict[str, tuple[type[CIFAR10], Normalization]] = {
    "cifar10": (CIFAR10, Normalization((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))),
    "cifar100": (CIFAR100, Normalization((0.5071, 0.4867, 0.4408), (0.2673, 0.2564, 0.2762))),
}

_CHUNK = 1 << 20
_TIMEOUT_SECONDS = 30


def load_cifar(name: str, *, data_dir: Path, download: bool, progress: Progress) -> ImageData:
    """Read CIFAR-10 or CIFAR-100 from ``data_dir``; unpack or fetch its archive if necessary.

    Args:
        name: cifar10 or cifar100.
        data_dir: folder of the archive and of the unpacked data set.
        download: fetch the archive if it is missing.
        progress: called with the state of the work.

    Raises:
        InputError: the data set is missing and may not or cannot be fetched, or the fetched archive is damaged.
    """
    source, normalization = _SETS[name]
    data = _read(source, name, data_dir, normalization)
    if data is not None:
        return data
    archive = data_dir / source.filename
    if not _intact(archive, source.tgz_md5):
        missing = (
            f"no {name} in {absolute(data_dir)}: looked for the folder {source.base_folder} and the archive "
            f"{source.filename} (md5 {source.tgz_md5})"
        )
        if not download:
            raise InputError(f"{missing}; allow the download, or run: {_command(source, archive)}")
        _fetch(source, archive, progress, missing=missing)
    progress(f"unpacking {archive}", 0, None)
    try:
        _unpack(archive, data_dir)
    except (OSError, EOFError, tarfile.TarError, FileError) as error:
        raise InputError(f"cannot unpack {archive} into {absolute(data_dir)}: {error}") from None
    data = _read(source, name, data_dir, normalization)
    if data is None:
        raise InputError(f"{archive} does not contain {name}: remove it and the folder {source.base_folder}")
    return data


def _unpack(archive: Path, folder: Path) -> None:
    """Write the ordinary files of an archive into a folder. Links and devices in it are left out.

    The filters of `tarfile` do this from Python 3.11.4 on only.

    Raises:
        tarfile.TarError: the archive is damaged, or a member's name leads out of the folder.
    """
    root = folder.resolve()
    with tarfile.open(archive) as stream:
        for member in stream:
            content = stream.extractfile(member) if member.isfile() else None
            if content is None:
                continue
            if not (folder / member.name).resolve().is_relative_to(root):
                raise tarfile.TarError(f"{member.name!r} would be written outside of the folder")
            write_atomically(folder / member.name, content.read())


def _read(source: type[CIFAR10], name: str, data_dir: Path, normalization: Normalization) -> ImageData | None:
    """Read the data set from ``data_dir``; None if it is missing or its checksums are wrong."""
    try:
        train, val = (source(data_dir, train=train) for train in (True, False))
    except RuntimeError:
        return None
    except OSError as error:
        raise InputError(f"{error.filename or data_dir}: cannot be read ({error.strerror or error})") from None
    return ImageData(
        name=name,
        classes=tuple(train.classes),
        train=_split(train),
        val=_split(val),
        normalization=normalization,
    )


def _split(part: CIFAR10) -> Split:
    return Split(np.ascontiguousarray(part.data), np.array(part.targets, dtype=np.int64))


def _intact(path: Path, md5: str) -> bool:
    """Whether the file exists and has this checksum."""
    if not is_file(path):
        return False
    with opened(path) as stream:
        return (
            hashlib.file_digest(cast(io.BufferedReader, stream), lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
            == md5
        )


def _command(source: type[CIFAR10], archive: Path) -> str:
    """The command that downloads the archive."""
    return f"curl --create-dirs -o {shlex.quote(str(archive))} {source.url}"


def _fetch(source: type[CIFAR10], archive: Path, progress: Progress, *, missing: str) -> None:
    """Download the archive under a temporary name, check it, and rename it; ``missing`` says what was looked for."""
    temporary = temporary_beside(archive)
    by_hand = f"with a network, run: {_command(source, archive)}; or use another data set (folder:PATH, digits)"
    try:
        make_folder(archive.parent, [])
        with urllib.request.urlopen(source.url, timeout=_TIMEOUT_SECONDS) as reply, open(temporary, "xb") as stream:
            length = reply.headers.get("Content-Length")
            total = float(length) if length else None
            done = 0
            while chunk := reply.read(_CHUNK):
                stream.write(chunk)
                done += len(chunk)
                progress(f"fetching {source.url}", done, total, f"{done / 1e6:.0f} MB")
        if not _intact(temporary, source.tgz_md5):
            raise InputError(
                f"the file from {source.url} does not have the md5 {source.tgz_md5} and was removed; "
                f"try again, or {by_hand}"
            )
        rename(temporary, archive)
    except (OSError, http.client.HTTPException) as error:
        raise InputError(f"{missing}, and cannot fetch {source.url} ({error}); {by_hand}") from None
    finally:
        remove(temporary)
