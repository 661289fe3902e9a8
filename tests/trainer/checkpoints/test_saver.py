"""Saving while training goes on: order of commits, one at a time, failures, the last one awaited."""

import errno
import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from accelerate import Accelerator

from gebm.cluster.errors import InputError
from gebm.trainer.checkpoints.manifest import FileRecord, read_manifest
from gebm.trainer.checkpoints.saver import CheckpointError, Saver, refuse_unseen
from gebm.trainer.council import Council
from gebm.trainer.loop import TrainingJob
from gebm.trainer.workers import Workers
from tests.trainer.tiny_runs import run_alone, tiny_job, write_points

PATIENCE = 60.0
"""Seconds after which a test gives up waiting."""


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    return write_points(tmp_path_factory.mktemp("points"))


@pytest.fixture
def job(data, tmp_path) -> TrainingJob:
    return tiny_job(tmp_path / "run", data)


@pytest.fixture
def saver(job) -> Iterator[Saver]:
    with_one = Saver(job, Council(Workers(Accelerator(cpu=True))), lambda record: None)
    with_one.newest()
    yield with_one
    with_one.close()


class HeldWriter:
    """A test double of slow storage: nothing is written until it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.entered, self.free = threading.Semaphore(0), threading.Semaphore(0)
        write_data = dcp.FileSystemWriter.write_data

        def slow(writer: Any, *arguments: Any) -> Any:
            self.entered.release()
            assert self.free.acquire(timeout=PATIENCE)
            return write_data(writer, *arguments)

        monkeypatch.setattr(dcp.FileSystemWriter, "write_data", slow)


@pytest.fixture
def held(monkeypatch) -> HeldWriter:
    return HeldWriter(monkeypatch)


def committed(job: TrainingJob) -> list[int]:
    return [record.round for record in read_manifest(job.run, job.run_digest).checkpoints]


def save(saver: Saver, round_number: int) -> None:
    saver.save({"weights": torch.full((4,), float(round_number))}, round_number=round_number, rollbacks=0)


def test_a_run_trains_on_while_its_checkpoint_is_written(job, held, monkeypatch):
    """Checkpoints are due at 4, 8, 12 and 14. That of 4 is held up until the line of round 8 was written."""
    seen: list[tuple[int, list[int]]] = []

    def post_of(record: dict[str, Any]) -> None:
        if "event" not in record:
            seen.append((record["round"], committed(job)))
            if record["round"] == 8:
                for _ in range(4):
                    held.free.release()

    run_alone(job, post_of)
    assert seen[:4] == [(2, []), (4, []), (6, []), (8, [])]
    # The end of training awaits the last one.
    assert committed(job) == [12, 14]


def test_a_checkpoint_exists_only_when_its_files_are_written_and_the_next_one_waits_for_it(saver, job, held):
    save(saver, 4)
    assert held.entered.acquire(timeout=PATIENCE)
    second = threading.Thread(target=save, args=(saver, 8))
    second.start()
    assert not held.entered.acquire(timeout=0.5)  # the second one has not begun
    assert committed(job) == []
    held.free.release()
    assert held.entered.acquire(timeout=PATIENCE)
    second.join(PATIENCE)
    assert committed(job) == [4] and saver.saved_round == 8
    held.free.release()
    saver.wait()
    assert committed(job) == [4, 8]
    assert torch.equal(saver.newest().content["weights"], torch.full((4,), 8.0))  # type: ignore[union-attr]


def test_going_back_awaits_what_is_being_written(saver, job, held):
    save(saver, 4)
    threading.Timer(0.3, held.free.release).start()
    found = saver.newest()
    assert found is not None and found.record.round == 4


def failing(error: OSError, monkeypatch: pytest.MonkeyPatch) -> None:
    def write_data(*_: Any) -> None:
        raise error

    monkeypatch.setattr(dcp.FileSystemWriter, "write_data", write_data)


def test_a_full_disk_is_one_clear_error_that_another_attempt_would_not_help(saver, job, monkeypatch):
    save(saver, 4)
    saver.wait()
    failing(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), monkeypatch)
    save(saver, 8)
    message = r"round-00000008-\w{8}: rank 0 cannot write this checkpoint \(OSError: .*No space left.*make room"
    with pytest.raises(InputError, match=message):
        saver.wait()
    assert committed(job) == [4]


def test_storage_that_fails_for_now_is_an_error_that_another_attempt_may_help(saver, job, monkeypatch):
    failing(ConnectionResetError(errno.ECONNRESET, "reset by peer"), monkeypatch)
    save(saver, 4)
    with pytest.raises(CheckpointError, match=r"rank 0 cannot write this checkpoint \(ConnectionResetError"):
        saver.wait()
    assert committed(job) == []


def test_a_run_that_cannot_write_stops_long_before_its_next_checkpoint(data, tmp_path, monkeypatch):
    failing(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), monkeypatch)
    rounds: list[int] = []
    with pytest.raises(InputError, match="No space left"):
        long = tiny_job(tmp_path / "run", data, joint={"steps": 4000}, checkpoint_every=400)
        run_alone(long, lambda record: rounds.append(record["round"]))
    assert 400 <= max(rounds) < 800


def test_a_saver_that_was_given_up_cannot_commit(saver, job):
    save(saver, 4)
    saver.wait()
    after = Saver(job, Council(Workers(Accelerator(cpu=True))), lambda record: None)
    assert after.newest() is not None
    save(saver, 8)
    with pytest.raises(InputError, match="another process has gone on with this run"):
        saver.wait()
    save(after, 8)
    after.wait()
    assert committed(job) == [4, 8]
    after.close()


def test_two_attempts_at_one_round_write_to_folders_of_their_own(saver, job):
    save(saver, 4)
    saver.wait()
    after = Saver(job, Council(Workers(Accelerator(cpu=True))), lambda record: None)
    assert after.attempt != saver.attempt
    after.newest()
    save(after, 4)
    after.wait()
    names = [record.name for record in read_manifest(job.run, job.run_digest).checkpoints]
    assert names == [f"round-00000004-{saver.attempt}", f"round-00000004-{after.attempt}"]
    after.close()


def test_files_of_a_worker_on_a_disk_that_the_first_one_does_not_see_are_refused(tmp_path):
    (tmp_path / "__0_0.distcp").write_bytes(b"1234")
    seen, unseen = (FileRecord(name=f"__{rank}_0.distcp", bytes=4, sha256="") for rank in range(2))
    refuse_unseen(str(tmp_path), [seen])
    with pytest.raises(InputError, match=r"__1_0\.distcp, written by another worker, is not seen.*all nodes share"):
        refuse_unseen(str(tmp_path), [seen, unseen])
