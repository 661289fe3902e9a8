"""One energy step and one base step: the arithmetic of training (MATH: paper's algorithm 1).

Each is exact over the global batch whatever the number of workers: see `workers`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gebm.trainer.objectives.kale import log_mean_exp, next_log_partition
from gebm.trainer.objectives.table import Objective
from gebm.trainer.workers import Workers


class EnergyStep(NamedTuple):
    """What an energy step saw; 0-dim tensors over the global batch, `log_partition` the new one."""

    critic_loss: Tensor
    energy_real: Tensor
    energy_fake: Tensor
    penalty: Tensor
    log_partition: Tensor
    log_mean_exp: Tensor


def squared_gradient_norms(energy: nn.Module, points: Tensor) -> Tensor:
    """`||grad_x E(x)||^2` at `points` `(n, channels, height, width)`, `(n,)`, differentiable in the weights."""
    points = points.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(energy(points).sum(), points, create_graph=True)
    return gradient.square().flatten(1).sum(1)


def energy_step(
    energy: nn.Module,
    optimizer: Optimizer,
    objective: Objective,
    workers: Workers,
    *,
    real: Tensor,
    fake: Tensor,
    mixing: Tensor,
    log_partition: Tensor,
    gradient_penalty: float,
    log_partition_rate: float,
    level_penalty: float = 0.0,
) -> EnergyStep:
    """Lower the critic's loss plus `gradient_penalty * mean ||grad E(a x + (1 - a) y)||^2` by one step.

    `real` and `fake` `(n, channels, height, width)` are this worker's rows, `mixing` `(n,)` its `a`. The
    log-partition is moved first (a damped Newton step), so that the loss is taken at the better `c`.
    `level_penalty * (mean E(y))^2` is added: a constant in `E` changes nothing, and without it Adam lets it drift.
    """
    count = len(real) * workers.world
    optimizer.zero_grad(set_to_none=True)
    local = energy(torch.cat([real, fake]))
    gathered = workers.gather(local.view(2, -1).t())  # (global batch, 2): one collective for both
    on_real, on_fake = gathered.t().detach().clone().requires_grad_().unbind()
    log_partition = next_log_partition(log_partition, on_fake.detach(), log_partition_rate)
    loss = objective.critic_loss(on_real, on_fake, log_partition.to(on_real.dtype))
    level = level_penalty * on_fake.mean().square()
    towards_real, towards_fake = torch.autograd.grad(loss + level, [on_real, on_fake])

    total = (local * torch.cat([workers.own(towards_real), workers.own(towards_fake)])).sum()
    penalty = torch.zeros((), dtype=real.dtype, device=real.device)
    if gradient_penalty:
        a = mixing.view(-1, 1, 1, 1)
        norms = squared_gradient_norms(energy, a * real + (1.0 - a) * fake)
        total = total + gradient_penalty * norms.sum() / count
        penalty = norms.detach().sum() / count
    total.backward()
    workers.sum_gradients(energy.parameters(), penalty)
    optimizer.step()
    on_real, on_fake = on_real.detach(), on_fake.detach()
    return EnergyStep(loss.detach(), on_real.mean(), on_fake.mean(), penalty, log_partition, log_mean_exp(-on_fake))


def base_step(
    base: nn.Module,
    energy: nn.Module,
    optimizer: Optimizer,
    objective: Objective,
    workers: Workers,
    latent: Tensor,
) -> Tensor:
    """Lower the base's loss by one step on this worker's rows of `latent` `(n, p)`; return the global loss.

    The energy's weights take no gradient: the graph is cut at the images.
    """
    optimizer.zero_grad(set_to_none=True)
    images = base(latent)
    energy.requires_grad_(False)
    at_images = images.detach().requires_grad_()
    local = energy(at_images)
    gathered = workers.gather(local).clone().requires_grad_()
    loss = objective.base_loss(gathered)
    (towards,) = torch.autograd.grad(loss, gathered)
    (pull,) = torch.autograd.grad(local, at_images, grad_outputs=workers.own(towards))
    energy.requires_grad_(True)
    images.backward(pull)
    workers.sum_gradients(base.parameters())
    optimizer.step()
    return loss.detach()
