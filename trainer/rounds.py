"""One round of each phase of training.

Base: one step of maximum likelihood. Joint: a few energy steps, then one base step. Energy: one energy step on the
frozen averaged generator, whose images may be joined by those of chains.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gebm.trainer.averaging import move_average
from gebm.trainer.chains import ChainImages, advance_chains
from gebm.trainer.learning_rates import set_learning_rates
from gebm.trainer.likelihood import likelihood_step
from gebm.trainer.log_partition import apply_network
from gebm.trainer.model.prior import from_normal
from gebm.trainer.noise import GlobalNoise
from gebm.trainer.objectives.table import OBJECTIVES
from gebm.trainer.phases import first_round
from gebm.trainer.real_data import RealData
from gebm.trainer.settings import JointPhase, TrainerSettings
from gebm.trainer.state import TrainingState
from gebm.trainer.steps import EnergyStep, base_step, energy_step
from gebm.trainer.strategies.strategy import Role
from gebm.trainer.workers import Workers

Values = dict[str, float]


def energy_steps_of_round(step: int, joint: JointPhase) -> int:
    """Energy steps before base step `step` of the phase: more at the start and at every multiple of `warmup_every`."""
    again = joint.warmup_every and step % joint.warmup_every == 0
    if step < joint.warmup_steps or again:
        return joint.warmup_energy_steps
    return joint.energy_steps


def base_round(
    state: TrainingState, settings: TrainerSettings, workers: Workers, noise: GlobalNoise, real_data: RealData
) -> Values:
    """One step of maximum likelihood, and one move of the base's average."""
    set_learning_rates(state, settings)
    result = likelihood_step(
        state.model.base.train(),
        state.optimizers["base"],
        workers,
        real_data(state.batches),
    )
    _move_average(state, "base", settings.base.base_average)
    state.batches += 1
    state.round += 1
    return {
        "negative_log_likelihood": float(result.negative_log_likelihood),
        "base_gradient_norm": float(result.gradient_norm),
    }


def joint_round(
    state: TrainingState, settings: TrainerSettings, workers: Workers, noise: GlobalNoise, real_data: RealData
) -> Values:
    """Energy steps, one base step, one move of the generator's average.

    Returns what the last energy step saw, and the base's loss.
    """
    joint = settings.joint
    step = state.round - first_round("joint", settings)
    set_learning_rates(state, settings)
    for _ in range(energy_steps_of_round(step, joint)):
        result = _energy_step(state, settings, workers, noise, real_data)
    objective = OBJECTIVES[settings.objective]
    # Of the energy step to come: images that this energy has not just been fitted to.
    real = real_data(state.batches) if objective.needs_real_for_base else None
    seen = base_step(
        state.model.base.train(),
        state.model.energy_network.eval(),
        state.optimizers["base"],
        objective,
        workers,
        _latents(state, noise, "base-latent", step),
        labels=noise.labels("base-labels", step, state.model.classes),
        real=real.images if real else None,
        real_labels=real.labels if real else None,
        micro_batch=settings.micro_batch,
    )
    _move_average(state, "base", joint.base_average)
    state.round += 1
    return {**_as_values(result), "base_loss": float(seen.loss), "base_gradient_norm": float(seen.gradient_norm)}


def energy_round(
    state: TrainingState, settings: TrainerSettings, workers: Workers, noise: GlobalNoise, real_data: RealData
) -> Values:
    """One energy step, and one move of the energy's average."""
    phase = settings.energy
    set_learning_rates(state, settings)
    chain = advance_chains(state, settings, workers, noise)
    result = _energy_step(state, settings, workers, noise, real_data, chain)
    _move_average(state, "energy", phase.energy_average)
    state.round += 1
    return _as_values(result)


def _energy_step(
    state: TrainingState,
    settings: TrainerSettings,
    workers: Workers,
    noise: GlobalNoise,
    real_data: RealData,
    chain: ChainImages | None = None,
) -> EnergyStep:
    step = state.energy_steps
    state.model.base.eval()
    latent = _latents(state, noise, "energy-latent", step)
    labels = noise.labels("energy-labels", step, state.model.classes)
    with torch.no_grad(), workers.autocast():
        fake = apply_network(state.model.base, latent, labels)
    fake = fake.to(state.dtype)
    real = real_data(state.batches)
    result = energy_step(
        state.model.energy_network,
        state.optimizers["energy"],
        OBJECTIVES[settings.objective],
        workers,
        real=real.images,
        fake=fake,
        mixing=noise.uniform("penalty", step),
        log_partition=None if _log_partition_is_unknown(state, settings) else state.log_partition,
        gradient_penalty=settings.gradient_penalty("joint" if state.phase == "joint" else "energy"),
        log_partition_rate=settings.log_partition_rate,
        level_penalty=settings.level_penalty,
        real_labels=real.labels,
        fake_labels=labels,
        chain=chain,
        micro_batch=settings.micro_batch,
    )
    state.log_partition = result.log_partition
    state.energy_steps += 1
    state.batches += 1
    return result


def _latents(state: TrainingState, noise: GlobalNoise, stage: str, step: int) -> Tensor:
    """This worker's rows of a global batch of prior draws."""
    return from_normal(state.model.prior, noise.normal(stage, step, state.model.latent_dimension))


def _log_partition_is_unknown(state: TrainingState, settings: TrainerSettings) -> bool:
    """Whether `c` starts where this step's energies put it.

    Before any energy step, where it would be an arbitrary 0; and where the energy phase begins with an objective
    that reads features: its energy compares with real images, which entering the phase has none of.
    """
    if state.phase == "joint":
        return state.energy_steps == 0
    begins = state.round == first_round("energy", settings)
    return begins and OBJECTIVES[settings.objective].reads == "features"


def _move_average(state: TrainingState, role: Role, decay: float) -> None:
    with state.optimizers[role].whole():
        move_average(state.networks()[f"{role}_average"], state.networks()[role], decay)


def _as_values(step: EnergyStep) -> Values:
    values = {name: float(value) for name, value in step._asdict().items()}
    norm = values.pop("gradient_norm")
    return values | {"energy_gap": values["energy_fake"] - values["energy_real"], "energy_gradient_norm": norm}


ROUNDS = {"base": base_round, "joint": joint_round, "energy": energy_round}
