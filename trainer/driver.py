"""Training as a Ray Train group: one actor a worker, started, watched, and started again when one dies."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from gebm.cluster import storage
from gebm.cluster.errors import FarmError, InputError
from gebm.cluster.index import ShardIndex, index_digest, load_index
from gebm.cluster.progress_board import ProgressBoard, drain, post, post_and_wait
from gebm.cluster.resources import WorkerResources, plan_workers
from gebm.trainer.callbacks import import_callback, telling
from gebm.trainer.check import check_job
from gebm.trainer.checkpoints.manifest import read_manifest
from gebm.trainer.guard import TrainingDivergedError
from gebm.trainer.loop import TrainingJob, train_worker
from gebm.trainer.model import ModelSettings, model_digest, pinned
from gebm.trainer.settings import TrainerSettings

DEAD_PEER_SECONDS = 120
POLL_SECONDS = 0.5
STRATEGY = {"zero", "compile", "recompute_activations"}  # settings that do not change what is trained
ERRORS = {"InputError": InputError, "TrainingDivergedError": TrainingDivergedError}

Progress = Callable[[dict[str, Any]], None]


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
) -> TrainResult:
    """Train on the indexed shard set `data` and export the model to `run/model`. Ray must be connected.

    `validation` is another indexed set of the same kind: training is watched on it, and never learns from it.

    An interrupted run goes on from its newest checkpoint, a finished one is recognised. When a worker process
    dies, the group is started again from there, `restarts` times. `progress` takes the records of rank 0 and
    `{"event": ...}` for what happens to the group.

    Raises `InputError` for settings, data or a run directory that cannot be used, `TrainingDivergedError` when the
    losses are no numbers any more, `FarmError` when workers keep dying.
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
    for attempt in range(restarts + 1):
        if attempt:
            tell(
                {"event": f"a worker died; starting the group again from the newest checkpoint ({attempt}/{restarts})"}
            )
        failure = _run_group(job, group, tell)
        if failure is None:
            return TrainResult(where, model_digest(where), settings.rounds, already_finished=False)
    raise FarmError(f"{run}: training workers died {restarts + 1} times, last: {failure}") from failure


def run_digest(
    model: ModelSettings, settings: TrainerSettings, seed: int, data: ShardIndex, validation: ShardIndex | None = None
) -> str:
    """What must be equal for a checkpoint to be this run's: model, trainer, seed, and the content of the data.

    How the workers share the networks, and what only makes them faster, may change: a checkpoint serves any strategy.
    """
    sets = [index_digest(index) for index in (data, validation) if index is not None]
    content = [model.model_dump(mode="json"), settings.model_dump(mode="json", exclude=STRATEGY), seed, *sets]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _run_group(job: TrainingJob, group: WorkerResources, tell: Progress) -> Exception | None:
    """One Ray Train group from start to end. Returns the failure when a worker died, None when all is done."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchConfig, TorchTrainer

    on_gpu = group.gpus_per_worker > 0
    resources = {"CPU": group.cpus_per_worker} | ({"GPU": group.gpus_per_worker} if on_gpu else {})
    # Ray Train keeps a snapshot of its own; ours is the truth, so each group gets a fresh one, removed after.
    scratch = storage.join(job.run, ".ray-train")
    errors: list[dict[str, Any]] = []
    with _board(tell, errors) as board:
        trainer = TorchTrainer(
            _worker,
            train_loop_config={
                "job": job,
                "board": board,
                "threads": max(1, int(group.cpus_per_worker)),
                "gpu": on_gpu,
            },
            scaling_config=ScalingConfig(num_workers=group.workers, use_gpu=on_gpu, resources_per_worker=resources),
            run_config=RunConfig(
                name=uuid.uuid4().hex[:12], storage_path=scratch, failure_config=FailureConfig(max_failures=0)
            ),
            torch_config=TorchConfig(
                backend="nccl" if group.gpus_per_worker >= 1 else "gloo", timeout_s=DEAD_PEER_SECONDS
            ),
        )
        failure: Exception | None = None
        try:
            trainer.fit()
        except TrainingFailedError as error:
            failure = error
        finally:
            storage.remove(scratch)
    if errors:
        raise ERRORS[errors[0]["error"]](errors[0]["message"])
    return failure


@contextmanager
def _board(tell: Progress, errors: list[dict[str, Any]]) -> Iterator[ProgressBoard]:
    """A board whose records a thread hands to `tell`, while the main thread waits for the group."""
    board, done = ProgressBoard(), threading.Event()

    def take() -> None:
        for record in drain(board):
            if "error" in record:
                errors.append(record)
            else:
                tell(record)

    def poll() -> None:
        while not done.wait(POLL_SECONDS):
            take()

    thread = threading.Thread(target=poll, name="training-progress", daemon=True)
    thread.start()
    try:
        yield board
    finally:
        done.set()
        thread.join()
        take()
        board.close()


def _worker(config: dict[str, Any]) -> None:
    """Runs in each actor of the group."""
    import torch
    from accelerate import Accelerator

    from gebm.trainer.workers import Workers

    torch.set_num_threads(config["threads"])
    half = torch.bfloat16 if config["job"].settings.dtype == "bfloat16" else None
    workers = Workers(Accelerator(cpu=not config["gpu"]), half)
    board = config["board"]
    post(board, {"event": f"worker {workers.rank + 1} of {workers.world} is process {os.getpid()} on {workers.device}"})
    try:
        train_worker(config["job"], workers, lambda record: post(board, record))
    except InputError as error:
        kind = type(error).__name__ if type(error).__name__ in ERRORS else "InputError"
        post_and_wait(board, {"error": kind, "message": str(error), "rank": workers.rank})
        raise
