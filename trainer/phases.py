"""The phases of training, in their order: base, joint, energy. Each may have no steps.

Base: the base alone, by maximum likelihood. Joint: energy and base in turn. Energy: the energy alone on the frozen
base, because an energy and its log-partition belong to the base that they were fitted to (and that is exported with
them). Each phase begins with fresh optimisers, from the averaged weights of the one before.
"""

from __future__ import annotations

from torch import nn

from gebm.trainer.averaging import averaged_copy, trainable_copy
from gebm.trainer.batch_norm import recompute_statistics
from gebm.trainer.chains import begin_chains
from gebm.trainer.log_partition import monte_carlo_log_partition, prior_draws, prior_labels
from gebm.trainer.objectives.table import OBJECTIVES
from gebm.trainer.settings import Phase, TrainerSettings
from gebm.trainer.state import TrainingState
from gebm.trainer.strategies.strategy import Role


def phase_of_round(round_number: int, settings: TrainerSettings) -> Phase:
    """The phase that round `round_number`, counted from 0 over all phases, belongs to."""
    if round_number < first_round("joint", settings):
        return "base"
    return "joint" if round_number < first_round("energy", settings) else "energy"


def first_round(phase: Phase, settings: TrainerSettings) -> int:
    """The number of the first round of `phase`."""
    return {"base": 0, "joint": settings.base.steps, "energy": settings.base.steps + settings.joint.steps}[phase]


def phase_ends(settings: TrainerSettings) -> set[int]:
    """The numbers of rounds after which a phase is over."""
    return {first_round("joint", settings), first_round("energy", settings), settings.rounds}


def last_phase(settings: TrainerSettings) -> Phase:
    """The phase that the run ends with."""
    if settings.energy.steps:
        return "energy"
    return "joint" if settings.joint.steps else "base"


def enter_phase(state: TrainingState, phase: Phase, settings: TrainerSettings, seed: int) -> None:
    """Make `state` ready for the first round of `phase`, which is a later one than it is in. All workers do it."""
    energy = whole_copy(state, "energy")
    if phase == "joint":
        # From the base that maximum likelihood left, averaged.
        state.begin_training(phase, trainable_copy(state.base_average), energy)
    else:
        _enter_energy_phase(state, energy, settings, seed)


def whole_copy(state: TrainingState, role: Role) -> nn.Module:
    """A plain network with the weights that training has come to, whole on every worker."""
    copy = trainable_copy(state.networks()[f"{role}_average"])
    with state.whole():
        copy.load_state_dict(state.networks()[role].state_dict())
    return copy


def _enter_energy_phase(state: TrainingState, energy: nn.Module, settings: TrainerSettings, seed: int) -> None:
    """Freeze the averaged generator, with statistics of its own, and start the energy's optimiser and `c` afresh."""
    base = state.base_average
    if settings.base.steps + settings.joint.steps > 0:
        # A base that was not trained here keeps the statistics that it came with.
        count = max(settings.batch_norm_draws, settings.batch_size)
        recompute_statistics(
            base,
            prior_draws(state, seed, "batch-norm", count),
            settings.batch_size,
            prior_labels(state, seed, "batch-norm", count),
        )
    state.energy_average = averaged_copy(energy)
    state.begin_training("energy", trainable_copy(base).eval(), energy)
    begin_chains(state, settings, seed)
    if OBJECTIVES[settings.objective].reads == "features":
        return  # its energy, hence c, compares with real images: the first step takes c from its own
    count = settings.batch_norm_draws
    state.log_partition, _ = monte_carlo_log_partition(
        state,
        state.energy_average,
        prior_draws(state, seed, "energy-phase", count),
        prior_labels(state, seed, "energy-phase", count),
        settings,
    )
