"""Maximum likelihood for a base that has a density."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor, nn

from gebm.trainer.real_data import RealBatch
from gebm.trainer.strategies.optimizer import NetworkOptimizer
from gebm.trainer.workers import Workers


class LikelihoodStep(NamedTuple):
    """What a step of maximum likelihood saw; 0-dim, over the global batch."""

    negative_log_likelihood: Tensor
    """`-mean log q(x)`, in nats for a whole point."""
    gradient_norm: Tensor
    """Before clipping."""


def likelihood_step(
    base: nn.Module,
    optimizer: NetworkOptimizer,
    workers: Workers,
    real: RealBatch,
) -> LikelihoodStep:
    """Lower `-mean log q(x)` over the global batch by one step; `real` are this worker's rows."""
    count = len(real.images) * workers.world
    optimizer.zero_grad()
    log_density: Callable[..., Tensor] = base.log_density  # type: ignore[assignment]
    values = log_density(real.images) if real.labels is None else log_density(real.images, real.labels)
    loss = -values.sum() / count
    optimizer.backward(loss)
    total = loss.detach().clone()
    norm = optimizer.step(total)
    return LikelihoodStep(total, norm)
