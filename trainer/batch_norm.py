"""Batch normalisation whose batch is the global one.

`torch.nn.SyncBatchNorm` refuses CPU tensors; this one runs wherever `torch.distributed` does, and differentiates
through the sums, so that two workers with 32 images compute what one computes with 64.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


class _SumOverWorkers(torch.autograd.Function):
    """All-reduce by sum. Every worker's loss is one term of the global loss, so gradients are summed too."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.contiguous().clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total


class GlobalBatchNorm2d(nn.BatchNorm2d):
    """`BatchNorm2d` over the batches of all workers together (equal local batches)."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        count = input.numel() // input.shape[1] * dist.get_world_size()
        mean = _SumOverWorkers.apply(input.sum((0, 2, 3))) / count
        centred = input - mean[:, None, None]
        # Centred squares, at the price of a second small all-reduce: E[x^2] - E[x]^2 cancels in float32.
        variance = _SumOverWorkers.apply(centred.square().sum((0, 2, 3))) / count
        scale = self.weight * torch.rsqrt(variance + self.eps)
        with torch.no_grad():
            momentum = self.momentum or 0.0
            assert self.running_mean is not None and self.running_var is not None
            self.running_mean.lerp_(mean, momentum)
            self.running_var.lerp_(variance * (count / (count - 1)), momentum)
            if self.num_batches_tracked is not None:
                self.num_batches_tracked.add_(1)
        return centred * scale[:, None, None] + self.bias[:, None, None]


def use_global_batch(network: nn.Module) -> None:
    """Turn every `BatchNorm2d` of `network` into a global one, in place, when there are several workers."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = GlobalBatchNorm2d


@torch.no_grad()
def recompute_statistics(base: nn.Module, latents: Tensor, batch_size: int) -> None:
    """Set the running statistics of `base` to their means over `latents` `(n, p)`, taken in batches.

    An averaged generator has weights that no batch was ever run through: its statistics are computed afresh.
    Every worker does the same on the same latents.
    """
    norms = [module for module in base.modules() if isinstance(module, nn.BatchNorm2d)]
    types, momenta = [type(norm) for norm in norms], [norm.momentum for norm in norms]
    for norm in norms:
        norm.__class__ = nn.BatchNorm2d
        norm.reset_running_stats()
        norm.momentum = None  # cumulative mean
    was_training = base.training
    base.train()
    for chunk in latents.split(batch_size):
        if len(chunk) == batch_size:
            base(chunk)
    base.train(was_training)
    for norm, kind, momentum in zip(norms, types, momenta, strict=True):
        norm.__class__ = kind
        norm.momentum = momentum
