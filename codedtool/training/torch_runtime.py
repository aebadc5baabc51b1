"""The CPU and CUDA: one process, or several that torchrun started (DDP over nccl or gloo)."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from codedtool.errors import InputError
from codedtool.training.recipe import Recipe
from codedtool.training.runtime import Runtime, num_workers


class TorchRuntime(Runtime):
    """The CPU or a CUDA device, for a single process or one of torchrun's processes.

    Args:
        recipe: gives precision, memory layout, workers and compilation.
        kind: "cpu" or "cuda".

    Raises:
        InputError: the precision needs CUDA.
    """

    def __init__(self, recipe: Recipe, kind: str) -> None:
        self._recipe = recipe
        self.rank = int(os.environ.get("RANK", "0"))
        self.world_size = int(os.environ.get("WORLD_SIZE", "1"))
        if kind == "cuda":
            self.device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
            torch.cuda.set_device(self.device)
            self.pin_memory = True
        else:
            self.device = torch.device("cpu")
        if recipe.precision == "fp16" and kind == "cpu":
            raise InputError("`precision` fp16 needs `device` cuda; use bf16 or fp32 on the CPU")
        self.num_workers = num_workers(recipe, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
        self._scaler = torch.amp.GradScaler(kind, enabled=recipe.precision == "fp16")
        self._layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
        if self.world_size > 1:
            # Weights of 1x1 and one-channel convolutions can be described by two equal strides; DDP warns about it.
            warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
            with _stdout_on_stderr():
                dist.init_process_group("nccl" if kind == "cuda" else "gloo")

    def prepare(self, network: nn.Module) -> nn.Module:
        network.to(self.device)
        for parameter in network.parameters():
            if parameter.dim() == 4:
                parameter.data = parameter.data.contiguous(memory_format=self._layout)
        prepared = network
        if self.world_size > 1:
            # Every rank keeps its own BatchNorm statistics until the loop averages them (`average_statistics`).
            devices = [self.device] if self.device.type == "cuda" else None
            prepared = nn.parallel.DistributedDataParallel(network, device_ids=devices, broadcast_buffers=False)
        return torch.compile(prepared) if self._recipe.compile else prepared  # type: ignore[return-value]  # a Module

    def put(self, images: torch.Tensor) -> torch.Tensor:
        if images.dim() == 4:
            return images.to(self.device, non_blocking=True, memory_format=self._layout)
        return images.to(self.device, non_blocking=True)

    def autocast(self) -> AbstractContextManager[Any]:
        dtypes = {"bf16": torch.bfloat16, "fp16": torch.float16}
        if self._recipe.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=dtypes[self._recipe.precision])

    def backward(self, loss: torch.Tensor) -> None:
        # DDP averages gradients over ranks; the loop's losses are parts of one mean and need the sum.
        self._scaler.scale(loss * self.world_size).backward()

    def accumulate(self, prepared: nn.Module) -> AbstractContextManager[Any]:
        return prepared.no_sync() if isinstance(prepared, nn.parallel.DistributedDataParallel) else nullcontext()

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        self._scaler.step(optimizer)
        self._scaler.update()
        optimizer.zero_grad(set_to_none=True)

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        if self.world_size > 1:
            values = values.clone()
            dist.all_reduce(values)
        return values

    def share(self, value: Any) -> Any:
        if self.world_size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def barrier(self) -> None:
        if self.world_size > 1:
            dist.barrier()

    def state(self) -> dict[str, Any]:
        return dict(self._scaler.state_dict())

    def restore(self, state: dict[str, Any]) -> None:
        if state:
            self._scaler.load_state_dict(state)

    def close(self) -> None:
        if self.world_size > 1:
            dist.destroy_process_group()


@contextmanager
def _stdout_on_stderr() -> Iterator[None]:
    """Send to stderr what C++ prints on stdout: gloo prints a greeting, and stdout may hold a JSON document."""
    sys.stdout.flush()
    saved = os.dup(1)
    try:
        os.dup2(2, 1)
        yield
    finally:
        os.dup2(saved, 1)
        os.close(saved)
