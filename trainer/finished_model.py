"""The model that training hands over: averaged base, averaged energy, and the `c` that belongs to the two."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from gebm.trainer.log_partition import monte_carlo_log_partition, prior_draws, prior_labels
from gebm.trainer.model import GEBM
from gebm.trainer.model.witness import WitnessEnergy
from gebm.trainer.objectives.table import OBJECTIVES
from gebm.trainer.phases import enter_phase
from gebm.trainer.state import TrainingState
from gebm.trainer.watch.fixed_samples import Samples, apply_in_chunks, equal_counts, read_in_chunks, real_samples

if TYPE_CHECKING:
    from gebm.trainer.job import TrainingJob


def finish(job: TrainingJob, state: TrainingState) -> None:
    """Bring the last round's `state` to where a model can be made of it. All workers do it together.

    Without an energy phase its beginning is the end: the averaged base gets statistics of its own, and the energy is
    the last iterate.
    """
    if state.phase != "energy":
        enter_phase(state, "energy", job.settings, job.seed)


def finished_model(job: TrainingJob, state: TrainingState) -> GEBM:
    """The model of the last round's `state`, in float32, with its log-partition and error.

    One worker alone makes it, of a state in its energy phase (see `finish`).
    """
    settings, count = job.settings, job.settings.log_partition_draws
    energy = state.energy_average
    if OBJECTIVES[settings.objective].reads == "features":
        energy = _witness(job, state)
    log_partition, error = monte_carlo_log_partition(
        state,
        energy,
        prior_draws(state, job.seed, "log-partition", count),
        prior_labels(state, job.seed, "log-partition", count),
        settings,
    )
    model = GEBM(
        copy.deepcopy(state.base_average),
        copy.deepcopy(energy),
        state.model.latent_dimension,
        state.model.image_shape,
        state.model.classes,
        state.model.prior,
    ).float()
    model.log_partition = log_partition.cpu()
    model.log_partition_error = error.cpu()
    return model


def _witness(job: TrainingJob, state: TrainingState) -> WitnessEnergy:
    """Minus the witness of the averaged network's features, between training samples and as many of the base."""
    objective = OBJECTIVES[job.settings.objective]
    count = equal_counts(job.settings.witness_samples, [job.data], world=1)
    real = real_samples(job.data, count, seed=job.seed, rank=0, world=1, state=state)
    labels = prior_labels(state, job.seed, "witness", count)
    draws = prior_draws(state, job.seed, "witness", count)
    fake = Samples(apply_in_chunks(state.model.base, draws, labels), labels)
    on_real, on_fake = (read_in_chunks(objective, state.energy_average, samples) for samples in (real, fake))
    return WitnessEnergy(state.energy_average, on_real, on_fake).eval()
