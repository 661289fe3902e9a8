"""Batch normalisation whose batch is the global one.

`torch.nn.SyncBatchNorm` refuses CPU tensors; this one runs wherever `torch.distributed` does, and differentiates
through the sums, so that two workers with 32 images compute what one computes with 64.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


class _Normalise(torch.autograd.Function):
    """`(x - mean) / sqrt(var + eps) * weight + bias` with the mean and variance of all workers' rows together.

    One collective of `2 C` numbers each way. Forward: local means and centred squares are gathered and merged
    [Chan, Golub, LeVeque 1979]; sums of squares would cancel in float32. Backward: every worker's loss is one term
    of the global loss, so the two sums of the batch-norm gradient are added up over workers.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:  # normalised, mean, variance
        # Statistics of half-precision activations are taken in float32, as torch's own batch norm does.
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        local_variance, local_mean = torch.var_mean(wide, _all_but_channels(x), correction=0)
        local = torch.stack([local_mean, local_variance])
        gathered = [torch.empty_like(local) for _ in range(dist.get_world_size())]
        dist.all_gather(gathered, local)
        means, variances = torch.stack(gathered, 1)
        mean = means.mean(0)
        variance = variances.mean(0) + (means - mean).square().mean(0)
        ctx.save_for_backward(x, weight, mean, torch.rsqrt(variance + eps))
        normalised = torch.batch_norm(x, weight, bias, mean, variance, False, 0.0, eps, False)
        ctx.mark_non_differentiable(mean, variance)
        return normalised, mean, variance

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: Any, gradient: Tensor, *_: Any
    ) -> tuple[Tensor, Tensor | None, Tensor | None, None]:
        x, weight, mean, inverse_deviation = ctx.saved_tensors
        kind = x.dtype
        x, gradient = (each.to(torch.promote_types(kind, torch.float32)) for each in (x, gradient))
        count = x.numel() // x.shape[1] * dist.get_world_size()
        rows, channels = _all_but_channels(x), (-1, *[1] * (x.dim() - 2))
        local = torch.stack([gradient.sum(rows), (gradient * (x - mean.view(channels))).sum(rows)])
        total = local.clone()
        dist.all_reduce(total)
        scale = inverse_deviation if weight is None else weight * inverse_deviation
        slope = -scale * inverse_deviation.square() * total[1] / count
        constant = -scale * total[0] / count - slope * mean
        at_x = torch.addcmul(constant.view(channels), x, slope.view(channels)).addcmul_(gradient, scale.view(channels))
        # Gradients of weight and bias stay this worker's part: all parameters' parts are summed together later.
        own = (None, None) if weight is None else (local[1] * inverse_deviation, local[0])
        return at_x.to(kind), *own, None


def _all_but_channels(x: Tensor) -> tuple[int, ...]:
    """The dimensions of `(n, channels, ...)` that a batch norm takes its means over."""
    return (0, *range(2, x.dim()))


class GlobalBatchNorm(nn.modules.batchnorm._BatchNorm):
    """A batch norm over the batches of all workers together (equal local batches)."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        normalised, mean, variance = _Normalise.apply(input, self.weight, self.bias, self.eps)
        count = input.numel() // input.shape[1] * dist.get_world_size()
        with torch.no_grad():
            momentum = self.momentum or 0.0
            assert self.running_mean is not None and self.running_var is not None
            self.running_mean.lerp_(mean, momentum)
            self.running_var.lerp_(variance * (count / (count - 1)), momentum)
            if self.num_batches_tracked is not None:
                self.num_batches_tracked.add_(1)
        return normalised


class GlobalBatchNorm1d(GlobalBatchNorm, nn.BatchNorm1d):
    """`BatchNorm1d` over all workers."""


class GlobalBatchNorm2d(GlobalBatchNorm, nn.BatchNorm2d):
    """`BatchNorm2d` over all workers."""


GLOBAL: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm1d: GlobalBatchNorm1d,
    nn.BatchNorm2d: GlobalBatchNorm2d,
}
LOCAL = {global_kind: kind for kind, global_kind in GLOBAL.items()}


@contextmanager
def running_statistics_kept(network: nn.Module) -> Iterator[None]:
    """Inside, forward passes in training mode leave the running statistics of `network` as they were."""
    buffers = [buffer for module in network.modules() if is_batch_norm(module) for buffer in module.buffers()]
    before = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in zip(buffers, before, strict=True):
                buffer.copy_(value)


def is_batch_norm(module: nn.Module) -> bool:
    """Whether `module` is a batch norm, of this worker's batch or of the global one."""
    return isinstance(module, nn.modules.batchnorm._BatchNorm)


def use_global_batch(network: nn.Module) -> None:
    """Turn every batch norm of `network` into a global one, in place, when there are several workers."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return
    for module in network.modules():
        module.__class__ = GLOBAL.get(type(module), type(module))


@torch.no_grad()
def recompute_statistics(base: nn.Module, latents: Tensor, batch_size: int, labels: Tensor | None = None) -> None:
    """Set the running statistics of `base` to their means over `latents` `(n, p)`, taken in batches.

    `labels` `(n,)` go with them where the base is conditional.

    An averaged generator has weights that no batch was ever run through: its statistics are computed afresh.
    Every worker does the same on the same latents.
    """
    norms = [module for module in base.modules() if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d))]
    types, momenta = [type(norm) for norm in norms], [norm.momentum for norm in norms]
    for norm in norms:
        norm.__class__ = LOCAL.get(type(norm), type(norm))  # type: ignore[assignment]
        norm.reset_running_stats()
        norm.momentum = None  # cumulative mean
    was_training = base.training
    base.train()
    inputs = (latents,) if labels is None else (latents, labels)
    for chunk in zip(*(each.split(batch_size) for each in inputs), strict=True):
        if len(chunk[0]) == batch_size:
            base(*chunk)
    base.train(was_training)
    for norm, kind, momentum in zip(norms, types, momenta, strict=True):
        norm.__class__ = kind
        norm.momentum = momentum
