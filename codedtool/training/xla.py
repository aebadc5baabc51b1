"""Everything that depends on torch_xla: device, lazy steps and launcher.

Replacing torch_xla by its successor means replacing this file alone.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from codedtool.errors import InputError
from codedtool.training.recipe import Recipe
from codedtool.training.runtime import Runtime, num_workers
from codedtool.training.settings import ignored

try:
    import torch_xla
    import torch_xla.core.xla_model as xm
    import torch_xla.runtime as xr
except ImportError as error:
    raise InputError(f"`device` xla needs torch_xla ({error}): pip install 'codedtool[xla]'") from None


def launches() -> bool:
    """Whether `launch` must start processes.

    It must on accelerators, unless torchrun has started the processes already. XLA's CPU is a single device, used in
    this process.
    """
    return xr.device_type() != "CPU" and not torch.distributed.is_torchelastic_launched()


def launch(function: Callable[..., Any], *arguments: Any) -> None:
    """Run ``function(*arguments)`` in one process per XLA device of this machine; see `devices.launch`."""
    torch_xla.launch(_call, args=(function, arguments))


def _call(index: int, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    function(*arguments)


class XlaRuntime(Runtime):
    """One XLA device; with several devices, `launch` or torchrun has started one process for each.

    The device is created before the first backward pass of the process, because autograd aborts otherwise
    (device_ready_queues, torch_xla 2.9).
    """

    def __init__(self, recipe: Recipe) -> None:
        if recipe.precision == "fp16":
            raise InputError("`precision` fp16 needs `device` cuda; use bf16 or fp32 on XLA")
        if recipe.compile:
            ignored("`compile` has no effect with `device` xla: XLA compiles every step")
        self.device = torch_xla.device()
        self.rank = xr.global_ordinal()
        self.world_size = xr.world_size()
        self.precision = recipe.precision
        self.num_workers = num_workers(recipe, self.world_size)

    def prepare(self, network: nn.Module) -> nn.Module:
        return network.to(self.device)

    def put(self, images: torch.Tensor) -> torch.Tensor:
        return images.to(self.device)

    def autocast(self) -> AbstractContextManager[Any]:
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast("xla", dtype=torch.bfloat16)

    def backward(self, loss: torch.Tensor) -> None:
        # The reduction averages gradients over ranks; the loop's losses are parts of one mean and need the sum.
        (loss * self.world_size).backward()

    def accumulate(self, prepared: nn.Module) -> AbstractContextManager[Any]:
        return nullcontext()

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        xm.reduce_gradients(optimizer)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        torch_xla.sync()

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        if self.world_size > 1:
            return xm.all_reduce(xm.REDUCE_SUM, values)
        return values

    def share(self, value: Any) -> Any:
        if self.world_size == 1:
            return value
        return xm.mesh_reduce("codedtool.share", value, lambda values: values[0])

    def barrier(self) -> None:
        if self.world_size > 1:
            xm.rendezvous("codedtool.barrier")

    def mark(self) -> None:
        torch_xla.sync()
