"""The driver's side of a group of workers, with a board and a clock of the test's: when it ends whom."""

import threading
import time
from typing import Any

import pytest

from gebm.trainer import group
from gebm.trainer.council import GO_ON, STOP
from gebm.trainer.group import GroupRun
from gebm.trainer.heartbeat import END

SIGN = {"number": 0, "pid": 11, "born": "7", "node": "node", "host": "host", "round": 3, "place": "", "waits": ""}


class Desk:
    """Stands for Ray: a group that runs for some polls, its board, and the processes that were ended."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, *, polls: int, seconds: float, signs: dict[int, dict[str, Any]]
    ):
        self.words: list[str] = []
        self.ended: list[tuple[str, int, str]] = []
        self.records: list[dict[str, Any]] = []
        self.told: list[dict[str, Any]] = []
        self.stop = threading.Event()
        self._left, self._seconds, self._signs, self._now = polls, seconds, signs, 1000.0
        monkeypatch.setattr(group, "drain", self._drain)
        monkeypatch.setattr(group, "signs_of_life", self._hear)
        monkeypatch.setattr(group, "end_process", lambda *process: self.ended.append(process))
        monkeypatch.setattr(time, "monotonic", lambda: self._now)
        self.run = GroupRun(None, None, None, self.told.append, self.stop)  # type: ignore[arg-type]
        self.run._fit = self  # type: ignore[assignment]

    def start(self) -> None:
        """As a thread."""

    def is_alive(self) -> bool:
        return self._left > 0

    def join(self, _: float) -> None:
        self._left -= 1
        self._now += self._seconds

    def _drain(self, _: Any) -> list[dict[str, Any]]:
        records, self.records = self.records, []
        return records

    def _hear(self, _: Any, word: str) -> dict[int, dict[str, Any]]:
        self.words.append(word)
        return self._signs


def test_a_worker_that_is_silent_for_a_minute_is_ended_on_its_node(monkeypatch):
    desk = Desk(monkeypatch, polls=130, seconds=0.5, signs={0: {**SIGN, "over": False}})
    desk.run.outcome()
    assert desk.ended == [("node", 11, "7")]
    assert Desk(monkeypatch, polls=110, seconds=0.5, signs={0: {**SIGN, "over": False}}).run.outcome().word == GO_ON


def test_a_machine_that_was_paused_for_hours_ends_nobody(monkeypatch):
    """Its workers were paused with it. The driver may look before they had time to give a sign."""
    desk = Desk(monkeypatch, polls=5, seconds=3600.0, signs={0: {**SIGN, "over": False}})
    desk.run.outcome()
    assert desk.ended == []


def test_workers_that_run_are_told_to_stop_and_waited_for(monkeypatch):
    desk = Desk(monkeypatch, polls=200, seconds=0.5, signs={0: {**SIGN, "over": True}})
    desk.stop.set()
    desk.records = [{"round": 8}, {"stopped": 9, "word": STOP}]
    assert desk.run.outcome().word == STOP
    assert desk.words[:-1] == [STOP] * 200
    assert desk.told == [{"event": "stopping after this round, with a checkpoint"}, {"round": 8}]


def test_a_group_that_has_not_begun_when_it_is_told_to_stop_is_not_waited_for_for_long(monkeypatch):
    """It may wait for room in the cluster for hours."""
    desk = Desk(monkeypatch, polls=10_000, seconds=0.5, signs={})
    desk.stop.set()
    assert desk.run.outcome().word == STOP
    assert len(desk.words) == pytest.approx(2 * group.NOT_BEGUN_SECONDS, abs=2)


def test_a_driver_that_is_interrupted_ends_its_workers_first(monkeypatch):
    class Interrupt(BaseException):
        """A second Ctrl-C, say."""

    def tell(record: dict[str, Any]) -> None:
        raise Interrupt

    desk = Desk(monkeypatch, polls=10_000, seconds=0.5, signs={0: {**SIGN, "over": False}})
    desk.records = [{"round": 8}]
    desk.run._tell = tell
    with pytest.raises(Interrupt):
        desk.run.outcome()
    assert set(desk.words) == {END} and len(desk.words) == pytest.approx(2 * group.LAST_SECONDS, abs=2)
