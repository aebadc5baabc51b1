"""torch.compile and torch.export where they may lack something: a user name, a folder for the cache, or a compiler."""

from __future__ import annotations

import atexit
import getpass
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import nn


@cache
def prepare_inductor() -> None:
    """Give torch's inductor what it takes for granted; to be called before torch.compile or torch.export.

    Importing the inductor asks for the name of the user, whom a container may not know (``docker run --user 1234``),
    and makes its cache folder, which may not be writable: it may be another user's.
    """
    try:
        user = getpass.getuser()
    except Exception:  # KeyError until Python 3.12, then OSError
        user = os.environ["LOGNAME"] = f"uid{os.getuid()}"
    # As torch names it (torch._inductor.runtime.cache_dir_utils).
    usual = os.path.join(tempfile.gettempdir(), "torchinductor_" + re.sub(r'[\\/:*?"<>|]', "_", user))
    folder = os.environ.get("TORCHINDUCTOR_CACHE_DIR", usual)
    try:
        os.makedirs(folder, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = own = tempfile.mkdtemp(prefix="torchinductor-")
        atexit.register(shutil.rmtree, own, ignore_errors=True)
        warnings.warn(
            f"torch's cache of compiled code: {folder} cannot be written ({error.strerror}); nothing is kept for the "
            "next command. TORCHINDUCTOR_CACHE_DIR names another folder",
            stacklevel=1,  # the command line shows warnings of this package's files in one line
        )


class Compiled(nn.Module):
    """A network that torch.compile compiles on its first call; where that fails, one warning, and it runs as it is.

    Args:
        network: the network.
        is_main: whether this process tells (rank 0).
    """

    def __init__(self, network: nn.Module, *, is_main: bool) -> None:
        super().__init__()
        self.network = network
        self._is_main = is_main
        self._call: Callable[..., Any] | None = None

    def forward(self, *arguments: Any, **named: Any) -> Any:
        """The network's output."""
        if self._call is self.network:
            return self.network(*arguments, **named)
        prepare_inductor()
        from torch._dynamo.exc import TorchDynamoException  # the base of all that a failed compilation raises

        try:
            if self._call is None:
                # All networks have the same code, which torch compiles eight times only: a sweep has more points.
                torch._dynamo.reset()
                self._call = torch.compile(self.network)
            return self._call(*arguments, **named)
        except (TorchDynamoException, OSError) as error:
            self._call = self.network
            if self._is_main:
                cause = getattr(error, "inner_exception", error)
                reason = next(iter(str(cause).strip().splitlines()), "")
                warnings.warn(
                    f"`compile` has no effect: torch.compile failed ({type(cause).__name__}: {reason})",
                    stacklevel=1,  # as above
                )
            return self.network(*arguments, **named)
