"""What one training worker does, from top to bottom: resume, rounds, logs, checkpoints, export."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from gebm.cluster import storage
from gebm.cluster.lanes import LaneReader
from gebm.trainer import checkpoint
from gebm.trainer.batch_norm import use_global_batch
from gebm.trainer.card import model_card
from gebm.trainer.guard import check
from gebm.trainer.log_partition import monte_carlo_log_partition, prior_draws, prior_labels
from gebm.trainer.metrics import MetricsWriter, Window
from gebm.trainer.model import GEBM, ModelSettings, save_model
from gebm.trainer.noise import GlobalNoise
from gebm.trainer.phases import enter_phase, phase_ends, phase_of_round
from gebm.trainer.real_data import real_data
from gebm.trainer.rounds import ROUNDS
from gebm.trainer.settings import TrainerSettings
from gebm.trainer.state import TrainingState, initial_state
from gebm.trainer.workers import Workers

Post = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class TrainingJob:
    """All that a worker must know; small, and the same for every worker."""

    run: str  # absolute URL
    data: str  # absolute URL of an indexed shard set
    validation: str | None  # absolute URL of another one, of the same shape
    run_digest: str
    model: ModelSettings
    settings: TrainerSettings
    seed: int


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
    noise = GlobalNoise(job.seed, settings.batch_size, torch.from_numpy(reader.rows), workers.device, state.dtype)
    data = real_data(reader, device=workers.device, dtype=state.dtype, conditional=state.model.classes is not None)
    writer = MetricsWriter(job.run, state.round) if manifest is not None else None
    window = Window(state.batches)
    ends = phase_ends(settings)
    while state.round < settings.rounds:
        if state.phase != (phase := phase_of_round(state.round, settings)):
            enter_phase(state, phase, settings, job.seed)
        values = ROUNDS[phase](state, settings, workers, noise, data)
        check(values, round_number=state.round, energy_limit=settings.energy_limit)
        window.add(values)
        # A phase ends with a line and a checkpoint of its own, whatever its length.
        last = state.round in ends
        if state.round % settings.log_every and not last:
            continue
        record, timings = window.close(state.round, phase, state.batches, settings.batch_size)
        if writer is None or manifest is None:
            continue
        writer.write(record, timings)
        post({**record, **timings, "rounds": settings.rounds})
        if state.round % settings.checkpoint_every == 0 or last:
            manifest = checkpoint.save_checkpoint(job.run, manifest, state, settings.keep_checkpoints)
            writer.next_segment(state.round)
    return manifest


def export(job: TrainingJob, state: TrainingState) -> None:
    """Write `model/`: the averaged generator, the averaged energy, and the `c` that belongs to the two."""
    settings = job.settings
    if state.phase != "energy":  # no energy phase was asked for: its beginning is the end
        enter_phase(state, "energy", settings, job.seed)
    count = settings.log_partition_draws
    log_partition, error = monte_carlo_log_partition(
        state,
        state.energy_average,
        prior_draws(state, job.seed, "log-partition", count),
        prior_labels(state, job.seed, "log-partition", count),
        settings,
    )
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
