"""BatchNorm over the images of all ranks, on any device (``--sync-bn``).

`torch.nn.SyncBatchNorm` does this on CUDA alone; this one is written with an all-reduce that has a gradient, so that
gloo on CPUs can reproduce a single process. Without the option every rank normalises its own images, as the authors'
code does, and the running statistics are averaged over ranks (timm's ``--dist-bn reduce``).
"""

from __future__ import annotations

import torch
from torch import nn

from codedtool.training.runtime import Runtime


class SyncBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d whose batch is that of all ranks; same parameters, buffers and state dict."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) -> (B, C, H, W), normalised by the mean and variance over all ranks' B, H and W."""
        if not self.training:
            return super().forward(input)
        from torch.distributed.nn.functional import all_reduce

        x_BCHW = input.float()
        sums = torch.cat([x_BCHW.sum((0, 2, 3)), x_BCHW.new_full((1,), float(x_BCHW[:, 0].numel()))])
        sums = all_reduce(sums)
        count = sums[-1].detach()
        mean_C = sums[:-1] / count
        # The deviations are summed in a second round: a mean of squares minus a squared mean loses digits.
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
    """Turn every BatchNorm2d of ``network`` into a `SyncBatchNorm2d`, in place and with its values.

    Only the class changes: parameters, buffers and hooks stay the objects they were.
    """
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SyncBatchNorm2d


def average_statistics(network: nn.Module, runtime: Runtime) -> None:
    """Average every rank's running statistics of BatchNorm over ranks, in place; one reduction for all of them.

    Running statistics are linear in the batches' own, so it does not matter when, or how often, this is done.
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
