"""One energy step and one base step: the arithmetic of training (MATH: paper's algorithm 1).

Each is exact over the global batch whatever the number of workers: see `workers`. A worker's rows go through the
networks at once or, to need less memory, in micro-batches: then once without a graph, for what the loss is a function
of, and once more with one. The energy step stays exact; in a base step, batch norms see the micro-batch.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from gebm.trainer.batch_norm import running_statistics_kept
from gebm.trainer.critic import (
    ChainImages,
    EnergyPoints,
    batch_energies,
    by_row,
    energies,
    gradient_penalties,
    micro_batches,
    read_critic,
    read_kinds,
)
from gebm.trainer.objectives.kale import log_mean_exp, next_log_partition
from gebm.trainer.objectives.table import Objective
from gebm.trainer.spectral_norm import advance_spectral_norms, weights_held
from gebm.trainer.speed import uncompiled
from gebm.trainer.strategies.optimizer import NetworkOptimizer
from gebm.trainer.workers import Workers


class EnergyStep(NamedTuple):
    """What an energy step saw; 0-dim tensors over the global batch, `log_partition` the new one."""

    critic_loss: Tensor
    energy_real: Tensor
    energy_fake: Tensor
    penalty: Tensor
    log_partition: Tensor
    log_mean_exp: Tensor
    gradient_norm: Tensor  # before clipping


class BaseStep(NamedTuple):
    """What a base step saw; 0-dim tensors over the global batch."""

    loss: Tensor
    gradient_norm: Tensor  # before clipping


def energy_step(
    energy: nn.Module,
    optimizer: NetworkOptimizer,
    objective: Objective,
    workers: Workers,
    *,
    real: Tensor,
    fake: Tensor,
    mixing: Tensor,
    log_partition: Tensor | None,
    gradient_penalty: float,
    log_partition_rate: float,
    level_penalty: float = 0.0,
    real_labels: Tensor | None = None,
    fake_labels: Tensor | None = None,
    chain: ChainImages | None = None,
    micro_batch: int | None = None,
) -> EnergyStep:
    """Lower the critic's loss plus `gradient_penalty` times the mean penalty at `a x + (1 - a) y` by one step.

    `real` and `fake` `(n, ...)` are this worker's rows, `mixing` `(n,)` its `a`, `real_labels` and `fake_labels`
    `(n,)` the classes where the network is conditional; a mixture has the class of its nearer end. The
    log-partition is moved first (a damped Newton step), so that the loss is taken at the better `c`;
    without one (None), it starts at the batch's `lme(-E(y))`. With `chain`, this worker's rows of the chains, the
    loss is the objective's `critic_loss_with_chains`; `c` and the figures returned are of `fake` all the same.
    `level_penalty * (mean E(y))^2` is added where a constant in `E` changes nothing: without it Adam lets it drift.
    `micro_batch`: rows of each kind that go through the network at once.
    """
    count = len(real) * workers.world
    optimizer.zero_grad()
    advance_spectral_norms(energy)
    points = EnergyPoints.of(real, fake, mixing, real_labels, fake_labels, chain)
    kinds, pieces = len(points.kinds), micro_batches(len(real), micro_batch)
    # One computation of each normalised weight serves the values and the penalty, where one pass brings both home.
    with weights_held(energy, once=len(pieces) == 1):
        with torch.set_grad_enabled(len(pieces) == 1), workers.autocast():
            readings = [read_kinds(energy, objective, points.of_rows(rows)) for rows in pieces]
        # (global batch, 2 or 3, ...): one collective
        gathered = workers.gather(torch.cat([by_row(reading, kinds) for reading in readings]))
        # Sums over the batch in half precision would lose what the losses are about.
        gathered = gathered.to(torch.promote_types(gathered.dtype, torch.float32))
        on_real, on_fake, *on_chain = gathered.unbind(1)
        energy_real, energy_fake = batch_energies(objective, on_real, on_fake)
        seen = [reading.clone().requires_grad_() for reading in (on_real, on_fake, *on_chain)]
        on_real, on_fake, *on_chain = seen
        if log_partition is None:
            log_partition = log_mean_exp(-energy_fake.double())
        log_partition = next_log_partition(log_partition, energy_fake, log_partition_rate)
        c = log_partition.to(on_real.dtype)
        if not on_chain:
            loss = objective.critic_loss(on_real, on_fake, c)
        elif objective.critic_loss_with_chains is not None:
            loss = objective.critic_loss_with_chains(on_real, on_fake, on_chain[0], c)
        else:
            raise TypeError("this objective cannot learn from chains: give energy_step no chain=")
        level = level_penalty * on_fake.mean().square() if objective.constant_is_free else 0.0
        pulls = torch.autograd.grad(loss + level, seen)

        penalty = torch.zeros((), dtype=gathered.dtype, device=real.device)
        for rows in pieces:
            total = torch.zeros_like(penalty)
            if gradient_penalty:
                between = points.between[rows].detach().requires_grad_()
                labels = None if points.between_labels is None else points.between_labels[rows]
                with workers.autocast(), uncompiled():
                    reading = read_critic(energy, objective, between, labels)
                    summed = gradient_penalties(
                        objective, energies(objective, reading, on_real, on_fake), between
                    ).sum()
                total = gradient_penalty / count * summed
                penalty = penalty + summed.detach() / count
                if objective.reads == "features":
                    # The energy anywhere depends on the features of the whole batch, those of other workers too.
                    if len(pieces) > 1:
                        raise TypeError(
                            "this objective's penalty needs the whole batch: give energy_step no micro_batch="
                        )
                    more = torch.stack(torch.autograd.grad(total, [on_real, on_fake], retain_graph=True))
                    pulls = tuple(pull + part for pull, part in zip(pulls, workers.sum(more), strict=True))
            if len(pieces) == 1:
                local = readings[0]
            else:
                with workers.autocast():
                    local = read_kinds(energy, objective, points.of_rows(rows))
            pull = torch.cat([workers.own(each)[rows] for each in pulls])
            optimizer.backward(total + (local * pull.to(local.dtype)).sum())
    norm = optimizer.step(penalty)
    return EnergyStep(
        critic_loss=loss.detach(),
        energy_real=energy_real.mean(),
        energy_fake=energy_fake.mean(),
        penalty=penalty,
        log_partition=log_partition,
        log_mean_exp=log_mean_exp(-energy_fake),
        gradient_norm=norm,
    )


def base_step(
    base: nn.Module,
    energy: nn.Module,
    optimizer: NetworkOptimizer,
    objective: Objective,
    workers: Workers,
    latent: Tensor,
    *,
    labels: Tensor | None = None,
    real: Tensor | None = None,
    real_labels: Tensor | None = None,
    micro_batch: int | None = None,
) -> BaseStep:
    """Lower the base's loss by one step on this worker's rows of `latent` `(n, p)`.

    `labels` `(n,)` are the classes to generate where the networks are conditional, `real` `(n, ...)` and
    `real_labels` this worker's real rows, for an objective that needs them. The energy's weights take no gradient:
    the graph is cut at the images. `micro_batch`: rows that go through the networks at once, and that batch norms
    take their statistics of.
    """
    optimizer.zero_grad()
    energy.requires_grad_(False)
    pieces = micro_batches(len(latent), micro_batch)

    def generate(rows: slice) -> Tensor:
        with workers.autocast():
            return base(latent[rows]) if labels is None else base(latent[rows], labels[rows])

    def read(images: Tensor, rows: slice) -> Tensor:
        with workers.autocast():
            return read_critic(energy, objective, images, None if labels is None else labels[rows])

    on_real = None
    if objective.needs_real_for_base:
        if real is None:
            raise TypeError("this objective's base loss compares with real images: give base_step real=")
        with torch.no_grad(), workers.autocast():
            on_real = workers.gather(read_critic(energy, objective, real, real_labels))
        on_real = on_real.to(torch.promote_types(on_real.dtype, torch.float32))
    if len(pieces) == 1:
        images = generate(pieces[0])
        at_images = images.detach().requires_grad_()
        local = read(at_images, pieces[0])
    else:
        with torch.no_grad(), running_statistics_kept(base):
            local = torch.cat([read(generate(rows), rows) for rows in pieces])
    gathered = workers.gather(local)
    gathered = gathered.to(torch.promote_types(gathered.dtype, torch.float32)).clone().requires_grad_()
    loss = objective.base_loss(gathered, on_real)
    (towards,) = torch.autograd.grad(loss, gathered)
    towards = workers.own(towards).to(local.dtype)
    for rows in pieces:
        if len(pieces) > 1:
            images = generate(rows)
            at_images = images.detach().requires_grad_()
            local = read(at_images, rows)
        (pull,) = torch.autograd.grad(local, at_images, grad_outputs=towards[rows])
        optimizer.backward((images * pull).sum())
    energy.requires_grad_(True)
    norm = optimizer.step()
    return BaseStep(loss.detach(), norm)
