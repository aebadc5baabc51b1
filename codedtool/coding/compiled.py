"""How this project compiles a kernel: numba's njit with an on-disk cache, or without one where nothing can be written.

Importing this module imports numba (0.3 s), so it is imported only by the ``*_kernels.py`` files, and those only
inside the functions that run them. numba's cache follows the file a kernel is in and no other: a kernel calls
kernels of its own file only and reads no module globals. ``NUMBA_DISABLE_JIT=1`` runs the same source interpreted.
"""

from __future__ import annotations

from collections.abc import Callable
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
