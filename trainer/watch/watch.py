"""What one worker does to watch the run: it holds the samples, and takes the readings that are due."""

from __future__ import annotations

import copy
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from torch import nn

from gebm.trainer.batch_norm import recompute_statistics
from gebm.trainer.chains import langevin_step
from gebm.trainer.log_partition import prior_draws, prior_labels
from gebm.trainer.model.prior import on_normal, to_normal
from gebm.trainer.noise import GlobalNoise
from gebm.trainer.objectives.table import OBJECTIVES
from gebm.trainer.state import TrainingState
from gebm.trainer.watch.energies import Watched, energies_of, witness_energy
from gebm.trainer.watch.fixed_samples import Samples, apply_in_chunks, equal_counts, real_samples, share, share_of_draws
from gebm.trainer.watch.grids import grid
from gebm.trainer.watch.image_distance import ImageDistance
from gebm.trainer.watch.kale import kale_readings, likelihood_readings, log_partition_readings
from gebm.trainer.workers import Workers

if TYPE_CHECKING:
    from gebm.trainer.job import TrainingJob

BATCH_NORM_DRAWS = 512  # for the statistics of the averaged base while it is only looked at


class Reading(NamedTuple):
    """What was seen at one round."""

    values: dict[str, float]
    """By the names of `gebm.trainer.metrics`; the same on every worker."""
    picture: np.ndarray | None
    """The grid of samples, uint8 `(height, width, 4)`, on rank 0."""


class Watch:
    """Takes readings of a state. It draws from seeds of its own and leaves the state as it was, to the bit.

    All workers read together. Real samples are read when they are first needed.
    """

    def __init__(self, job: TrainingJob, state: TrainingState, workers: Workers):
        self.job, self.state, self.workers, self.settings = job, state, workers, job.settings.watch
        self.objective = OBJECTIVES[job.settings.objective]
        self.every = job.settings.checkpoint_every if self.settings.every is None else self.settings.every

    def read(self, *, last: bool) -> Reading:
        """The readings that are due after the round of the state, which is the `last` of its phase or not."""
        values: dict[str, float] = {}
        picture = None
        if self.every and (last or self.state.round % self.every == 0):
            values |= self._losses()
            picture = self._picture()
        if self.settings.fid_every and (last or self.state.round % self.settings.fid_every == 0):
            values |= self._distances()
        return Reading(values, picture)

    def _losses(self) -> dict[str, float]:
        state, workers = self.state, self.workers
        if state.phase == "base":
            return likelihood_readings(state.base_average, self._train, self._validation, workers)
        # Of the energy that is trained, for its c; and of the one that would be exported now, for KALE.
        watched = self._watched()
        exported = trained = energies_of(self.objective, state.model.energy_network, watched, workers)
        if state.phase == "energy":
            exported = energies_of(self.objective, state.energy_average, watched, workers)
        return log_partition_readings(state.log_partition, trained) | kale_readings(exported)

    def _picture(self) -> np.ndarray | None:
        """Images of the averaged base at fixed latents; in the energy phase, where it stands still, at its chains, or
        from low to high energy."""
        state, count = self.state, self.settings.grid_images
        if count == 0 or len(state.model.image_shape) != 3:
            return None
        energy = self._energy() if state.phase == "energy" and state.chains is None else None
        if self.workers.rank > 0:
            return None
        if state.chains is not None:
            labels = None if state.chain_labels is None else state.chain_labels[:count]
            return grid(apply_in_chunks(on_normal(self._base(), state.model.prior), state.chains[:count], labels))
        labels = prior_labels(state, self.job.seed, "watch-grid", count)
        images = apply_in_chunks(self._base(), prior_draws(state, self.job.seed, "watch-grid", count), labels)
        if energy is not None:
            images = images[apply_in_chunks(energy, images, labels).argsort(stable=True)]
        return grid(images)

    def _distances(self) -> dict[str, float]:
        """Of the averaged base; in the energy phase, where it stands still, of the model's short chains."""
        state, seed, workers = self.state, self.job.seed, self.workers
        if state.phase == "energy" and not self.settings.fid_chain_steps:
            return {}
        latents, labels = share_of_draws(self._fid_count, "watch-fid", seed, state, workers)
        base = self._base()
        if state.phase == "energy":
            # Chains are of normal latents.
            base, latents = on_normal(base, state.model.prior), to_normal(state.model.prior, latents)
            rows, energy = share(self._fid_count, workers), self._energy()
            noise = GlobalNoise(seed, self._fid_count, rows, latents.device, state.dtype)
            for step in range(self.settings.fid_chain_steps):
                xi = noise.normal("watch-chain-noise", step, latents.shape[1])
                latents = langevin_step(base, energy, latents, labels, xi, self.job.settings.energy)
        return self._distance(apply_in_chunks(base, latents, labels))

    def _base(self) -> nn.Module:
        """The averaged base with batch-norm statistics of its own, as it would be exported now."""
        if self.state.phase == "energy":
            return self.state.model.base
        base = copy.deepcopy(self.state.base_average)
        latents = prior_draws(self.state, self.job.seed, "watch-batch-norm", BATCH_NORM_DRAWS)
        labels = prior_labels(self.state, self.job.seed, "watch-batch-norm", BATCH_NORM_DRAWS)
        recompute_statistics(base, latents, min(self.job.settings.batch_size, BATCH_NORM_DRAWS), labels)
        return base

    def _energy(self) -> nn.Module:
        """The averaged energy, as it would be exported now. All workers ask together."""
        average = self.state.energy_average
        if self.objective.reads == "energies":
            return average
        return witness_energy(self.objective, average, self._watched(), self.workers)

    def _watched(self) -> Watched:
        """The samples of KALE, the prior draws through the base as it is now."""
        latents, labels = share_of_draws(self.settings.draws, "watch-draws", self.job.seed, self.state, self.workers)
        fake = Samples(apply_in_chunks(self.state.model.base, latents, labels), labels)
        return Watched(fake, self._train, self._validation)

    @cached_property
    def _count(self) -> int:
        sets = [url for url in (self.job.data, self.job.validation) if url is not None]
        return equal_counts(self.settings.images, sets, self.workers.world)

    @cached_property
    def _train(self) -> Samples:
        return self._real(self.job.data, self._count)

    @cached_property
    def _validation(self) -> Samples | None:
        return None if self.job.validation is None else self._real(self.job.validation, self._count)

    @cached_property
    def _fid_count(self) -> int:
        assert self.job.validation is not None  # check_job refuses FID without a validation set
        return equal_counts(self.settings.fid_images, [self.job.validation], self.workers.world)

    @cached_property
    def _distance(self) -> ImageDistance:
        assert self.job.validation is not None
        real = self._real(self.job.validation, self._fid_count)
        return ImageDistance(self.settings.extractor, real, self.state, self.workers)

    def _real(self, url: str, count: int) -> Samples:
        rank, world = self.workers.rank, self.workers.world
        return real_samples(url, count, seed=self.job.seed, rank=rank, world=world, state=self.state)
