"""BatchNorm over the images of all ranks (the recipe's ``sync_bn``), and averaging of BatchNorm's statistics.

`torch.nn.SyncBatchNorm` works on CUDA alone. This one uses an all-reduce that has a gradient, so that processes on CPUs
(gloo) reproduce a single process. Without ``sync_bn`` every rank normalises its own images, as in the authors' code,
and the running statistics are averaged over ranks (timm calls this ``dist-bn reduce``).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from codedtool.errors import InputError
from codedtool.training.runtime import Runtime


class SyncBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d with the statistics of all ranks' images; parameters, buffers and state dict are the same."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Normalise ``input`` (B, C, H, W) by mean and variance over B, H and W of all ranks."""
        if not self.training:
            return super().forward(input)
        from torch.distributed.nn.functional import all_reduce

        x_BCHW = input.float()
        sums = torch.cat([x_BCHW.sum((0, 2, 3)), x_BCHW.new_full((1,), float(x_BCHW[:, 0].numel()))])
        sums = all_reduce(sums)
        count = sums[-1].detach()
        mean_C = sums[:-1] / count
        # A second all-reduce sums the squared deviations: the mean of squares minus the squared mean loses digits.
        centred_BCHW = x_BCHW - mean_C[:, None, None]
        variance_C = all_reduce((centred_BCHW**2).sum((0, 2, 3))) / count
        with torch.no_grad():
            self._remember(mean_C.detach(), variance_C.detach() * count / (count - 1))
        scale_C = torch.rsqrt(variance_C + self.eps) * self.weight
        return (centred_BCHW * scale_C[:, None, None] + self.bias[:, None, None]).to(input.dtype)

    def _remember(self, mean_C: torch.Tensor, variance_C: torch.Tensor) -> None:
        assert self.momentum is not None
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean_C, self.momentum)
        self.running_var.lerp_(variance_C, self.momentum)


def synchronize_batch_norm(network: nn.Module) -> None:
    """Turn every BatchNorm2d of ``network`` into a `SyncBatchNorm2d`, in place.

    Only the class changes; parameters, buffers and hooks stay the same objects.
    """
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SyncBatchNorm2d


def average_statistics(network: nn.Module, runtime: Runtime) -> None:
    """Average the running statistics of BatchNorm over ranks, in place, in one reduction.

    Running statistics are linear in the statistics of the batches, so it does not matter when or how often this is
    done.
    """
    statistics = [
        statistic
        for module in network.modules()
        if isinstance(module, nn.BatchNorm2d)
        for statistic in (module.running_mean, module.running_var)
        if statistic is not None
    ]
    if runtime.world_size == 1 or not statistics:
        return
    means = runtime.sum(torch.cat(statistics)) / runtime.world_size
    for statistic, mean in zip(statistics, means.split([len(statistic) for statistic in statistics]), strict=True):
        statistic.copy_(mean)


@contextmanager
def enough_for_statistics(num_images: int) -> Iterator[None]:
    """Say what to change where BatchNorm has one value of a channel: one image whose last features have one pixel."""
    try:
        yield
    except ValueError as error:
        if num_images > 1 or "more than 1 value per channel" not in str(error):
            raise
        raise InputError(
            "a pass of one image is too few for this network: its last features have one pixel, and BatchNorm needs "
            "more than one value; raise `batch_size` or `micro_batch`"
        ) from error
