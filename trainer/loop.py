"""What one training worker does, from top to bottom: resume, rounds, logs, checkpoints, export."""

from __future__ import annotations

import torch

from gebm.cluster import storage
from gebm.cluster.lanes import LaneReader
from gebm.trainer.card import chosen, model_card
from gebm.trainer.checkpoints.saver import Saver
from gebm.trainer.council import GO_ON, Council
from gebm.trainer.finished_model import finish, finished_model
from gebm.trainer.guard import TrainingDivergedError, check_values, check_weights, rollback_records
from gebm.trainer.job import TrainingJob
from gebm.trainer.keeper import Keeper, Post
from gebm.trainer.kit import Kit
from gebm.trainer.learning_rates import learning_rates, read_plateaus
from gebm.trainer.metrics import Window
from gebm.trainer.model import save_model
from gebm.trainer.noise import GlobalNoise
from gebm.trainer.phases import enter_phase, phase_ends, phase_of_round
from gebm.trainer.pulse import Pulse
from gebm.trainer.real_data import real_data
from gebm.trainer.resume import Line, load_best, newest_state, reading_of, roll_back, save_state
from gebm.trainer.rounds import ROUNDS
from gebm.trainer.state import TrainingState
from gebm.trainer.watch.watch import Watch
from gebm.trainer.workers import Workers


def train_worker(job: TrainingJob, workers: Workers, post: Post, pulse: Pulse | None = None) -> str:
    """Train from the newest checkpoint, or from the start, to the exported model.

    Every worker runs this; all write checkpoints, rank 0 alone writes the rest. `post` takes progress records on
    rank 0. Returns the word heard from `pulse` on rank 0 that ended it early, after a checkpoint, or `GO_ON`.
    Raises `TrainingDivergedError` (on every worker, in the same round) and `InputError`.
    """
    pulse = pulse or Pulse()
    settings = job.settings
    reader = LaneReader(
        job.data,
        seed=job.seed,
        batch_size=settings.batch_size,
        lanes=settings.lanes,
        rank=workers.rank,
        world=workers.world,
    )
    council = Council(workers)
    saver = Saver(job, council, post)
    kit = Kit(job, workers, reader, council, saver)
    try:
        state, line = newest_state(kit)
        while True:
            keeper = Keeper(job, state, post) if workers.rank == 0 else None
            try:
                word = run_rounds(kit, state, line, keeper, pulse)
                saver.wait()
                break
            except TrainingDivergedError as error:
                state, line = roll_back(kit, state, error)
                if keeper is not None:
                    told = rollback_records(state.rollbacks, state.round, state.phase, settings.rollback_factor)
                    keeper.post(told[-1])
            finally:
                if keeper is not None:
                    keeper.close()
        if word == GO_ON:
            best = load_best(kit, state) if settings.export == "best" else None
            if best is not None and workers.rank == 0:
                post({"event": f"exporting the model: {chosen(settings, best)}"})
            finish(job, state)
            if workers.rank == 0:
                model = finished_model(job, state)
                save_model(model, job.model, storage.join(job.run, "model"), model_card(job, model, best))
                saver.mark_finished()
        elif workers.rank == 0:
            post({"stopped": state.round, "word": word})
        return word
    finally:
        saver.close()
        reader.close()


def run_rounds(kit: Kit, state: TrainingState, line: Line | None, keeper: Keeper | None, pulse: Pulse) -> str:
    """All rounds that are left, or those until rank 0 hears a word. The worker with a `keeper` writes.

    `line` is the line of metrics that `state` is in the middle of. Returns the word, when what was trained is a
    checkpoint, or `GO_ON` after the last round.
    """
    job, workers, reader, saver = kit.job, kit.workers, kit.reader, kit.saver
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
    window = Window(state.batches, line)
    ends = phase_ends(settings)
    while state.round < settings.rounds:
        pulse.round = state.round
        saver.check()
        if (word := kit.council.word(pulse.word)) != GO_ON:
            if state.round != saver.saved_round:
                check_state(state)
                save_state(saver, state, window.as_dict())
            return word
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
            check_state(state)
        record, timings = window.close(state.round, phase, state.batches, settings.batch_size)
        reading = watch.read(last=last)
        timings["watch_seconds"] = window.restart()
        read_plateaus(state, settings, reading.values)
        if keeper is not None:
            keeper.write(record | learning_rates(state, settings) | reading.values, timings, reading.picture)
        if keep:
            save_state(saver, state, None, reading_of(settings, phase, reading.values))
            if keeper is not None:
                keeper.begin_segment(state.round)
    return GO_ON


def check_state(state: TrainingState) -> None:
    """Raise `TrainingDivergedError` when a weight is not finite: such a state is not for keeping."""
    with state.whole():
        check_weights(state.networks(), round_number=state.round, phase=state.phase)
