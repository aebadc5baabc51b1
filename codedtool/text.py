"""Texts from outside (class names, paths): the one place that makes them fit for a terminal, file, figure or page.

A name is shown as it is, except for the few characters that the target cannot hold. Bytes of a file name that are not
UTF-8 arrive from Python as lone surrogates; they are shown as ``\\xe9``.
"""

from __future__ import annotations

import codecs
import io
import json
from typing import Any


def encodable(text: str) -> str:
    """``text`` that UTF-8 can encode, for files: a lone surrogate is written as the byte it stands for.

    Example:
        >>> encodable("caf\\udce9")
        'caf\\\\xe9'
    """
    if text.isascii():
        return text
    # A surrogate below U+DC80 stands for no byte.
    content = text.encode("utf-8", "surrogateescape" if _stands_for_bytes(text) else "backslashreplace")
    return content.decode("utf-8", "backslashreplace")


def readable(text: str) -> str:
    """``text`` for a terminal, figure or page: `encodable`, and control characters are written as escapes.

    Without it, a name could break a line, move the cursor or end an XML file.

    Example:
        >>> readable("two\\nlines \\x1b[31m")
        'two\\\\nlines \\\\x1b[31m'
    """
    text = encodable(text)
    if text.isprintable():
        return text
    return "".join(
        letter
        if letter.isprintable() or (letter.isspace() and letter not in "\n\r\t\x0b\x0c\x1c\x1d\x1e\x1f\x85\u2028\u2029")
        else _escaped(letter)
        for letter in text
    )


def for_figure(text: str) -> str:
    """``text`` for matplotlib, which takes what stands between two ``$`` for mathematics.

    Example:
        >>> for_figure("$5 or $10")
        '\\\\$5 or \\\\$10'
    """
    return readable(text).replace("$", r"\$")


def for_script(document: Any) -> str:
    """``document`` as JSON to stand within an HTML script element, which ``<`` could end."""
    return json.dumps(document, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def decode_text(content: bytes) -> str:
    """The text of a file that people write: UTF-8, or what its byte order mark names (Notepad, PowerShell).

    Lines end in ``\\n``, whatever the file has, as in a file that Python opens as text.

    Raises:
        UnicodeDecodeError: the bytes are not of this encoding.
    """
    is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = content.decode("utf-16" if is_utf16 else "utf-8-sig")
    return io.StringIO(text, newline=None).read()


def _stands_for_bytes(text: str) -> bool:
    return not any("\ud800" <= letter < "\udc80" or "\udcff" < letter <= "\udfff" for letter in text)


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")


# ASCII for the signs that tables and helps use.
_PLAIN = {"…": "...", "–": "-", "—": "-", "±": "+-", "×": "x", "·": "*", "≥": ">=", "μ": "mu", "’": "'"}


def _plainly(error: UnicodeError) -> tuple[str, int]:
    """Write what an encoding lacks as ASCII, or as an escape."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    part = error.object[error.start : error.end]
    return "".join(_PLAIN.get(letter, _escaped(letter)) for letter in part), error.end


# Name of the error handler for streams: what the stream's encoding lacks is written as ASCII.
PLAINLY = "codedtool-plainly"
codecs.register_error(PLAINLY, _plainly)
