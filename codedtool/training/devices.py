"""Open the runtime of the device that a recipe names."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterator
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
from codedtool.training.runtime import Interrupted, Runtime
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
        check_group(launched, has_gpus=device_kind(recipe) == "cuda")
    runtime = _open_runtime(recipe, launched if is_training else ALONE)
    is_together = False
    try:
        with memory_told():
            yield runtime
        is_together = True
    except Interrupted:
        is_together = True
        raise
    except RuntimeError as error:
        if runtime.world_size > 1 and (isinstance(error, dist.DistError) or "gloo" in str(error)):
            raise PeerFailedError(
                f"rank {runtime.rank}: another rank ended, or cannot be reached, and this one cannot go on without it "
                f"({str(error).strip().splitlines()[0]}); the other rank's message has the reason, unless the system "
                "ended it. `resume` continues the run from its last checkpoint"
            ) from error
        raise
    finally:
        runtime.close(is_together=is_together)


def device_kind(recipe: Recipe) -> str:
    """The kind of ``recipe.device``: cpu, cuda or xla; ``auto`` is CUDA if there is a CUDA device, else the CPU.

    Raises:
        InputError: the recipe asks for CUDA, and there is no CUDA device.
    """
    if recipe.device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if recipe.device == "cuda" and not torch.cuda.is_available():
        raise InputError("`device` cuda: this PyTorch sees no CUDA device; use `device` cpu or auto")
    return recipe.device


def for_this_machine(recipe: Recipe, given: Collection[str]) -> Recipe:
    """The recipe of a run that may come from a machine with a GPU, for one without.

    Args:
        recipe: the run's recipe, with the changed values.
        given: keys of the values that the user asked for; these stay.

    Returns:
        The recipe with ``device`` cpu if it has CUDA and there is no CUDA device; a warning says so.
    """
    if recipe.device != "cuda" or "device" in given or torch.cuda.is_available():
        return recipe
    warnings.warn("the run was trained on CUDA, which this machine has not: `device` cpu is used", stacklevel=1)
    return recipe.with_values({"device": "cpu"})


def _open_runtime(recipe: Recipe, launched: Launch) -> Runtime:
    """Open the runtime of ``recipe.device``."""
    kind = device_kind(recipe)
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
