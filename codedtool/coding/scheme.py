"""The coding scheme: a validated table of K codewords, and its file (paper section 3.2.1, appendix A)."""

from __future__ import annotations

import ast
import hashlib
import io
import json
import os
import warnings
from collections.abc import Mapping
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import ArrayLike, NDArray

from codedtool.coding.shipped import shipped_names, shipped_path
from codedtool.coding.words import MAX_LENGTH, distance_histogram, table_to_words, words_to_table
from codedtool.errors import InputError
from codedtool.files import FileError, check_target, opened, write_together

# The longest header numpy itself writes for a 2-D uint8 array is 128 bytes.
_MAX_HEADER = 4096


class CodingScheme:
    """K distinct binary codewords of length N and one weight; row k is the codeword of class k.

    Checked once, at construction. Immutable afterwards: `table` is read-only and C-ordered.

    >>> scheme = CodingScheme([[1, 1, 0, 0], [1, 0, 1, 0], [0, 1, 0, 1], [0, 0, 1, 1]])
    >>> scheme.num_classes, scheme.length, scheme.act
    (4, 4, 2)
    >>> scheme.column_sums.tolist(), scheme.min_distance, scheme.pairs_at_min
    ([2, 2, 2, 2], 2, 4)

    Args:
        table: (K, N) array of 0/1 of an integer or boolean type, K >= 2, 2 <= N <= 64.

    Raises:
        TypeError: not an integer or boolean array.
        InputError: the table breaks a rule; the message names the rule, the row or column and the value.
    """

    def __init__(self, table: ArrayLike) -> None:
        array = np.asarray(table)
        if array.dtype.kind not in "biu":
            raise TypeError(f"a coding scheme is a table of integers 0 and 1, got dtype {array.dtype}")
        _check_table(array)
        # A private copy: nobody else holds a writable view of it.
        self._table = np.array(array, dtype=np.uint8, order="C")
        self._table.flags.writeable = False

    @classmethod
    def from_words(cls, words: NDArray[np.uint64], length: int) -> CodingScheme:
        """The scheme whose row k spells ``words[k]`` in ``length`` binary digits, most significant first."""
        return cls(words_to_table(words, length))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> CodingScheme:
        """Read a scheme from a ``.npy`` file; its JSON, if there is one, is not needed.

        Raises:
            InputError: there is no such file, it is not a ``.npy`` or is truncated, it holds pickled or object data,
                or its table breaks a rule. The message names the file, the rule, the place and the value. The size
                that the header claims is compared with the file's size before memory is allocated.
        """
        source = Path(path)
        try:
            with opened(source) as stream:
                array = _read_npy(stream, os.fstat(stream.fileno()).st_size)
            return cls(array)
        except FileError as error:
            raise type(error)(f"{error}; {_instead_of(source)}") from None
        except InputError as error:
            raise InputError(f"{source}: {error}") from None

    @classmethod
    def shipped(cls, name: str) -> CodingScheme:
        """The shipped scheme called ``name``, wherever the program runs.

        >>> CodingScheme.shipped("c100_4of20")
        CodingScheme(K=100, N=20, act=4)

        Raises:
            InputError: no shipped scheme has this name; the message names the nearest one.
        """
        return cls.load(shipped_path(name))

    @property
    def table(self) -> NDArray[np.uint8]:
        """(K, N) uint8 of 0/1, read-only; column 0 is the leftmost digit of table 4."""
        return self._table

    @property
    def num_classes(self) -> int:
        """K, the number of codewords."""
        return int(self._table.shape[0])

    @property
    def length(self) -> int:
        """N, the number of subNNs."""
        return int(self._table.shape[1])

    @property
    def act(self) -> int:
        """N_act, the number of ones of every codeword."""
        return int(self._table[0].sum())

    @property
    def ratio(self) -> Fraction:
        """r = N_act / N."""
        return Fraction(self.act, self.length)

    @cached_property
    def words(self) -> NDArray[np.uint64]:
        """(K,) uint64, each row as an integer, column 0 most significant; read-only."""
        words = table_to_words(self._table)
        words.flags.writeable = False
        return words

    @cached_property
    def distance_histogram(self) -> dict[int, int]:
        """Hamming distance -> number of unordered pairs of classes at it, ascending; O(K^2) on first use."""
        return distance_histogram(self.words)

    @property
    def min_distance(self) -> int:
        """H_min, the smallest Hamming distance between two codewords (rule C)."""
        return min(self.distance_histogram)

    @property
    def pairs_at_min(self) -> int:
        """How many pairs of classes lie at distance H_min."""
        return self.distance_histogram[self.min_distance]

    @property
    def column_sums(self) -> NDArray[np.int64]:
        """(N,) int64, how many classes activate each subNN (rule B)."""
        return self._table.sum(axis=0, dtype=np.int64)

    @property
    def s_min(self) -> int:
        """S_min, the smallest column sum."""
        return int(self.column_sums.min())

    @property
    def s_max(self) -> int:
        """S_max, the largest column sum."""
        return int(self.column_sums.max())

    @property
    def spread(self) -> int:
        """S_max - S_min."""
        return self.s_max - self.s_min

    def to_npy(self) -> bytes:
        """The exact bytes of this scheme's ``.npy`` file."""
        buffer = io.BytesIO()
        np.lib.format.write_array(buffer, self._table, version=(1, 0), allow_pickle=False)
        return buffer.getvalue()

    @cached_property
    def sha256(self) -> str:
        """Hexadecimal SHA-256 of `to_npy`: the identity of a scheme in JSON files and runs."""
        return hashlib.sha256(self.to_npy()).hexdigest()

    def summary(self) -> dict[str, Any]:
        """The table's figures, under the names that JSON files use."""
        return {
            "K": self.num_classes,
            "N": self.length,
            "act": self.act,
            "min_distance": self.min_distance,
            "s_min": self.s_min,
            "s_max": self.s_max,
            "sha256": self.sha256,
        }

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        provenance: Mapping[str, Any] | None = None,
        force: bool = False,
    ) -> Path:
        """Write ``path`` (a ``.npy``) and, beside it, the JSON with `summary` and ``provenance``.

        Args:
            path: must end in ``.npy``; missing folders are made.
            provenance: how the scheme was made (method, seed, command, versions, upper bound), plain JSON types.
            force: overwrite existing files.

        Returns:
            The path written.

        Raises:
            InputError: wrong ending, an existing file without ``force``, or a failed write.
        """
        target = Path(path)
        if target.suffix != ".npy":
            raise InputError(f"{target}: a scheme's file name must end in .npy")
        record = record_path(target)
        for output in (target, record):
            check_target(output, force=force)
        # The JSON first: a kill between the two leaves a record whose sha256 tells that its table is missing.
        text = json.dumps({**self.summary(), **(provenance or {})}, indent=2) + "\n"
        write_together({record: text.encode(), target: self.to_npy()})
        return target

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, CodingScheme):
            return NotImplemented
        return np.array_equal(self._table, other._table)

    def __hash__(self) -> int:
        return hash(self.sha256)

    def __repr__(self) -> str:
        return f"CodingScheme(K={self.num_classes}, N={self.length}, act={self.act})"


def record_path(scheme_path: Path) -> Path:
    """The path of the JSON beside a scheme's ``.npy``."""
    return scheme_path.with_suffix(".json")


def _instead_of(missing: Path) -> str:
    """What to give instead of the path of a file that cannot be read."""
    name = missing.stem
    if name in shipped_names():
        return f"a shipped scheme has this name: give {name}, without folder and ending"
    return "give the path of a scheme's .npy, or the name of a shipped scheme (`codedtool schemes` lists them)"


def best_spread(num_classes: int, length: int, act: int) -> int:
    """The smallest possible S_max - S_min of K codewords of length N and weight N_act: 0 or 1 (appendix A).

    The table holds K * N_act ones. Exactly even columns would hold rK of them each, so spread 0 needs rK to be an
    integer; otherwise some column has more than another.
    """
    return 0 if num_classes * act % length == 0 else 1


def _check_table(array: NDArray[Any]) -> None:
    """Raise InputError unless ``array`` (any integer or boolean type) is a coding scheme."""
    if array.ndim != 2:
        raise InputError(f"a scheme has 2 dimensions (classes, subNNs), this array has shape {array.shape}")
    num_classes, length = array.shape
    if num_classes < 2:
        raise InputError(f"a scheme has at least 2 classes (rows), this one has {num_classes}")
    if not 2 <= length <= MAX_LENGTH:
        raise InputError(f"codewords have 2 to {MAX_LENGTH} digits (columns), these have {length}")
    wrong = (array != 0) & (array != 1)
    if wrong.any():
        row, column = (int(i) for i in np.argwhere(wrong)[0])
        raise InputError(
            f"entries are 0 or 1, but row {row}, column {column} holds {int(array[row, column])}; "
            "one class per row, one subNN per column"
        )
    weights = array.sum(axis=1, dtype=np.int64)
    act = int(weights[0])
    if act in (0, length):
        raise InputError(
            f"codewords have between 1 and N-1 ones, row 0 has {act} of N={length} and separates no classes"
        )
    if (weights != act).any():
        row = int(np.flatnonzero(weights != act)[0])
        raise InputError(
            f"rule A: every row has the same number of ones; row 0 has {act}, row {row} has {int(weights[row])}"
        )
    words = table_to_words(array)
    order = np.argsort(words, kind="stable")
    equal = np.flatnonzero(words[order][1:] == words[order][:-1])
    if len(equal):
        first, second = (int(i) for i in order[equal[0] : equal[0] + 2])
        digits = format(int(words[first]), f"0{length}b")
        raise InputError(f"codewords are distinct, but rows {first} and {second} are both {digits}")


def _read_npy(stream: BinaryIO, file_size: int) -> NDArray[np.uint8]:
    """The 2-D uint8 array in an open ``.npy``; every claim of the header is checked before it is believed."""
    magic = stream.read(8)
    if magic[:6] != b"\x93NUMPY":
        raise InputError("not a .npy file (its first bytes are not numpy's); schemes are saved with numpy.save")
    if len(magic) < 8 or magic[6] not in (1, 2, 3):
        raise InputError("a .npy header of an unknown version; save it again with numpy.save")
    length_bytes = stream.read(2 if magic[6] == 1 else 4)
    header_size = int.from_bytes(length_bytes, "little")
    if header_size > _MAX_HEADER:
        raise InputError(f"the .npy header claims {header_size} bytes, a scheme's has at most {_MAX_HEADER}")
    raw = stream.read(header_size)
    if len(raw) < header_size or header_size == 0:
        raise InputError("truncated inside its .npy header; copy or generate the file again")
    shape, dtype_text, fortran = _parse_header(raw.decode("latin-1"))
    if dtype_text != "|u1":
        raise InputError(
            f"a scheme's dtype is uint8, this file's is {dtype_text!r} "
            "(object, pickled, float and wider types are refused); save table.astype(numpy.uint8)"
        )
    if len(shape) != 2:
        raise InputError(f"a scheme has 2 dimensions (classes, subNNs), this file's shape is {shape}")
    if fortran:
        raise InputError(
            "a scheme is stored in C order, this file is in Fortran order; save numpy.ascontiguousarray(table)"
        )
    if 0 in shape:
        raise InputError(f"empty: its shape is {shape}")
    claimed = shape[0] * shape[1]
    present = file_size - stream.tell()
    if claimed != present:
        state = "truncated" if present < claimed else "longer than it should be"
        raise InputError(f"{state}: shape {shape} needs {claimed} bytes of data, the file has {present}")
    return np.frombuffer(stream.read(claimed), dtype=np.uint8).reshape(shape)


def _parse_header(text: str) -> tuple[tuple[int, ...], object, bool]:
    """Shape, dtype string and Fortran flag of a ``.npy`` header."""
    try:
        with warnings.catch_warnings():
            # A damaged header may hold escapes that the parser only warns about.
            warnings.simplefilter("ignore")
            header = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        header = None
    if not isinstance(header, dict) or set(header) != {"descr", "fortran_order", "shape"}:
        raise InputError("its .npy header cannot be read; copy or generate the file again")
    shape = header["shape"]
    if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape):
        raise InputError(f"its .npy header gives an impossible shape, {shape!r}")
    return shape, header["descr"], header["fortran_order"] is not False
