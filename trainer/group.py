"""One Ray Train group from start to end: started, listened to, told to stop, and watched for silence."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ray.exceptions import RayActorError, RayError

from gebm.cluster import storage
from gebm.cluster.processes import end_process
from gebm.cluster.progress_board import ProgressBoard, drain, signs_of_life
from gebm.cluster.resources import WorkerResources
from gebm.trainer.council import DEAD_PEER_SECONDS, GO_ON, STOP
from gebm.trainer.errors import FINAL
from gebm.trainer.heartbeat import END
from gebm.trainer.vigil import SILENT_SECONDS, Vigil

if TYPE_CHECKING:
    from gebm.trainer.job import TrainingJob

POLL_SECONDS = 0.5
LONGEST_POLL_SECONDS = 5.0
NOT_BEGUN_SECONDS = 15.0
"""A group that is told to stop, and of which no worker was heard for so long, is not waited for."""
LAST_SECONDS = 10.0
"""For workers that are ended at once."""

Progress = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Outcome:
    """How a group ended: by failure, by a word after a checkpoint, or (neither) with the exported model."""

    failure: Exception | None = None
    reason: str = ""
    """Of the failure, in words, with the worker that is to blame."""
    word: str = GO_ON


def run_group(job: TrainingJob, group: WorkerResources, tell: Progress, stop: threading.Event) -> Outcome:
    """Run a group; `tell` takes its records. Once `stop` is set, it makes a checkpoint and ends.

    Raises what a worker raised that would come again: `InputError`, `TrainingDivergedError`.
    """
    board = ProgressBoard()
    try:
        return GroupRun(job, group, board, tell, stop).outcome()
    finally:
        board.close()


class GroupRun:
    """The driver's side of one group."""

    def __init__(
        self,
        job: TrainingJob,
        group: WorkerResources,
        board: ProgressBoard,
        tell: Progress,
        stop: threading.Event,
    ):
        self._board, self._tell, self._stop = board, tell, stop
        self._vigil = Vigil(SILENT_SECONDS)
        self._errors: list[dict[str, Any]] = []
        self._word = GO_ON
        self._failure: BaseException | None = None
        # Seconds that this process was awake: a machine that was paused has not kept its workers from giving signs.
        self._awake = 0.0
        # Ray Train waits in a thread: the main one stays free for signals, of which it would take one for itself.
        self._fit = threading.Thread(target=self._train, args=(job, group), name="ray-train", daemon=True)

    def outcome(self) -> Outcome:
        from ray.train import TrainingFailedError, WorkerGroupError

        self._fit.start()
        try:
            self._listen()
        except BaseException:
            self._end_workers()
            raise
        if self._errors:
            raise FINAL[self._errors[0]["error"]](self._errors[0]["message"])
        if self._failure is None:
            return Outcome(word=self._word)
        if not isinstance(self._failure, TrainingFailedError):
            raise self._failure
        failures = self._failure.worker_failures if isinstance(self._failure, WorkerGroupError) else {}
        return Outcome(self._failure, self._vigil.reason(failures, _died) or str(self._failure))

    def _train(self, job: TrainingJob, group: WorkerResources) -> None:
        try:
            _fit(job, group, self._board)
        except BaseException as error:  # the main thread raises it
            self._failure = error

    def _listen(self) -> None:
        asked: float | None = None
        last = time.monotonic()
        while self._fit.is_alive():
            self._fit.join(POLL_SECONDS)
            now = time.monotonic()
            self._awake += min(now - last, LONGEST_POLL_SECONDS)
            last = now
            if self._stop.is_set() and asked is None:
                asked = self._awake
                self._tell({"event": "stopping after this round, with a checkpoint"})
            self._take(STOP if asked is not None else GO_ON)
            self._vigil.end_silent(self._awake, lambda sign: end_process(sign.node, sign.pid, sign.born))
            if asked is not None and not self._vigil.begun and self._awake - asked > NOT_BEGUN_SECONDS:
                self._word = STOP
                return
        self._take(GO_ON)

    def _take(self, word: str) -> None:
        try:
            for record in drain(self._board):
                self._hear(record)
            self._vigil.note(signs_of_life(self._board, word), self._awake)
        except RayActorError:
            return  # the board is being started again

    def _hear(self, record: dict[str, Any]) -> None:
        if "error" in record:
            self._errors.append(record)
        elif "stopped" in record:
            self._word = record["word"]
        else:
            self._tell(record)

    def _end_workers(self) -> None:
        """At once, without a checkpoint: whoever called does not wait."""
        deadline = time.monotonic() + LAST_SECONDS
        try:
            while self._fit.is_alive() and time.monotonic() < deadline:
                signs_of_life(self._board, END)
                self._fit.join(POLL_SECONDS)
        except RayError:
            return  # Ray itself is ending


def _died(error: BaseException) -> bool:
    return isinstance(getattr(error, "health_check_failure", error), RayActorError)


def _fit(job: TrainingJob, group: WorkerResources, board: ProgressBoard) -> None:
    """Raises `ray.train.TrainingFailedError`."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    from gebm.trainer.worker import worker  # with all that workers need: seconds, which other commands would pay

    on_gpu = group.gpus_per_worker > 0
    resources = {"CPU": group.cpus_per_worker} | ({"GPU": group.gpus_per_worker} if on_gpu else {})
    # Ray Train keeps a snapshot of its own; ours is the truth, so each group gets a fresh one, removed after.
    scratch = storage.join(job.run, ".ray-train")
    trainer = TorchTrainer(
        worker,
        train_loop_config={
            "job": job,
            "board": board,
            "threads": max(1, int(group.cpus_per_worker)),
            "gpu": on_gpu,
        },
        scaling_config=ScalingConfig(num_workers=group.workers, use_gpu=on_gpu, resources_per_worker=resources),
        run_config=RunConfig(
            name=uuid.uuid4().hex[:12],
            storage_path=scratch,
            # The driver starts groups again itself: see `gebm.trainer.driver`.
            failure_config=FailureConfig(max_failures=0, max_preemption_failures=0),  # type: ignore[call-arg]
        ),
        torch_config=TorchConfig(backend="nccl" if group.gpus_per_worker >= 1 else "gloo", timeout_s=DEAD_PEER_SECONDS),
    )
    try:
        trainer.fit()
    finally:
        storage.remove(scratch)
