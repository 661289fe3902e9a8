"""The two phases of training, round by round.

Joint: a few energy steps, then one base step. Energy: one energy step on the frozen averaged generator, because
an energy and its log-partition belong to the generator that they were fitted to (and that is exported with them).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from gebm.cluster.randomness import derive_seed
from gebm.trainer.averaging import averaged_copy, move_average
from gebm.trainer.batch_norm import recompute_statistics
from gebm.trainer.objectives.kale import log_mean_exp
from gebm.trainer.objectives.table import OBJECTIVES
from gebm.trainer.settings import JointPhase, TrainerSettings
from gebm.trainer.state import TrainingState, adam
from gebm.trainer.steps import BaseStep, EnergyStep, base_step, energy_step
from gebm.trainer.workers import Workers

RealBatch = Callable[[int], Tensor]  # number of the energy step -> this worker's rows, floats in [-1, 1]


class GlobalNoise:
    """Draws for the global batch, of which a worker keeps its rows: the same noise for any number of workers."""

    def __init__(self, seed: int, batch_size: int, rows: Tensor, device: torch.device, dtype: torch.dtype):
        self.seed, self.batch_size, self.rows = seed, batch_size, rows
        self.device, self.dtype = device, dtype

    def _generator(self, stage: str, step: int) -> torch.Generator:
        return torch.Generator().manual_seed(derive_seed(self.seed, stage, step))

    def normal(self, stage: str, step: int, dimension: int) -> Tensor:
        """This worker's rows of `(batch_size, dimension)` standard normals."""
        draws = torch.randn(self.batch_size, dimension, generator=self._generator(stage, step))
        return draws[self.rows].to(self.device, self.dtype)

    def uniform(self, stage: str, step: int) -> Tensor:
        """This worker's rows of `(batch_size,)` uniforms on [0, 1)."""
        draws = torch.rand(self.batch_size, generator=self._generator(stage, step))
        return draws[self.rows].to(self.device, self.dtype)


def energy_steps_of_round(round_number: int, joint: JointPhase) -> int:
    """Energy steps before base step `round_number`: more at the start and at every multiple of `warmup_every`."""
    again = joint.warmup_every and round_number % joint.warmup_every == 0
    if round_number < joint.warmup_steps or again:
        return joint.warmup_energy_steps
    return joint.energy_steps


def prior_draws(state: TrainingState, seed: int, stage: str, count: int) -> Tensor:
    """`(count, p)` prior draws that depend on the seed and the stage only."""
    generator = torch.Generator().manual_seed(derive_seed(seed, stage, 0))
    draws = torch.randn(count, state.model.latent_dimension, generator=generator)
    return draws.to(state.log_partition.device, next(state.model.base.parameters()).dtype)


def _energy_step(
    state: TrainingState,
    settings: TrainerSettings,
    workers: Workers,
    noise: GlobalNoise,
    real_batch: RealBatch,
    gradient_penalty: float,
) -> EnergyStep:
    step = state.energy_steps
    state.model.base.eval()
    latent = noise.normal("energy-latent", step, state.model.latent_dimension)
    with torch.no_grad():
        fake = state.model.generate(latent)
    result = energy_step(
        state.model.energy_network.train(),
        state.energy_optimizer,
        OBJECTIVES[settings.objective],
        workers,
        real=real_batch(step),
        fake=fake,
        mixing=noise.uniform("penalty", step),
        # c starts where the untrained energy puts it, not at an arbitrary 0.
        log_partition=state.log_partition if step else None,
        gradient_penalty=gradient_penalty,
        log_partition_rate=settings.log_partition_rate,
        level_penalty=settings.level_penalty,
    )
    state.log_partition = result.log_partition
    state.energy_steps += 1
    return result


def joint_round(
    state: TrainingState,
    settings: TrainerSettings,
    workers: Workers,
    noise: GlobalNoise,
    real_batch: RealBatch,
) -> tuple[EnergyStep, BaseStep]:
    """Energy steps, one base step, one move of the generator's average.

    Returns what the last energy step and the base step saw.
    """
    joint = settings.joint
    decay = joint.decay_factor ** (state.round // joint.decay_every)
    set_learning_rate(state.energy_optimizer, joint.energy_learning_rate * decay)
    set_learning_rate(state.base_optimizer, joint.base_learning_rate * decay)
    for _ in range(energy_steps_of_round(state.round, joint)):
        result = _energy_step(state, settings, workers, noise, real_batch, joint.gradient_penalty)
    latent = noise.normal("base-latent", state.round, state.model.latent_dimension)
    objective = OBJECTIVES[settings.objective]
    seen = base_step(
        state.model.base.train(),
        state.model.energy_network.eval(),
        state.base_optimizer,
        objective,
        workers,
        latent,
        # Of the energy step to come: images that this energy has not just been fitted to.
        real=real_batch(state.energy_steps) if objective.needs_real_for_base else None,
    )
    move_average(state.base_average, state.model.base, joint.base_average)
    state.round += 1
    return result, seen


def enter_energy_phase(state: TrainingState, settings: TrainerSettings, seed: int) -> None:
    """Freeze the averaged generator, with statistics of its own, and start the energy's optimiser and `c` afresh."""
    base = state.model.base
    base.load_state_dict(state.base_average.state_dict())
    base.requires_grad_(False)
    latents = prior_draws(state, seed, "batch-norm", max(settings.batch_norm_draws, settings.batch_size))
    recompute_statistics(base, latents, settings.batch_size)
    base.eval()
    state.base_average.load_state_dict(base.state_dict())
    state.energy_average = averaged_copy(state.model.energy_network)
    state.energy_optimizer = adam(state.model.energy_network, settings.energy.learning_rate, settings)
    state.log_partition, _ = monte_carlo_log_partition(
        state,
        state.model.energy_network,
        prior_draws(state, seed, "energy-phase", settings.batch_norm_draws),
        settings,
    )
    state.phase = "energy"


def energy_round(
    state: TrainingState,
    settings: TrainerSettings,
    workers: Workers,
    noise: GlobalNoise,
    real_batch: RealBatch,
) -> EnergyStep:
    """One energy step at a rate that falls linearly to 0, and one move of the energy's average."""
    phase = settings.energy
    done = state.round - settings.joint.steps
    set_learning_rate(state.energy_optimizer, phase.learning_rate * (1.0 - done / phase.steps))
    result = _energy_step(state, settings, workers, noise, real_batch, phase.gradient_penalty)
    move_average(state.energy_average, state.model.energy_network, phase.energy_average)
    state.round += 1
    return result


@torch.no_grad()
def monte_carlo_log_partition(
    state: TrainingState, energy: nn.Module, latents: Tensor, settings: TrainerSettings
) -> tuple[Tensor, Tensor]:
    """`c = log mean exp(-E(B(z)))` over `latents` `(n, p)` and its standard error (delta method), float64."""
    with evaluation_mode(state.model.base), evaluation_mode(energy):
        chunks = [energy(state.model.generate(z)) for z in latents.split(max(settings.batch_size, 256))]
    minus_energy = -torch.cat(chunks).double()
    log_partition = log_mean_exp(minus_energy)
    weights = torch.exp(minus_energy - log_partition)
    return log_partition, weights.std() / len(weights) ** 0.5


@contextmanager
def evaluation_mode(network: nn.Module) -> Iterator[None]:
    was_training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(was_training)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate
