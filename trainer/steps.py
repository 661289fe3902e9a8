"""One energy step and one base step: the arithmetic of training (MATH: paper's algorithm 1).

Each is exact over the global batch whatever the number of workers: see `workers`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gebm.trainer.gradients import condition_gradients
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
    gradient_norm: Tensor  # before clipping


class ChainImages(NamedTuple):
    """What this worker's rows of the chains show: images `(n, ...)`, and labels `(n,)` of a conditional model.

    penalised: `(n,)` bool, the rows whose gradient penalty is taken towards the chain's image instead of the prior
    draw's: every other one of the global batch.
    """

    images: Tensor
    labels: Tensor | None
    penalised: Tensor

    def replace_penalised(self, fake: Tensor, fake_labels: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """`fake` and its labels with the chains' in the rows `penalised`."""
        labels = fake_labels
        if self.labels is not None and fake_labels is not None:
            labels = torch.where(self.penalised, self.labels, fake_labels)
        return torch.where(self.penalised.view(-1, *[1] * (fake.dim() - 1)), self.images, fake), labels


class BaseStep(NamedTuple):
    """What a base step saw; 0-dim tensors over the global batch."""

    loss: Tensor
    gradient_norm: Tensor  # before clipping


def read_critic(energy: nn.Module, objective: Objective, points: Tensor, labels: Tensor | None) -> Tensor:
    """What `objective` reads at `points`: energies `(n,)`, or features `(n, d)` of the energy network."""
    network: Callable[..., Tensor] = energy.features if objective.reads == "features" else energy  # type: ignore[assignment]
    return network(points) if labels is None else network(points, labels)


def batch_energies(objective: Objective, on_real: Tensor, on_fake: Tensor) -> tuple[Tensor, Tensor]:
    """Energies `(n,)` of real and of generated points, given all that the critic says of the global batch."""
    return (on_real, on_fake) if objective.energies_of_batch is None else objective.energies_of_batch(on_real, on_fake)


def energies(objective: Objective, reading: Tensor, on_real: Tensor, on_fake: Tensor) -> Tensor:
    """Energies `(n,)` of other points, of which the critic says `reading`, given what it says of the batch."""
    if objective.energy_of_features is None:
        return reading
    return objective.energy_of_features(reading.to(on_real.dtype), on_real, on_fake)


def concatenated(labels: list[Tensor | None]) -> Tensor | None:
    """The labels of concatenated points; None where the model is not conditional."""
    given = [each for each in labels if each is not None]
    return torch.cat(given) if given else None


def gradient_penalties(objective: Objective, energy_at: Tensor, points: Tensor) -> Tensor:
    """Penalty of `grad_x E` at each of `points` `(n, ...)`, `(n,)`, differentiable in the weights.

    `energy_at` `(n,)` are the energies there, each a function of its own point. `||grad E||^2`, or
    `(||grad E|| - 1)^2` for an objective whose penalty is one-centred.
    """
    (gradient,) = torch.autograd.grad(energy_at.sum(), points, create_graph=True)
    if objective.penalty == "one_centred":
        return (torch.linalg.vector_norm(gradient.flatten(1), dim=1) - 1.0).square()
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
    log_partition: Tensor | None,
    gradient_penalty: float,
    log_partition_rate: float,
    level_penalty: float = 0.0,
    real_labels: Tensor | None = None,
    fake_labels: Tensor | None = None,
    chain: ChainImages | None = None,
    clip_norm: float | None = None,
    transform_gradients: bool = False,
) -> EnergyStep:
    """Lower the critic's loss plus `gradient_penalty` times the mean penalty at `a x + (1 - a) y` by one step.

    `real` and `fake` `(n, ...)` are this worker's rows, `mixing` `(n,)` its `a`, `real_labels` and `fake_labels`
    `(n,)` the classes where the network is conditional; a mixture has the class of its nearer end. The
    log-partition is moved first (a damped Newton step), so that the loss is taken at the better `c`;
    without one (None), it starts at the batch's `lme(-E(y))`. With `chain`, this worker's rows of the chains, the
    loss is the objective's `critic_loss_with_chains`; `c` and the figures returned are of `fake` all the same.
    `level_penalty * (mean E(y))^2` is added where a constant in `E` changes nothing: without it Adam lets it drift.
    The summed gradients are transformed and clipped as `condition_gradients` says.
    """
    count = len(real) * workers.world
    optimizer.zero_grad(set_to_none=True)
    points, labels = [real, fake], [real_labels, fake_labels]
    if chain is not None:
        points, labels = [*points, chain.images], [*labels, chain.labels]
    local = read_critic(energy, objective, torch.cat(points), concatenated(labels))
    # (global batch, 2 or 3, ...): one collective
    gathered = workers.gather(local.unflatten(0, (len(points), -1)).transpose(0, 1))
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

    total = torch.zeros((), dtype=gathered.dtype, device=real.device)
    penalty = total.clone()
    if gradient_penalty:
        end, end_labels = (fake, fake_labels) if chain is None else chain.replace_penalised(fake, fake_labels)
        a = mixing.view(-1, *[1] * (real.dim() - 1))
        between = (a * real + (1.0 - a) * end).detach().requires_grad_()
        nearer = None
        if real_labels is not None and end_labels is not None:
            nearer = torch.where(mixing >= 0.5, real_labels, end_labels)
        reading = read_critic(energy, objective, between, nearer)
        summed = gradient_penalties(objective, energies(objective, reading, on_real, on_fake), between).sum()
        total = gradient_penalty / count * summed
        penalty = summed.detach() / count
        if objective.reads == "features":
            # The energy anywhere depends on the features of the whole batch, those of other workers too.
            more = torch.stack(torch.autograd.grad(total, [on_real, on_fake], retain_graph=True))
            pulls = tuple(pull + part for pull, part in zip(pulls, workers.sum(more), strict=True))
    total = total + (local * torch.cat([workers.own(pull) for pull in pulls]).to(local.dtype)).sum()
    total.backward()
    workers.sum_gradients(energy.parameters(), penalty)
    norm = condition_gradients(energy.parameters(), clip_norm=clip_norm, transform=transform_gradients)
    optimizer.step()
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
    optimizer: Optimizer,
    objective: Objective,
    workers: Workers,
    latent: Tensor,
    *,
    labels: Tensor | None = None,
    real: Tensor | None = None,
    real_labels: Tensor | None = None,
    clip_norm: float | None = None,
    transform_gradients: bool = False,
) -> BaseStep:
    """Lower the base's loss by one step on this worker's rows of `latent` `(n, p)`.

    `labels` `(n,)` are the classes to generate where the networks are conditional, `real` `(n, ...)` and
    `real_labels` this worker's real rows, for an objective that needs them. The energy's weights take no gradient:
    the graph is cut at the images. The summed gradients are transformed and clipped as `condition_gradients` says.
    """
    optimizer.zero_grad(set_to_none=True)
    images = base(latent) if labels is None else base(latent, labels)
    energy.requires_grad_(False)
    on_real = None
    if objective.needs_real_for_base:
        if real is None:
            raise TypeError("this objective's base loss compares with real images: give base_step real=")
        with torch.no_grad():
            on_real = workers.gather(read_critic(energy, objective, real, real_labels))
            on_real = on_real.to(torch.promote_types(on_real.dtype, torch.float32))
    at_images = images.detach().requires_grad_()
    local = read_critic(energy, objective, at_images, labels)
    gathered = workers.gather(local)
    gathered = gathered.to(torch.promote_types(gathered.dtype, torch.float32)).clone().requires_grad_()
    loss = objective.base_loss(gathered, on_real)
    (towards,) = torch.autograd.grad(loss, gathered)
    (pull,) = torch.autograd.grad(local, at_images, grad_outputs=workers.own(towards).to(local.dtype))
    energy.requires_grad_(True)
    images.backward(pull)
    workers.sum_gradients(base.parameters())
    norm = condition_gradients(base.parameters(), clip_norm=clip_norm, transform=transform_gradients)
    optimizer.step()
    return BaseStep(loss.detach(), norm)
