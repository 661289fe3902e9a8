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
from gebm.trainer.guard import Rollback, TrainingDivergedError, check_values, check_weights
from gebm.trainer.learning_rates import learning_rates
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
    reader = LaneReader(
        job.data,
        seed=job.seed,
        batch_size=settings.batch_size,
        lanes=settings.lanes,
        rank=workers.rank,
        world=workers.world,
    )
    try:
        manifest = checkpoint.read_manifest(job.run, job.run_digest)
        state = newest_state(job, workers, reader, manifest)
        while True:
            try:
                manifest = run_rounds(job, state, workers, reader, post, manifest)
                break
            except TrainingDivergedError as error:
                state, manifest = roll_back(job, workers, reader, state, error)
                if workers.rank == 0:
                    post(rollback_records(state, settings)[-1])
        if workers.rank == 0:
            export(job, state)
            checkpoint.write_manifest(job.run, manifest.model_copy(update={"finished": True}))
    finally:
        reader.close()


def newest_state(
    job: TrainingJob, workers: Workers, reader: LaneReader, manifest: checkpoint.CheckpointManifest
) -> TrainingState:
    """The state of the newest checkpoint, or of round 0 when there is none."""
    index = reader.index
    state = initial_state(job.model, job.settings, index.image_shape, job.seed, workers.device, index.classes)
    use_global_batch(state.model.base)
    checkpoint.load_newest(job.run, manifest, state)
    return state


def roll_back(
    job: TrainingJob, workers: Workers, reader: LaneReader, state: TrainingState, error: TrainingDivergedError
) -> tuple[TrainingState, checkpoint.CheckpointManifest]:
    """The state of the last good checkpoint with lower learning rates, itself a checkpoint, so that it is remembered.

    Raises `error` when the run has rolled back as often as it may.
    """
    if len(state.rollbacks) >= job.settings.rollbacks:
        raise error
    earlier = state.rollbacks
    manifest = checkpoint.read_manifest(job.run, job.run_digest)
    state = newest_state(job, workers, reader, manifest)
    # Those of the diverged state: the checkpoint may be older than some of them.
    state.rollbacks = (*earlier, Rollback(error.round_number, state.round, error.reason))
    workers.wait()  # nobody reads the old checkpoint any more
    if workers.rank == 0:
        manifest = checkpoint.save_checkpoint(job.run, manifest, state, job.settings.keep_checkpoints)
    return state, manifest


def run_rounds(
    job: TrainingJob,
    state: TrainingState,
    workers: Workers,
    reader: LaneReader,
    post: Post,
    manifest: checkpoint.CheckpointManifest,
) -> checkpoint.CheckpointManifest:
    """All rounds that are left. Rank 0 keeps the manifest of checkpoints, and returns it as it is then."""
    settings = job.settings
    noise = GlobalNoise(job.seed, settings.batch_size, torch.from_numpy(reader.rows), workers.device, state.dtype)
    data = real_data(reader, device=workers.device, dtype=state.dtype, conditional=state.model.classes is not None)
    writer = MetricsWriter(job.run, state.round) if workers.rank == 0 else None
    if writer is not None:
        for record in rollback_records(state, settings):
            writer.write(record)
    window = Window(state.batches)
    ends = phase_ends(settings)
    while state.round < settings.rounds:
        if state.phase != (phase := phase_of_round(state.round, settings)):
            enter_phase(state, phase, settings, job.seed)
        values = ROUNDS[phase](state, settings, workers, noise, data)
        check_values(values, round_number=state.round, phase=phase, energy_limit=settings.energy_limit)
        window.add(values)
        # A phase ends with a line and a checkpoint of its own, whatever its length.
        last = state.round in ends
        if state.round % settings.log_every and not last:
            continue
        keep = state.round % settings.checkpoint_every == 0 or last
        if keep:
            check_weights(state.networks(), round_number=state.round, phase=phase)
        record, timings = window.close(state.round, phase, state.batches, settings.batch_size)
        record |= learning_rates(state, settings)
        if writer is None:
            continue
        writer.write(record, timings)
        post({**record, **timings, "rounds": settings.rounds})
        if keep:
            manifest = checkpoint.save_checkpoint(job.run, manifest, state, settings.keep_checkpoints)
            writer.next_segment(state.round)
    return manifest


def rollback_records(state: TrainingState, settings: TrainerSettings) -> list[dict[str, Any]]:
    """The lines of metrics of the roll-backs to just this round: they begin the segment that comes after it."""
    return [
        rollback.record(state.phase, settings.rollback_factor**number)
        for number, rollback in enumerate(state.rollbacks, 1)
        if rollback.to == state.round
    ]


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
