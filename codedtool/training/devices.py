"""Open the runtime of the device that a recipe names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import current_process
from typing import Any

import torch
import torch.distributed as dist

from codedtool.errors import CodedtoolError, InputError
from codedtool.training.launch import ALONE, Launch, check_group, read_launch
from codedtool.training.memory import memory_told
from codedtool.training.precision import with_precision
from codedtool.training.recipe import Recipe
from codedtool.training.runtime import Runtime
from codedtool.training.settings import ignored
from codedtool.training.torch_runtime import TorchRuntime


class PeerFailedError(CodedtoolError):
    """Another rank ended, so this one cannot go on; the other rank's message has the reason. Exit code 3."""

    exit_code = 3


@contextmanager
def opened_runtime(recipe: Recipe, *, is_training: bool = False) -> Iterator[Runtime]:
    """Open a runtime and close it with the context; ``precision`` auto becomes the choice for the device.

    Args:
        recipe: gives the device and how to use it.
        is_training: whether this process trains together with the other ranks, if it was started as one of several
            (`codedtool.training.launch`). All other work is done by one process.

    Raises:
        InputError: the device does not exist, or does not support the recipe's precision; or the environment has
            impossible values, or names other ranks that cannot be reached.
        PeerFailedError: another rank ended within the context.
        OutOfMemoryError: memory ran out within the context.
    """
    launched = read_launch()
    if is_training:
        check_group(launched)
    runtime = _open_runtime(recipe, launched if is_training else ALONE)
    try:
        with memory_told():
            yield runtime
    except RuntimeError as error:
        if runtime.world_size > 1 and (isinstance(error, dist.DistError) or "gloo" in str(error)):
            raise PeerFailedError(
                f"rank {runtime.rank}: another rank ended, and this one cannot go on without it "
                f"({str(error).strip().splitlines()[0]}); the other rank's message has the reason, unless the system "
                "ended it. `resume` continues the run from its last checkpoint"
            ) from error
        raise
    finally:
        runtime.close()


def device_kind(recipe: Recipe) -> str:
    """The kind of ``recipe.device``: cpu, cuda or xla; ``auto`` is CUDA if there is a CUDA device, else the CPU."""
    if recipe.device != "auto":
        return recipe.device
    return "cuda" if torch.cuda.is_available() else "cpu"


def _open_runtime(recipe: Recipe, launched: Launch) -> Runtime:
    """Open the runtime of ``recipe.device``."""
    kind = device_kind(recipe)
    if kind == "cuda" and not torch.cuda.is_available():
        raise InputError("`device` cuda: this PyTorch sees no CUDA device; use `device` cpu or auto")
    recipe, _ = with_precision(recipe, kind)
    if kind == "xla":
        from codedtool.training.xla import XlaRuntime  # only here: torch_xla is an optional package

        return XlaRuntime(recipe)
    if recipe.sync_bn and launched.world_size == 1:
        ignored("`sync_bn` has no effect: there is only one process")
    return TorchRuntime(recipe, kind, launched)


def needs_launch(recipe: Recipe) -> bool:
    """Whether the work must go to processes of its own, one per XLA device, which `launch` starts."""
    if recipe.device != "xla" or current_process().name != "MainProcess":
        return False
    from codedtool.training.xla import launches  # only here: torch_xla is an optional package

    return launches()


def launch(function: Callable[..., Any], *arguments: Any) -> None:
    """Run ``function(*arguments)`` in one process per XLA device; the function's result is lost.

    Args:
        function: a function of a module, which can be pickled.
        arguments: picklable too.
    """
    from codedtool.training import xla  # only here: torch_xla is an optional package

    xla.launch(function, *arguments)
