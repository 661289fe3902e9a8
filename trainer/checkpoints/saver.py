"""Making checkpoints while training goes on, and going back to one: what every worker of a run has one of."""

from __future__ import annotations

import errno
import secrets
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch.distributed as dist
from torch.distributed.checkpoint import CheckpointException

from gebm.cluster import storage
from gebm.cluster.errors import InputError
from gebm.trainer.checkpoints import manifest
from gebm.trainer.checkpoints.folder import PLAIN, begin_writing, read, written_files
from gebm.trainer.checkpoints.manifest import CheckpointRecord, FileRecord
from gebm.trainer.council import Council

if TYPE_CHECKING:
    from gebm.trainer.job import TrainingJob
    from gebm.trainer.keeper import Post

# Starting again does not help against these.
FULL_OR_FORBIDDEN = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}


class Found(NamedTuple):
    """A checkpoint that was read."""

    record: CheckpointRecord
    url: str
    content: dict[str, Any]


class CheckpointError(RuntimeError):
    """A checkpoint could not be written, for a reason that may be gone the next time."""


class Saver:
    """All workers make one at the same point, and call its functions at the same points.

    `save` copies the state and returns; a thread writes it, and rank 0 commits it when all have written. At most one
    checkpoint is being written: the next waits for it.
    """

    def __init__(self, job: TrainingJob, council: Council, post: Post):
        self.job, self._council, self._post = job, council, post
        self.attempt = council.decide(lambda: secrets.token_hex(4))
        self.saved_round: int | None = None
        """The round of the newest checkpoint, that is written or being written."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._in_flight: Future[None] | None = None

    def newest(self) -> Found | None:
        """The newest whole checkpoint; None when nothing was saved. What came after it is forgotten.

        A damaged one falls back to the one before, and rank 0 tells. Raises `InputError` when all are damaged.
        """
        self.wait()
        job = self.job
        taken = self._council.decide(lambda: manifest.take_over(job.run, job.run_digest, self.attempt))
        if taken.newest is None:
            self.saved_round = None
            return None
        self._tell_damaged(taken.damaged, taken.newest)
        self.saved_round = taken.newest.round
        return self._found(taken.newest)

    def best(self) -> Found:
        """The whole checkpoint with the best reading of `trainer.keep_best`. Raises `InputError` when none is left."""
        self.wait()
        job, metric = self.job, self.job.settings.keep_best
        assert metric is not None  # the settings refuse export = "best" without it
        best, damaged = self._council.decide(lambda: manifest.whole_best(job.run, job.run_digest, metric))
        self._tell_damaged(damaged, best)
        return self._found(best)

    def save(self, content: dict[str, Any], *, round_number: int, rollbacks: int, reading: float | None = None) -> None:
        """Make `content`, the same on every worker, a checkpoint. Raises what `wait` raises of the one before."""
        self.wait()
        name = manifest.checkpoint_name(round_number, rollbacks, self.attempt)
        council = self._council
        written, plain = begin_writing(
            self._url(name), content, rank=council.rank, world=council.world, group=council.writing
        )
        record = CheckpointRecord(round=round_number, name=name, files=(), reading=reading)
        self._in_flight = self._thread.submit(self._commit, record, written, plain)
        self.saved_round = round_number

    def check(self) -> None:
        """Raise what `wait` would raise, where that is known already."""
        if self._in_flight is not None and self._in_flight.done():
            self.wait()

    def wait(self) -> None:
        """Return when the checkpoint that is being written, if any, is committed (on rank 0) or written (on others).

        Raises `InputError` when storage refuses it, `CheckpointError` when it failed otherwise.
        """
        if self._in_flight is not None:
            in_flight, self._in_flight = self._in_flight, None
            in_flight.result()

    def mark_finished(self) -> None:
        """Note that the model is exported: rank 0 alone."""
        manifest.mark_finished(self.job.run, self.job.run_digest, self.attempt)

    def close(self) -> None:
        """Nothing more comes. A worker that is alone ends what it is writing; with others, one of them may be dead."""
        self._thread.shutdown(wait=self._council.world == 1)

    def _url(self, name: str) -> str:
        return storage.join(manifest.folder(self.job.run), name)

    def _found(self, record: CheckpointRecord) -> Found:
        url = self._url(record.name)
        return Found(record, url, read(url))

    def _tell_damaged(self, damaged: list[str], instead: CheckpointRecord) -> None:
        if damaged and self._council.rank == 0:
            self._post({"event": f"{', '.join(damaged)}: missing or damaged; round {instead.round} is taken instead"})

    def _commit(self, record: CheckpointRecord, written: Future[Any], plain: str) -> None:
        """In the background: wait for the files, and commit."""
        url, council, job = self._url(record.name), self._council, self.job
        try:
            written.result()
            if council.rank == 0:
                storage.write_bytes_atomic(storage.join(url, PLAIN), plain.encode())
            files = _gathered(written_files(url, council.rank), council)
            if council.rank == 0:
                refuse_unseen(url, files)
                whole = record.model_copy(update={"files": tuple(files)})
                keep, best = job.settings.keep_checkpoints, job.settings.keep_best
                manifest.commit(job.run, job.run_digest, self.attempt, whole, keep, best)
        except (CheckpointException, OSError) as error:
            raise _explained(url, error, council.rank) from error


def _gathered(files: list[FileRecord], council: Council) -> list[FileRecord]:
    """The files of all workers, on rank 0; nothing on others."""
    if council.writing is None:
        return files
    gathered: list[list[FileRecord]] | None = [[]] * council.world if council.rank == 0 else None
    dist.gather_object(files, gathered, dst=0, group=council.writing)
    return [file for each in gathered or [] for file in each]


def refuse_unseen(url: str, files: list[FileRecord]) -> None:
    """Raise `InputError` when rank 0 does not see what another worker has written."""
    seen = storage.list_sizes(url)
    if missing := [file.name for file in files if seen.get(file.name) != file.bytes]:
        raise InputError(
            f"{url}: {missing[0]}, written by another worker, is not seen by the first one; "
            "give an --out on storage that all nodes share"
        )


def _explained(url: str, error: CheckpointException | OSError, here: int) -> Exception:
    """The error for a checkpoint that could not be written, with the worker (`here` for its own) and its reason."""
    rank, reason = here, cast(BaseException, error)
    if isinstance(error, CheckpointException):
        rank, (reason, _) = min(error.failures.items())
    message = f"{url}: rank {rank} cannot write this checkpoint ({type(reason).__name__}: {reason})"
    if isinstance(reason, OSError) and reason.errno in FULL_OR_FORBIDDEN:
        return InputError(f"{message}; make room or give write permission, and the same command goes on")
    return CheckpointError(message)
