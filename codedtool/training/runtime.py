"""The interface between the training loop and a device.

`torch_runtime.py` implements it for CPU and CUDA, `xla.py` for XLA, and `devices.py` chooses between them. Methods that
exchange something with other processes are collectives: every rank must call them, in the same order.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn

from codedtool.budget import usable_cores
from codedtool.training.recipe import Recipe


class Interrupted(Exception):  # noqa: N818  # not an error: the user asked for it
    """Training stopped on request, on all ranks after the same step; the message says how to continue."""


class Runtime(ABC):
    """One process's device, and its exchange with the other processes (ranks) of the training.

    Attributes:
        device: device of this process's tensors.
        rank: number of this process, from 0.
        world_size: number of processes.
        precision: number format of a forward pass under `autocast`: fp32, bf16 or fp16.
        num_workers: worker processes that prepare the images of this process.
        pin_memory: whether images should be put in page-locked memory.
    """

    device: torch.device
    rank = 0
    world_size = 1
    precision = "fp32"
    num_workers = 0
    pin_memory = False

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files and prints; only rank 0 does."""
        return self.rank == 0

    @abstractmethod
    def prepare(self, network: nn.Module) -> nn.Module:
        """Move ``network`` to the device, in place, and return the module to call in training (wrapped or compiled)."""

    @abstractmethod
    def put(self, images: torch.Tensor) -> torch.Tensor:
        """Copy images, labels or indices to the device; images get the device's memory layout."""

    @abstractmethod
    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context in which a forward pass has the recipe's precision."""

    @abstractmethod
    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradients of a scalar loss to the parameters' gradients."""

    @abstractmethod
    def accumulate(self, prepared: nn.Module) -> AbstractContextManager[Any]:
        """Return the context of every forward and backward pass of a step but the last: gradients stay on this rank."""

    @abstractmethod
    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Update the weights with the gradients summed over all ranks, then clear the gradients."""

    @abstractmethod
    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Sum ``values`` over all ranks."""

    @abstractmethod
    def share(self, value: Any) -> Any:
        """Return rank 0's ``value`` (plain types) on every rank."""

    @abstractmethod
    def barrier(self) -> None:
        """Wait for every rank."""

    def mark(self) -> None:  # noqa: B027  # most devices have nothing to do here
        """Tell a lazy device that it may now run the operations recorded so far."""

    def state(self) -> dict[str, Any]:
        """Return the state that a checkpoint must hold; builtins only."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:  # noqa: B027  # most devices have no state
        """Restore the result of `state`."""

    def close(self, *, is_together: bool) -> None:  # noqa: B027  # a single process leaves no group
        """Leave the group of processes.

        Args:
            is_together: whether all ranks leave it now; else this rank has failed, and the others may be anywhere.
        """


def num_workers(recipe: Recipe, processes: int) -> int:
    """Resolve ``recipe.num_workers``: -1 means an equal share of the machine's cores per process, at most 8.

    Args:
        processes: training processes on this machine.
    """
    if recipe.num_workers >= 0:
        return recipe.num_workers
    return max(1, min(8, usable_cores() // processes))
