"""Training as a Ray Train group: started, and started again when a worker dies, hangs or has to leave its node.

Groups are started again here and not by Ray Train's `FailureConfig`, which retries whatever a worker raises: an
`InputError` or a divergence would come again at every attempt. Here each attempt's error is seen, the worker to
blame is named, and an attempt that got to a new checkpoint does not count against those that may fail.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass

from gebm.cluster import storage
from gebm.cluster.errors import FarmError
from gebm.cluster.index import ShardIndex, index_digest, load_index
from gebm.cluster.lease import held
from gebm.cluster.resources import WorkerResources, plan_workers
from gebm.trainer.callbacks import import_callback, telling
from gebm.trainer.check import check_job
from gebm.trainer.checkpoints.manifest import read_manifest
from gebm.trainer.council import GO_ON
from gebm.trainer.errors import TrainingStopped
from gebm.trainer.group import Progress, run_group
from gebm.trainer.job import TrainingJob
from gebm.trainer.model import ModelSettings, model_digest, pinned
from gebm.trainer.settings import TrainerSettings

STRATEGY = {"zero", "compile", "recompute_activations"}  # settings that do not change what is trained


@dataclass(frozen=True)
class TrainResult:
    """A finished run: where its model is, and whether anything had to be done for it now."""

    model: str
    model_digest: str
    rounds: int
    already_finished: bool


def train(
    *,
    run: str,
    data: str,
    validation: str | None = None,
    model: ModelSettings,
    settings: TrainerSettings,
    seed: int,
    workers: int | None = None,
    gpus_per_worker: float | None = None,
    progress: Progress | None = None,
    restarts: int = 2,
    stop: threading.Event | None = None,
) -> TrainResult:
    """Train on the indexed shard set `data` and export the model to `run/model`. Ray must be connected.

    `validation` is another indexed set of the same kind: training is watched on it, and never learns from it.

    An interrupted run goes on from its newest checkpoint, a finished one is recognised. When a worker process dies
    or falls silent, the group is started again from there, until that has failed more than `restarts` times in a row
    without a new checkpoint. `progress` takes the records of rank 0 and `{"event": ...}` for what happens to the
    group. Setting `stop` ends it after the current round with a checkpoint, and with `TrainingStopped`.

    The run directory is this process's alone while it trains, see `gebm.cluster.lease`.

    Raises `InputError` for settings, data or a run directory that cannot be used, also for one that another process
    trains in, `TrainingDivergedError` when the losses are no numbers any more, `FarmError` when workers keep failing.
    """
    run, data = storage.absolute(run), storage.absolute(data)
    validation = storage.absolute(validation) if validation is not None else None
    index = load_index(data)
    model = pinned(model)
    digest = run_digest(model, settings, seed, index, load_index(validation) if validation is not None else None)
    job = TrainingJob(run, data, validation, digest, model, settings, seed)
    manifest = read_manifest(run, digest)
    where = storage.join(run, "model")
    if manifest.finished and storage.exists(storage.join(where, "model.toml")):
        return TrainResult(where, model_digest(where), settings.rounds, already_finished=True)
    group = plan_workers(workers, gpus_per_worker)
    check_job(job, index, group.workers, group.gpus_per_worker)
    callbacks = [(path, import_callback(path)) for path in settings.callbacks]
    tell = telling(callbacks, progress or (lambda record: None))
    with held(run) as hold:
        _train_to_the_end(job, group, tell, stop or threading.Event(), restarts, hold.check)
    return TrainResult(where, model_digest(where), settings.rounds, already_finished=False)


def _train_to_the_end(
    job: TrainingJob,
    group: WorkerResources,
    tell: Progress,
    stop: threading.Event,
    restarts: int,
    check_lease: Callable[[], None],
) -> None:
    """Start the group until it has done all rounds; `check_lease` raises when the run is another process's by now."""
    run, rounds = job.run, job.settings.rounds
    failed, reached = 0, _newest_round(job)
    while True:
        check_lease()
        outcome = run_group(job, group, tell, stop)
        if outcome.failure is None and outcome.word == GO_ON:
            return
        newest = _newest_round(job)
        if stop.is_set():
            raise TrainingStopped(newest, rounds)
        if outcome.failure is None:
            tell({"event": f"starting the group again elsewhere, from round {newest:,}"})
            continue
        # Whoever gets on may fall again: only failures in a row, without a checkpoint in between, are hopeless.
        failed, reached = failed + 1 if newest <= reached else 1, newest
        if failed > restarts:
            raise FarmError(f"{run}: training failed {failed} times in a row: {outcome.reason}") from outcome.failure
        tell({"event": f"{outcome.reason}; starting the group again from round {newest:,} ({failed}/{restarts})"})


def _newest_round(job: TrainingJob) -> int:
    """The round of the newest checkpoint, 0 where there is none."""
    checkpoints = read_manifest(job.run, job.run_digest).checkpoints
    return checkpoints[-1].round if checkpoints else 0


def run_digest(
    model: ModelSettings, settings: TrainerSettings, seed: int, data: ShardIndex, validation: ShardIndex | None = None
) -> str:
    """What must be equal for a checkpoint to be this run's: model, trainer, seed, and the content of the data.

    How the workers share the networks, and what only makes them faster, may change: a checkpoint serves any strategy.
    """
    sets = [index_digest(index) for index in (data, validation) if index is not None]
    content = [model.model_dump(mode="json"), settings.model_dump(mode="json", exclude=STRATEGY), seed, *sets]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
