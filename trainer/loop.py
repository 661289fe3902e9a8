"""What one training worker does, from top to bottom: resume, rounds, logs, checkpoints, export."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gebm.cluster import storage
from gebm.cluster.lanes import LaneReader
from gebm.trainer import checkpoint
from gebm.trainer.batch_norm import use_global_batch
from gebm.trainer.card import model_card
from gebm.trainer.guard import check
from gebm.trainer.metrics import MetricsWriter, Window
from gebm.trainer.model import GEBM, ModelSettings, from_uint8, save_model
from gebm.trainer.phases import (
    GlobalNoise,
    RealBatch,
    energy_round,
    enter_energy_phase,
    joint_round,
    monte_carlo_log_partition,
    prior_draws,
)
from gebm.trainer.settings import TrainerSettings
from gebm.trainer.state import TrainingState, initial_state
from gebm.trainer.steps import EnergyStep
from gebm.trainer.workers import Workers

Post = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class TrainingJob:
    """All that a worker must know; small, and the same for every worker."""

    run: str  # absolute URL
    data: str  # absolute URL of an indexed shard set
    run_digest: str
    model: ModelSettings
    settings: TrainerSettings
    seed: int

    @property
    def rounds(self) -> int:
        return self.settings.joint.steps + self.settings.energy.steps


def train_worker(job: TrainingJob, workers: Workers, post: Post) -> None:
    """Train from the newest checkpoint, or from the start, to the exported model.

    Every worker runs this; rank 0 alone writes. `post` takes progress records on rank 0.
    Raises `TrainingDivergedError` (on every worker, in the same round) and `InputError`.
    """
    settings = job.settings
    manifest = checkpoint.read_manifest(job.run, job.run_digest)
    reader = LaneReader(
        job.data,
        seed=job.seed,
        batch_size=settings.batch_size,
        lanes=settings.lanes,
        rank=workers.rank,
        world=workers.world,
    )
    try:
        index = reader.index
        state = initial_state(job.model, settings, index.image_shape, job.seed, workers.device, index.classes)
        use_global_batch(state.model.base)
        checkpoint.load_newest(job.run, manifest, state)
        if state.phase == "energy":
            state.model.base.requires_grad_(False)
        written = _run_rounds(job, state, workers, reader, post, manifest if workers.rank == 0 else None)
        if written is not None:
            export(job, state)
            checkpoint.write_manifest(job.run, written.model_copy(update={"finished": True}))
    finally:
        reader.close()


def _run_rounds(
    job: TrainingJob,
    state: TrainingState,
    workers: Workers,
    reader: LaneReader,
    post: Post,
    manifest: checkpoint.CheckpointManifest | None,
) -> checkpoint.CheckpointManifest | None:
    """All rounds that are left. `manifest` is given to the worker that writes, and comes back as it is then."""
    settings = job.settings
    dtype = next(state.model.parameters()).dtype
    noise = GlobalNoise(job.seed, settings.batch_size, torch.from_numpy(reader.rows), workers.device, dtype)

    def real_batch(step: int) -> Tensor:
        pixels = torch.from_numpy(reader.batch(step).images).to(workers.device, non_blocking=True)
        return from_uint8(pixels, dtype).contiguous(memory_format=torch.channels_last)

    writer = MetricsWriter(job.run, state.round) if manifest is not None else None
    window = Window(state.energy_steps)
    while state.round < job.rounds:
        if state.phase == "joint" and state.round >= settings.joint.steps:
            enter_energy_phase(state, settings, job.seed)
        phase = state.phase
        values = _round(job, state, workers, noise, real_batch)
        check(values, round_number=state.round, energy_limit=settings.energy_limit)
        window.add(values)
        # A phase ends with a line and a checkpoint of its own, whatever its length.
        last = state.round in (settings.joint.steps, job.rounds)
        if state.round % settings.log_every and not last:
            continue
        record, timings = window.close(state.round, phase, state.energy_steps, settings.batch_size)
        if writer is None or manifest is None:
            continue
        writer.write(record, timings)
        post({**record, **timings, "rounds": job.rounds})
        if state.round % settings.checkpoint_every == 0 or last:
            manifest = checkpoint.save_checkpoint(job.run, manifest, state, settings.keep_checkpoints)
            writer.next_segment(state.round)
    return manifest


def _round(
    job: TrainingJob, state: TrainingState, workers: Workers, noise: GlobalNoise, real_batch: RealBatch
) -> dict[str, float]:
    """One round of the current phase, as plain numbers."""
    if state.phase == "energy":
        return as_values(energy_round(state, job.settings, workers, noise, real_batch))
    step, base = joint_round(state, job.settings, workers, noise, real_batch)
    return {**as_values(step), "base_loss": float(base.loss), "base_gradient_norm": float(base.gradient_norm)}


def as_values(step: EnergyStep) -> dict[str, float]:
    return {name: float(value) for name, value in step._asdict().items()}


def export(job: TrainingJob, state: TrainingState) -> None:
    """Write `model/`: the averaged generator, the averaged energy, and the `c` that belongs to the two."""
    settings = job.settings
    if state.phase == "joint":  # no energy phase was asked for: its beginning is the end
        enter_energy_phase(state, settings, job.seed)
    latents = prior_draws(state, job.seed, "log-partition", settings.log_partition_draws)
    log_partition, error = monte_carlo_log_partition(state, state.energy_average, latents, settings)
    model = GEBM(
        copy.deepcopy(state.base_average),
        copy.deepcopy(state.energy_average),
        state.model.latent_dimension,
        state.model.image_shape,
        state.model.classes,
    ).float()
    model.log_partition = log_partition.cpu()
    model.log_partition_error = error.cpu()
    save_model(model, job.model, storage.join(job.run, "model"), model_card(job, model))
