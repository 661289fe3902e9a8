"""The learning rates of a phase: its schedules, what they remember, and what roll-backs left of them."""

from __future__ import annotations

from typing import NamedTuple

from gebm.trainer.phases import first_round
from gebm.trainer.schedules import NO_READING, Schedule, after_reading, rate_factor
from gebm.trainer.settings import Phase, TrainerSettings
from gebm.trainer.state import TrainingState
from gebm.trainer.strategies.strategy import Role

# What a plateau schedule reads is found in the metrics under this name.
READINGS = {"fid": "fid", "kid": "kid", "kale": "kale_validation"}


class Rate(NamedTuple):
    """A learning rate at its highest, and how it moves."""

    learning_rate: float
    schedule: Schedule


def rates_of_phase(phase: Phase, settings: TrainerSettings) -> dict[Role, Rate]:
    """The rates of the networks that `phase` trains: `base`, `energy` or both (two time scales)."""
    base, joint, energy = settings.base, settings.joint, settings.energy
    if phase == "base":
        return {"base": Rate(base.learning_rate, base.schedule)}
    if phase == "energy":
        return {"energy": Rate(energy.learning_rate, energy.schedule)}
    return {
        "base": Rate(joint.base_learning_rate, joint.base_schedule),
        "energy": Rate(joint.energy_learning_rate, joint.energy_schedule),
    }


def set_learning_rates(state: TrainingState, settings: TrainerSettings) -> None:
    """Give the optimisers of the phase the rates of the round that `state` is before."""
    phase = state.phase
    step, steps = state.round - first_round(phase, settings), getattr(settings, phase).steps
    lowered = settings.rollback_factor ** len(state.rollbacks)
    for network, (rate, schedule) in rates_of_phase(phase, settings).items():
        factor = rate_factor(schedule, step, steps, state.plateaus.get(f"{phase}.{network}", NO_READING))
        state.optimizers[network].learning_rate = rate * factor * lowered


def learning_rates(state: TrainingState, settings: TrainerSettings) -> dict[str, float]:
    """The rates of the last round, as metrics: `learning_rate_base`, `learning_rate_energy`."""
    trained = rates_of_phase(state.phase, settings)
    return {f"learning_rate_{network}": state.optimizers[network].learning_rate for network in trained}


def read_plateaus(state: TrainingState, settings: TrainerSettings, values: dict[str, float]) -> None:
    """Let the plateau schedules of the phase read what was just measured on validation data."""
    for network, (_, schedule) in rates_of_phase(state.phase, settings).items():
        if schedule.shape == "plateau" and READINGS[schedule.metric] in values:
            key = f"{state.phase}.{network}"
            reading = values[READINGS[schedule.metric]]
            state.plateaus[key] = after_reading(schedule, state.plateaus.get(key, NO_READING), reading)
