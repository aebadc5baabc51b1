"""How this project compiles a kernel: numba's njit, with a cache of the machine code on disk as far as one can be used.

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

The cache saves time and nothing else. Whatever is wrong with it (cut or changed files, a full disk, no folder that can
be written), the kernel is compiled and one warning says so.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import numba
from numba.core import caching
from numba.core.registry import CPUDispatcher

Kernel = TypeVar("Kernel", bound=Callable[..., Any])


def _spare_scipy() -> None:
    """Import numba's array functions, for compiling, without scipy.linalg: 0.1 s for products that no kernel here has.

    They import it only to learn whether there is one. `numpy.dot` in another package's kernels imports it later.
    """
    from numba.np import linalg

    def ensure_blas() -> None:
        if importlib.util.find_spec("scipy") is None:
            raise ImportError("scipy is not installed")

    original = linalg.ensure_blas
    linalg.ensure_blas = ensure_blas
    try:
        importlib.import_module("numba.np.arraymath")
    finally:
        linalg.ensure_blas = original


class CacheIgnored(UserWarning):
    """numba's cache cannot be used, or part of it; the message says why. The kernels are compiled instead."""


def kernel(function: Kernel) -> Kernel:
    """Compile ``function`` on its first call (no-Python mode), keeping the machine code on disk where possible.

    It must not make an array: its caller gives it the room. The plain function stays reachable as ``.py_func``. The GIL
    is released while the kernel runs.
    """
    return _kept(numba.njit(function, **_OPTIONS), function)


def inner_kernel(function: Kernel) -> Kernel:
    """A `kernel` that only other kernels call: no entry from Python is compiled for it."""
    return _kept(numba.njit(function, **_OPTIONS, no_cpython_wrapper=True), function)


# Without counting references to arrays, and without an entry from C, a kernel compiles in four fifths of the time.
_OPTIONS: dict[str, Any] = {"nogil": True, "_nrt": False, "no_cfunc_wrapper": True}


def _kept(compiled: Any, function: Any) -> Any:
    """Give a compiled function this project's cache."""
    if not numba.config.DISABLE_JIT:
        try:
            # As numba's `enable_caching` does, with a cache of this project.
            compiled._cache = _Cache(function)
        except Exception as error:  # of any kind: the cache is not needed
            _tell_once("no folder for it can be written", error)
            _spare_scipy()
    return compiled


def cache_lacks(module: ModuleType) -> bool:
    """Whether a cache can be used and has no machine code yet of a kernel that ``module`` defines."""
    kernels = [value for value in vars(module).values() if isinstance(value, CPUDispatcher)]
    caches = [one._cache for one in kernels if one.py_func.__module__ == module.__name__]
    return any(isinstance(cache, _Cache) and cache.is_empty() for cache in caches)


def checksum_of_bits() -> str:
    """The first 12 hexadecimal digits of the SHA-256 of ``bits.py``, which every importing kernel file records."""
    return hashlib.sha256(Path(__file__).with_name("bits.py").read_bytes()).hexdigest()[:12]


class _Place(caching.CompileResultCacheImpl):
    """Where the cache is: NUMBA_CACHE_DIR, the package's own folder, or the user's cache folder."""

    # For a user without a home folder, numba would make a folder called "~" in the working folder.
    _locator_classes = tuple(
        locator
        for locator in caching.CompileResultCacheImpl._locator_classes
        if "UserWide" not in locator.__name__ or os.path.isabs(os.path.expanduser("~"))
    )


class _Files(caching.IndexDataCacheFile):
    """An index and its files of machine code, each with its SHA-256 in front: changed code would crash the process."""

    def _save_data(self, name: str, data: Any) -> None:
        content = self._dump(data)
        with self._open_for_write(self._data_path(name)) as stream:
            stream.write(hashlib.sha256(content).digest() + content)

    def _load_data(self, name: str) -> Any:
        content = Path(self._data_path(name)).read_bytes()
        digest, content = content[:32], content[32:]
        if hashlib.sha256(content).digest() != digest:
            raise ValueError(f"{name} is damaged")
        return pickle.loads(content)


class _Cache(caching.FunctionCache):
    """numba's cache of a function's machine code; none of its failures reaches the caller."""

    _impl_class = _Place

    def __init__(self, py_func: Any) -> None:
        super().__init__(py_func)
        # numba takes an index with another stamp for an old one. So files without a checksum are not read.
        stamp = (self._impl.locator.get_source_stamp(), "sha256")
        self._cache_file = _Files(self._cache_path, self._impl.filename_base, stamp)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        found = None
        try:
            # numba's own `load_overload` first gathers what it can compile with (0.15 s); running needs none of it.
            found = self._load_overload(sig, target_context)
        except Exception as error:  # unpickling alone raises dozens of kinds
            _tell_once(f"{self._cache_path} is damaged or cannot be read", error)
            self._begin_anew()
        if found is None:
            _spare_scipy()
        return found

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except Exception as error:  # of any kind: the machine code is there, only not kept
            _tell_once(f"{self._cache_path} cannot be written", error)
            self.disable()

    def is_empty(self) -> bool:
        """Whether no machine code is kept for the present source."""
        try:
            return not self._cache_file._load_index()
        except Exception:  # of any kind: it is damaged
            return True

    def _begin_anew(self) -> None:
        """Replace a damaged index by an empty one; where that fails too, leave this cache alone."""
        try:
            self.flush()
        except Exception:
            self.disable()


_told = False


def _tell_once(reason: str, error: Exception) -> None:
    """Warn that kernels are compiled anew; once in a process, because a damaged disk damages many files."""
    global _told
    if not _told:
        _told = True
        warnings.warn(
            f"numba's cache: {reason} ({type(error).__name__}: {error}); kernels are compiled anew, which takes "
            "seconds. NUMBA_CACHE_DIR names another folder for it",
            CacheIgnored,
            stacklevel=1,  # the command line shows warnings of this package's files in one line
        )
