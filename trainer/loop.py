"""What one training worker does, from top to bottom: resume, rounds, logs, checkpoints, export."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from gebm.cluster import storage
from gebm.cluster.lanes import LaneReader
from gebm.trainer import checkpoint
from gebm.trainer.card import model_card
from gebm.trainer.finished_model import finish, finished_model
from gebm.trainer.guard import Rollback, TrainingDivergedError, check_values, check_weights, rollback_records
from gebm.trainer.keeper import Keeper, Post
from gebm.trainer.learning_rates import learning_rates, read_plateaus
from gebm.trainer.metrics import Window
from gebm.trainer.model import ModelSettings, save_model
from gebm.trainer.noise import GlobalNoise
from gebm.trainer.phases import enter_phase, phase_ends, phase_of_round
from gebm.trainer.real_data import real_data
from gebm.trainer.rounds import ROUNDS
from gebm.trainer.settings import TrainerSettings
from gebm.trainer.state import TrainingState, initial_state
from gebm.trainer.watch.watch import Watch
from gebm.trainer.workers import Workers


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
            keeper = Keeper(job, state, manifest, post) if workers.rank == 0 else None
            try:
                run_rounds(job, state, workers, reader, keeper)
                break
            except TrainingDivergedError as error:
                state, manifest = roll_back(job, workers, reader, state, error)
                if keeper is not None:
                    told = rollback_records(state.rollbacks, state.round, state.phase, settings.rollback_factor)
                    keeper.post(told[-1])
            finally:
                if keeper is not None:
                    keeper.close()
        finish(job, state)
        if keeper is not None:
            model = finished_model(job, state)
            save_model(model, job.model, storage.join(job.run, "model"), model_card(job, model))
            checkpoint.write_manifest(job.run, keeper.manifest.model_copy(update={"finished": True}))
    finally:
        reader.close()


def newest_state(
    job: TrainingJob, workers: Workers, reader: LaneReader, manifest: checkpoint.CheckpointManifest
) -> TrainingState:
    """The state of the newest checkpoint, or of round 0 when there is none."""
    index = reader.index
    state = initial_state(job.model, job.settings, index.image_shape, job.seed, workers, index.classes)
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
    job: TrainingJob, state: TrainingState, workers: Workers, reader: LaneReader, keeper: Keeper | None
) -> None:
    """All rounds that are left. The worker with a `keeper` writes."""
    settings = job.settings
    noise = GlobalNoise(job.seed, settings.batch_size, torch.from_numpy(reader.rows), workers.device, state.dtype)
    data = real_data(
        reader,
        device=workers.device,
        dtype=state.dtype,
        conditional=state.model.classes is not None,
        flips=noise if settings.flip else None,
    )
    watch = Watch(job, state, workers)
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
            with state.whole():
                check_weights(state.networks(), round_number=state.round, phase=phase)
        record, timings = window.close(state.round, phase, state.batches, settings.batch_size)
        reading = watch.read(last=last)
        timings["watch_seconds"] = window.restart()
        read_plateaus(state, settings, reading.values)
        if keeper is None:
            continue
        keeper.write(record | learning_rates(state, settings) | reading.values, timings, reading.picture)
        if keep:
            keeper.save(state)
