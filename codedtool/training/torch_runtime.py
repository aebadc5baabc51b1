"""The CPU and CUDA: one process, or several that torchrun started (DDP over nccl or gloo)."""

from __future__ import annotations

import datetime
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from codedtool.errors import InputError
from codedtool.training.allocator import keep_freed_memory
from codedtool.training.inductor import Compiled
from codedtool.training.launch import ADVICE, ALONE, Launch
from codedtool.training.recipe import Recipe
from codedtool.training.runtime import Runtime, num_workers

# Seconds of waiting for other ranks after which that is said.
_PATIENCE = 15.0

# Most time that a rank waits for another one: rank 0 may download a data set, or list a large one.
_LONGEST_WAIT = datetime.timedelta(hours=1)


class TorchRuntime(Runtime):
    """The CPU or a CUDA device, for a single process or one of torchrun's processes.

    Args:
        recipe: gives precision, memory layout, workers and compilation.
        kind: "cpu" or "cuda".
        launch: this process's place among those that train together.

    Raises:
        InputError: the precision needs CUDA, this process's CUDA device does not exist, or the other processes cannot
            be reached.
    """

    def __init__(self, recipe: Recipe, kind: str, launch: Launch = ALONE) -> None:
        self._recipe = recipe
        self.rank = launch.rank
        self.world_size = launch.world_size
        if kind == "cuda":
            count = torch.cuda.device_count()
            if launch.local_rank >= count:
                devices = "one CUDA device" if count == 1 else f"{count} CUDA devices"
                # Clusters may show every process its own device alone, as the first.
                own = ", or set LOCAL_RANK=0 for all if each sees another one" if count == 1 else ""
                raise InputError(
                    f"rank {self.rank} has LOCAL_RANK={launch.local_rank}, and sees {devices}: start one process for "
                    f"each device{own}"
                )
            self.device = torch.device("cuda", launch.local_rank)
            torch.cuda.set_device(self.device)
            self.pin_memory = True
        else:
            self.device = torch.device("cpu")
            keep_freed_memory()
        if recipe.precision == "fp16" and kind == "cpu":
            raise InputError(
                "`precision` fp16 needs `device` cuda; use bf16 or fp32 on the CPU. A run begun in fp16 goes on with "
                "CUDA only"
            )
        self.precision = recipe.precision
        self.num_workers = num_workers(recipe, launch.local_world_size)
        self._scaler = torch.amp.GradScaler(kind, enabled=recipe.precision == "fp16")
        self._layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
        if self.world_size > 1:
            # Weights of 1x1 and one-channel convolutions can be described by two equal strides; DDP warns about it.
            warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
            _join("nccl" if kind == "cuda" else "gloo", launch)

    def prepare(self, network: nn.Module) -> nn.Module:
        network.to(self.device)
        for parameter in network.parameters():
            if parameter.dim() == 4:
                parameter.data = parameter.data.contiguous(memory_format=self._layout)
        prepared: nn.Module = network
        if self.world_size > 1:
            # Every rank keeps its own BatchNorm statistics until the loop averages them (`average_statistics`).
            devices = [self.device] if self.device.type == "cuda" else None
            prepared = nn.parallel.DistributedDataParallel(network, device_ids=devices, broadcast_buffers=False)
        return Compiled(prepared, is_main=self.is_main) if self._recipe.compile else prepared

    def put(self, images: torch.Tensor) -> torch.Tensor:
        if images.dim() == 4:
            return images.to(self.device, non_blocking=True, memory_format=self._layout)
        return images.to(self.device, non_blocking=True)

    def autocast(self) -> AbstractContextManager[Any]:
        dtypes = {"bf16": torch.bfloat16, "fp16": torch.float16}
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=dtypes[self.precision])

    def backward(self, loss: torch.Tensor) -> None:
        # DDP averages gradients over ranks; the loop's losses are parts of one mean and need the sum.
        self._scaler.scale(loss * self.world_size).backward()

    def accumulate(self, prepared: nn.Module) -> AbstractContextManager[Any]:
        network = prepared.network if isinstance(prepared, Compiled) else prepared
        return network.no_sync() if isinstance(network, nn.parallel.DistributedDataParallel) else nullcontext()

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

    def close(self, *, is_together: bool) -> None:
        # NCCL leaves the group with all ranks at once. A rank that failed would wait for the others until the time
        # limit, and say nothing before; when it ends with its message, torchrun ends the others.
        if self.world_size > 1 and (is_together or dist.get_backend() != "nccl"):
            dist.destroy_process_group()


def _join(backend: str, launch: Launch) -> None:
    """Find the other ranks; after some seconds of waiting, say which ones are awaited."""
    place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    rank = f"rank {launch.rank} of {launch.world_size}"
    waiting = threading.Timer(
        _PATIENCE, warnings.warn, (f"{rank} waits for the other ranks at {place}", UserWarning, 1)
    )
    waiting.daemon = True
    waiting.start()
    try:
        with _stdout_on_stderr():
            dist.init_process_group(backend, rank=launch.rank, world_size=launch.world_size, timeout=_LONGEST_WAIT)
    except (RuntimeError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"{rank} cannot join the others at {place} (MASTER_ADDR, MASTER_PORT): {reason}; {ADVICE}"
        ) from None
    finally:
        waiting.cancel()


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
