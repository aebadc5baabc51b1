"""How this project compiles a kernel: numba's njit with an on-disk cache, or without one where nothing can be written.

Importing this module imports numba (0.3 s). So only the ``*_kernels.py`` files and `codedtool.coding.bits` import it,
and other files import those inside the functions that run them. ``NUMBA_DISABLE_JIT=1`` runs the same source
interpreted.

A kernel takes NamedTuples of tables and scratch arrays, and names the places of a state array by constants of its own
file. numba's cache on disk follows the file that a kernel is in, and no other file. So a kernel calls only kernels of
its own file and of `codedtool.coding.bits`. A file that imports from ``bits`` must be compiled anew when ``bits``
changes; therefore it records the checksum of ``bits``:

    BITS = "0123456789ab"  # checksum of bits.py

and a test compares the two. Whoever changes ``bits`` has to change the recorded checksums, and changing those files is
what makes numba compile them anew. `checksum_of_bits` gives the value to record.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numba

Kernel = TypeVar("Kernel", bound=Callable[..., Any])


def kernel(function: Kernel) -> Kernel:
    """Compile ``function`` on its first call (no-Python mode), keeping the machine code on disk where possible.

    The plain function stays reachable as ``.py_func``. The GIL is released while the kernel runs.
    """
    try:
        return numba.njit(function, cache=True, nogil=True)
    except RuntimeError:
        # numba found neither the package's folder nor a user cache folder writable.
        return numba.njit(function, nogil=True)


def checksum_of_bits() -> str:
    """The first 12 hexadecimal digits of the SHA-256 of ``bits.py``, which every importing kernel file records."""
    return hashlib.sha256(Path(__file__).with_name("bits.py").read_bytes()).hexdigest()[:12]
