"""The devices a training runs on, behind one small interface: the loop knows no device.

`TorchRuntime` is the CPU or CUDA, one process or several started by torchrun (DDP over nccl or gloo); `xla.py` is the
other implementation. Everything that needs another rank is a collective: every rank calls it, in the same order.
"""

from __future__ import annotations

import os
import sys
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from codedtool.errors import CodedtoolError, InputError
from codedtool.training.recipe import Recipe
from codedtool.training.settings import ignored


class PeerFailedError(CodedtoolError):
    """Another rank ended and took this one along; its own message says why. Exit code 3."""

    exit_code = 3


class Runtime(ABC):
    """One process's view of its device and of the other processes.

    Attributes:
        device: where tensors of this process live.
        rank: 0-based number of this process.
        world_size: number of processes.
        num_workers: processes that prepare this one's images.
        pin_memory: whether images are worth having in page-locked memory.
    """

    device: torch.device
    rank = 0
    world_size = 1
    num_workers = 0
    pin_memory = False

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that writes files and talks."""
        return self.rank == 0

    @abstractmethod
    def prepare(self, network: nn.Module) -> nn.Module:
        """Move ``network`` to the device, in place; returns what to call in training: itself, wrapped or compiled."""

    @abstractmethod
    def put(self, images: torch.Tensor) -> torch.Tensor:
        """Images, labels or indices on the device, images in its memory layout."""

    @abstractmethod
    def autocast(self) -> AbstractContextManager[Any]:
        """The context of a forward at the recipe's precision."""

    @abstractmethod
    def backward(self, loss: torch.Tensor) -> None:
        """Accumulate the gradients of a scalar loss."""

    @abstractmethod
    def accumulate(self, prepared: nn.Module) -> AbstractContextManager[Any]:
        """The context of a forward and backward that another one of the same step follows: no reduction yet."""

    @abstractmethod
    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Update the weights with gradients that are the sum over all ranks; clear the gradients."""

    @abstractmethod
    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """``values`` summed over all ranks."""

    @abstractmethod
    def share(self, value: Any) -> Any:
        """Rank 0's ``value`` (plain types) on every rank."""

    @abstractmethod
    def barrier(self) -> None:
        """Wait for every rank."""

    def mark(self) -> None:  # noqa: B027  # nothing to do is a whole answer
        """End of a piece of work that a lazy device may now run."""

    def state(self) -> dict[str, Any]:
        """What this runtime must remember over a resume; builtins only."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:  # noqa: B027  # nothing to do is a whole answer
        """Take back `state`."""

    def close(self) -> None:  # noqa: B027  # nothing to do is a whole answer
        """Leave the group of processes."""


class TorchRuntime(Runtime):
    """The CPU or a CUDA device, alone or as one of torchrun's processes."""

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
            raise InputError("--precision fp16 needs --device cuda; on the CPU use bf16 or fp32")
        self.num_workers = num_workers(recipe, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
        self._scaler = torch.amp.GradScaler(kind, enabled=recipe.precision == "fp16")
        self._layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
        if self.world_size > 1:
            # Weights of 1x1 and one-channel convolutions have two names for one layout, which DDP remarks on.
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
            # Statistics of BatchNorm stay each rank's own until the loop averages them (see `average_statistics`).
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
        # DDP averages over ranks; the loop's losses are shares of one mean, to be added up.
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
    """Within it, what C++ prints on stdout goes to stderr: gloo greets there, where a JSON document may belong."""
    sys.stdout.flush()
    saved = os.dup(1)
    try:
        os.dup2(2, 1)
        yield
    finally:
        os.dup2(saved, 1)
        os.close(saved)


def num_workers(recipe: Recipe, processes: int) -> int:
    """``recipe.num_workers``; for -1 an equal share of the machine's cores for each of ``processes``, at most 8."""
    if recipe.num_workers >= 0:
        return recipe.num_workers
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(8, cores // processes))


@contextmanager
def opened_runtime(recipe: Recipe) -> Iterator[Runtime]:
    """A runtime for as long as the context lasts; what another rank's end does to this one becomes one message.

    Raises:
        InputError: as `open_runtime`.
        PeerFailedError: another rank ended in the middle of the work.
    """
    runtime = open_runtime(recipe)
    try:
        yield runtime
    except RuntimeError as error:
        if runtime.world_size > 1 and (isinstance(error, dist.DistError) or "gloo" in str(error)):
            raise PeerFailedError(f"rank {runtime.rank}: another rank ended; its own message says why") from error
        raise
    finally:
        runtime.close()


def open_runtime(recipe: Recipe) -> Runtime:
    """The runtime of ``recipe.device``; ``auto`` is CUDA where there is one, else the CPU.

    Raises:
        InputError: the device is not there, or cannot do the recipe's precision; names both.
    """
    kind = recipe.device
    if kind == "auto":
        kind = "cuda" if torch.cuda.is_available() else "cpu"
    if kind == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: this PyTorch sees no CUDA device; use --device cpu or auto")
    if kind == "xla":
        from codedtool.training.xla import XlaRuntime

        return XlaRuntime(recipe)
    if recipe.sync_bn and int(os.environ.get("WORLD_SIZE", "1")) == 1:
        ignored("--sync-bn has no effect: there is one process")
    return TorchRuntime(recipe, kind)
