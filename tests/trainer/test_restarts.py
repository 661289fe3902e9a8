"""When a group is started again, and when the driver gives up: by groups that end as the test says."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gebm.cluster.errors import FarmError, InputError
from gebm.cluster.resources import WorkerResources
from gebm.trainer import driver
from gebm.trainer.checkpoints.manifest import CheckpointRecord, commit, take_over
from gebm.trainer.council import MOVE, STOP
from gebm.trainer.errors import TrainingStopped
from gebm.trainer.group import Outcome
from gebm.trainer.job import TrainingJob
from gebm.trainer.settings import TrainerSettings
from tests.trainer.tiny_runs import MLP, SETTINGS, write_points

FAILED = Outcome(RuntimeError("worker group"), "rank 1 died")
Group = Callable[[TrainingJob], Outcome]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    return write_points(tmp_path_factory.mktemp("points"))


def reaching(round_number: int, outcome: Outcome) -> Group:
    """A group that makes a checkpoint and ends like this."""

    def group(job: TrainingJob) -> Outcome:
        take_over(job.run, job.run_digest, "0" * 8)
        record = CheckpointRecord(round=round_number, name=f"round-{round_number:08d}-00000000", files=())
        commit(job.run, job.run_digest, "0" * 8, record, 2, None)
        return outcome

    return group


def failing(_: TrainingJob) -> Outcome:
    return FAILED


def done(job: TrainingJob) -> Outcome:
    (Path(job.run) / "model").mkdir(parents=True)
    return Outcome()


class Runs:
    """Runs `train` on groups that end one after the other as given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, data: str, out: Path):
        self.events: list[str] = []
        self.started = 0
        self.stop = threading.Event()
        self._data, self._out, self._monkeypatch = data, out, monkeypatch
        monkeypatch.setattr(driver, "plan_workers", lambda *_: WorkerResources(1, 1, 0))
        monkeypatch.setattr(driver, "model_digest", lambda url: "digest")

    def train(self, *groups: Group) -> None:
        left = list(groups)

        def run_group(job: TrainingJob, *_: Any) -> Outcome:
            self.started += 1
            return left.pop(0)(job)

        self._monkeypatch.setattr(driver, "run_group", run_group)
        driver.train(
            run=str(self._out),
            data=self._data,
            model=MLP,
            settings=TrainerSettings.model_validate(SETTINGS),
            seed=0,
            progress=lambda record: self.events.append(record["event"]),
            restarts=2,
            stop=self.stop,
        )


@pytest.fixture
def runs(monkeypatch, data, tmp_path) -> Runs:
    return Runs(monkeypatch, data, tmp_path / "run")


def test_a_group_that_fails_is_started_again_and_the_reason_is_told(runs):
    runs.train(reaching(4, FAILED), failing, done)
    assert runs.events == [
        "rank 1 died; starting the group again from round 4 (1/2)",
        "rank 1 died; starting the group again from round 4 (2/2)",
    ]


def test_three_failures_in_a_row_without_a_new_checkpoint_are_the_end(runs):
    with pytest.raises(FarmError, match="training failed 3 times in a row: rank 1 died"):
        runs.train(failing, failing, failing, done)
    assert runs.started == 3


def test_failures_with_a_new_checkpoint_in_between_never_are(runs):
    groups = [each for number in range(1, 6) for each in (reaching(2 * number, FAILED), failing)]
    runs.train(*groups, done)
    assert runs.started == 11


def test_a_group_that_leaves_its_node_has_not_failed(runs):
    runs.train(*[reaching(2, Outcome(word=MOVE))] * 5, done)
    assert runs.events == ["starting the group again elsewhere, from round 2"] * 5


def test_what_would_come_again_is_not_tried_again(runs):
    def refusing(_: TrainingJob) -> Outcome:
        raise InputError("shard 3 is truncated")

    with pytest.raises(InputError, match="shard 3 is truncated"):
        runs.train(refusing, done)
    assert runs.started == 1


@pytest.mark.parametrize("outcome", [Outcome(word=STOP), FAILED], ids=["stopped", "died meanwhile"])
def test_a_run_that_is_told_to_stop_is_not_started_again(outcome, runs):
    runs.stop.set()
    with pytest.raises(TrainingStopped, match=r"training stopped at round 6 of 14, of which there is a checkpoint"):
        runs.train(reaching(6, outcome), done)
    assert runs.started == 1
