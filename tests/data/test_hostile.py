"""Images that are damaged on purpose: each is read, or refused with one message that names the file."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from codedtool.data import eval_batches, load_dataset
from codedtool.data.augmentation import EVAL_CROP_PART, centre_crop
from codedtool.data.folder import read_image
from codedtool.data.listing import image_formats
from codedtool.errors import InputError

SIDE = 16

# Format -> options of the files that are damaged; several files for a format that has several encodings.
ENCODINGS: dict[str, list[dict[str, Any]]] = {
    "AVIF": [{}],
    "BMP": [{}],
    "DIB": [{}],
    "GIF": [{}, {"interlace": 1}],
    "JPEG": [{}, {"progressive": True}, {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"}],
    "JPEG2000": [{}, {"irreversible": True}],
    "PNG": [{}, {"icc_profile": b"profile" * 30}],
    "PPM": [{}],
    "QOI": [{}],
    "TGA": [{}, {"compression": "tga_rle"}],
    "TIFF": [{}, {"compression": "tiff_lzw"}, {"compression": "jpeg"}, {"compression": "tiff_adobe_deflate"}],
    "WEBP": [{}, {"lossless": True}],
}


def chunk(name: bytes, content: bytes) -> bytes:
    """A PNG chunk with the right checksum."""
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(*more: bytes) -> bytes:
    """A black PNG of 16x16 pixels with more chunks behind its pixels."""
    header = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0)
    rows = zlib.compress(b"".join(b"\0" + bytes(3 * SIDE) for _ in range(SIDE)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + b"".join(more) + chunk(b"IEND", b"")


def whole_files() -> list[tuple[str, bytes]]:
    """(format, content) of intact images in every format that is read, and in several modes."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    found = []
    for name in image_formats():
        for options in ENCODINGS[name]:
            for mode in ("RGB", "L", "P", "RGBA"):
                stream = io.BytesIO()
                try:
                    Image.fromarray(pixels).convert(mode).save(stream, format=name, **options)
                except (OSError, ValueError):
                    continue  # the format has no such mode
                found.append((name, stream.getvalue()))
    grey = Image.fromarray(rng.integers(0, 2**16, (SIDE, SIDE), dtype=np.uint16))
    frames = [Image.fromarray(pixels), Image.fromarray(pixels[::-1])]
    for name, options in (("PNG", {}), ("TIFF", {}), ("PPM", {})):
        stream = io.BytesIO()
        grey.save(stream, format=name, **options)
        found.append((name, stream.getvalue()))
    for name in ("GIF", "PNG", "TIFF", "WEBP", "MPO"):
        stream = io.BytesIO()
        frames[0].save(stream, format=name, save_all=True, append_images=frames[1:])
        found.append((name, stream.getvalue()))
    return found


def truncated(content: bytes, rng: np.random.Generator) -> bytes:
    return content[: rng.integers(0, len(content))]


def flipped(content: bytes, rng: np.random.Generator) -> bytes:
    changed = bytearray(content)
    for place in rng.integers(0, len(content), rng.integers(1, 9)):
        changed[place] ^= 1 << int(rng.integers(0, 8))
    return bytes(changed)


def flipped_in_the_beginning(content: bytes, rng: np.random.Generator) -> bytes:
    start = min(len(content), 120)
    return flipped(content[:start], rng) + content[start:]


def swapped(content: bytes, rng: np.random.Generator) -> bytes:
    one, two, three = sorted(rng.integers(0, len(content), 3).tolist())
    return content[:one] + content[two:three] + content[one:two] + content[three:]


def with_numbers(content: bytes, rng: np.random.Generator) -> bytes:
    """Four bytes become a number that decoders do not expect: 0, the largest one, -1."""
    place = int(rng.integers(0, min(len(content), 200)))
    number = rng.choice([0, 1, 2**15, 2**31 - 1, 2**32 - 1])
    return content[:place] + struct.pack(rng.choice([">I", "<I"]), number) + content[place + 4 :]


def png_chunks(content: bytes, rng: np.random.Generator) -> bytes:
    """A PNG whose chunks are cut, emptied, renamed, doubled or filled anew, each with the right checksum."""
    place, parts = 8, []
    while place < len(content):
        (length,) = struct.unpack(">I", content[place : place + 4])
        parts.append((content[place + 4 : place + 8], content[place + 8 : place + 8 + length]))
        place += 12 + length
    names = b"PLTE tRNS iCCP gAMA cHRM sRGB pHYs tEXt zTXt iTXt eXIf acTL fcTL fdAT IDAT IHDR IEND caBX".split()
    for _ in range(rng.integers(1, 4)):
        number = int(rng.integers(0, len(parts)))
        name, body = parts[number]
        kind = rng.integers(0, 4)
        if kind == 0:
            parts[number] = (name, truncated(body + b"\0", rng))
        elif kind == 1 and body:
            parts[number] = (name, flipped(body, rng))
        elif kind == 2:
            parts[number] = (bytes(rng.choice(names)), body)
        else:
            made = b"icc\0" * int(rng.integers(0, 2)) + rng.bytes(int(rng.integers(0, 40)))
            parts.insert(number + 1, (bytes(rng.choice(names)), made))
    return content[:8] + b"".join(chunk(name, body) for name, body in parts)


def read(path: Path) -> str:
    """Read one file as the loader does; the message, or nothing if it is an image after all."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = read_image(path)
            assert image.mode == "RGB"
            assert centre_crop(image, 8, part=EVAL_CROP_PART).size == (8, 8)
        except InputError as error:
            return str(error)
    return ""


@pytest.mark.quick
@pytest.mark.parametrize(
    "more", [chunk(b"iCCP", b"icc\0"), chunk(b"tRNS", b""), chunk(b"fcTL", b"1"), chunk(b"eXIf", b"MM\0*")]
)
def test_a_chunk_that_is_cut_short_names_the_file_or_does_no_harm(tmp_path: Path, more: bytes) -> None:
    (tmp_path / "x.png").write_bytes(png(more))
    message = read(tmp_path / "x.png")
    assert not message or message.startswith(f"cannot read the image {tmp_path}/x.png (")


@pytest.mark.quick
@pytest.mark.parametrize(
    "error",
    [
        IndexError("index out of range"),
        AssertionError(),
        struct.error("unpack"),
        SyntaxError("broken\nfile"),
        KeyError(7),
        RuntimeError("decoder"),
        Image.DecompressionBombError("too many"),
        RecursionError("deep"),
        ZeroDivisionError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_the_decoder_raises_names_the_file(
    tmp_path: Path, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    for part in ("train", "val"):
        for name in ("ant", "bee"):
            for number in range(2):
                (tmp_path / part / name).mkdir(parents=True, exist_ok=True)
                (tmp_path / part / name / f"{number}.png").write_bytes(png())
    convert = Image.Image.convert

    def fail(image: Any, mode: str) -> Any:
        if getattr(image, "filename", "").endswith("train/bee/1.png"):
            raise error
        return convert(image, mode)

    monkeypatch.setattr(Image.Image, "convert", fail)
    with pytest.raises(InputError, match=r"^cannot read the image .*train/bee/1\.png \(\w.*\); "):
        load_dataset(f"folder:{tmp_path}")
    with pytest.warns(UserWarning, match=r"^1 images were skipped, the first: .*train/bee/1\.png"):
        assert len(load_dataset(f"folder:{tmp_path}", skip_bad_images=True).train) == 3
    # Images of several sizes are read when a batch needs them.
    Image.new("RGB", (9, 9)).save(tmp_path / "train" / "ant" / "0.png")
    data = load_dataset(f"folder:{tmp_path}", skip_bad_images=True)
    with pytest.warns(UserWarning, match=r"^1 images were skipped"):
        assert sum(len(batch.targets) for batch in eval_batches(data.train, size=8, batch_size=2)) == 3
    with pytest.raises(InputError, match=r"train/bee/1\.png"):
        list(eval_batches(load_dataset(f"folder:{tmp_path}").train, size=8, batch_size=2))


@pytest.mark.quick
def test_a_ribbon_is_cropped_before_it_is_enlarged() -> None:
    rng = np.random.default_rng(0)
    for size in ((1, 60_000), (60_000, 1)):
        ribbon = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
        cropped = centre_crop(ribbon, 224, part=EVAL_CROP_PART)
        middle = ribbon.crop((size[0] // 2 - 40, size[1] // 2 - 40, size[0] // 2 + 40, size[1] // 2 + 40))
        middle = middle.crop((40, 0, 41, 80)) if size[0] == 1 else middle.crop((0, 40, 80, 41))
        assert cropped.size == (224, 224)
        assert np.array_equal(cropped, centre_crop(middle, 224, part=EVAL_CROP_PART))


@pytest.mark.quick
def test_memory_that_runs_out_is_not_blamed_on_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.png").write_bytes(png())

    def fail(image: Any, mode: str) -> Any:
        raise MemoryError

    monkeypatch.setattr(Image.Image, "convert", fail)
    with pytest.raises(MemoryError):
        read_image(tmp_path / "x.png")


@pytest.mark.slow
def test_two_thousand_hostile_images_are_read_or_refused_by_name(tmp_path: Path) -> None:
    files = whole_files()
    assert {name for name, _ in files} >= set(image_formats())
    anything: list[Callable[[bytes, np.random.Generator], bytes]] = [
        truncated,
        flipped,
        flipped_in_the_beginning,
        swapped,
        with_numbers,
    ]
    pngs = [content for name, content in files if name == "PNG"]
    refused = 0
    for number in range(2000):
        rng = np.random.default_rng(number)
        if number % 2:
            content = png_chunks(pngs[int(rng.integers(len(pngs)))], rng)
        else:
            _, whole = files[number // 2 % len(files)]
            content = anything[int(rng.integers(len(anything)))](whole, rng)
        # A name of its own for every file, so that a failure names it.
        path = tmp_path / f"{number}.png"
        path.write_bytes(content)
        message = read(path)
        if message:
            refused += 1
            assert message.startswith(f"cannot read the image {path} (")
            assert "\n" not in message
    assert 500 < refused < 1900
