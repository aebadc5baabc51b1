"""How this process's memory allocator treats freed memory on a CPU."""

from __future__ import annotations

import ctypes
import sys

# Parameters of glibc's mallopt(3).
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4


def keep_freed_memory() -> None:
    """Let glibc keep freed memory for the next tensors, instead of giving it back to the system (Linux only).

    By default, glibc asks the system for every block of 32 MiB or more, gives the block back when it is freed, and
    also gives back the free end of its heap. The system then clears every page of the next block, which takes as long
    as the arithmetic of small convolutions. The process keeps the most memory that it ever used. Nothing happens where
    the C library is not glibc.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, -1)
