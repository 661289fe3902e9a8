"""Maximum likelihood for a base that has a density."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor, nn
from torch.optim import Optimizer

from gebm.trainer.gradients import condition_gradients
from gebm.trainer.real_data import RealBatch
from gebm.trainer.workers import Workers


class LikelihoodStep(NamedTuple):
    """What a step of maximum likelihood saw; 0-dim, over the global batch."""

    negative_log_likelihood: Tensor
    """`-mean log q(x)`, in nats for a whole point."""
    gradient_norm: Tensor
    """Before clipping."""


def likelihood_step(
    base: nn.Module,
    optimizer: Optimizer,
    workers: Workers,
    real: RealBatch,
    *,
    clip_norm: float | None = None,
    transform_gradients: bool = False,
) -> LikelihoodStep:
    """Lower `-mean log q(x)` over the global batch by one step; `real` are this worker's rows.

    The summed gradients are transformed and clipped as `condition_gradients` says.
    """
    count = len(real.images) * workers.world
    optimizer.zero_grad(set_to_none=True)
    log_density: Callable[..., Tensor] = base.log_density  # type: ignore[assignment]
    values = log_density(real.images) if real.labels is None else log_density(real.images, real.labels)
    loss = -values.sum() / count
    loss.backward()
    total = loss.detach().clone()
    workers.sum_gradients(base.parameters(), total)
    norm = condition_gradients(base.parameters(), clip_norm=clip_norm, transform=transform_gradients)
    optimizer.step()
    return LikelihoodStep(total, norm)
