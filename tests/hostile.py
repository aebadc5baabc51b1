"""Damaged and hostile files by the hundred: seeded changes of good ones, and a look at what was changed on disk."""

from __future__ import annotations

import random
from pathlib import Path

# Pieces that mean something to the parsers of .npy, JSON, TOML, safetensors and zip.
PIECES = (
    *(b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\n", b'"', b"'", b"[", b"]", b"{", b"}", b"=", b"\\", b"-", b","),
    *(b"1e999", b"NaN", b"-Infinity", b"true", b"null", b"9" * 400, b"[" * 3000, b"\\ud800", b"../../"),
    *(b"PK\x03\x04", b"\x93NUMPY", b"__metadata__", b"(4000000000, 4000000000)", b"|O", b"<f8", b"True"),
    *(b"\x80\x04cposix\nsystem\n(S'true'\ntR.", b"$(true)", b"\x1b[31m", "é".encode(), b"K"),
)


def mutated(content: bytes, others: list[bytes], chance: random.Random) -> bytes:
    """A changed copy of a file: bytes flipped, cut out, repeated or put in, its end gone, or the middle of another."""
    data = bytearray(content)
    for _ in range(chance.choice((1, 1, 1, 2, 4, 16))):
        at = chance.randrange(len(data) + 1)
        end = min(len(data), at + chance.choice((1, 1, 2, 8, 64)))
        match chance.randrange(8):
            case 0 | 1:
                for place in range(at, end):
                    data[place] ^= 1 << chance.randrange(8)
            case 2:
                del data[at:end]
            case 3:
                data[at:at] = chance.choice(PIECES)
            case 4:
                data[at:end] = chance.choice(PIECES)
            case 5:
                del data[at:]
            case 6:
                data[at:at] = data[at:end] * chance.choice((1, 2, 50))
            case 7:
                other = chance.choice(others)
                begin = chance.randrange(len(other) + 1)
                data[at:end] = other[begin : begin + chance.choice((4, 64, len(other)))]
    return bytes(data)


def files_of(folder: Path) -> dict[str, bytes | None]:
    """Everything below a folder, by its path: a file's content, None for a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }
