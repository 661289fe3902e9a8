"""A run that loses workers, in every way that there is, ends as if nothing had been.

Two workers on a real Ray Train group. Moments are drawn with a stated seed, from the time that a line is posted on.
"""

import os
import random
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from gebm.trainer import group
from gebm.trainer.driver import train
from gebm.trainer.metrics import read_metrics
from gebm.trainer.settings import TrainerSettings
from tests.trainer.tiny_runs import MLP, SETTINGS, weights_digest, write_points

pytestmark = pytest.mark.usefixtures("ray_cluster")

SEED = 0
STORM_EVERY = 60  # rounds
SILENT_SECONDS = 5.0
# Checkpoints of every 20 rounds, so that some storms come while one is written, and long enough for three storms.
LONG = TrainerSettings.model_validate(
    SETTINGS | {"joint": {"steps": 220}, "energy": {"steps": 60}, "log_every": 10, "checkpoint_every": 20}
)
NAMED = r"rank {rank} \(process {pid} on \S+, last heard of in round \d+\)"


class Storm:
    """Takes the records of a run, and does what is next on its list each time that some rounds are done."""

    def __init__(self, *deeds: str):
        self.events: list[str] = []
        self.workers: dict[int, int] = {}
        self.victims: list[dict[int, int]] = []
        self.seconds = 0.0
        """From the last deed to the event that tells of it."""
        self._deeds, self._next, self._since = list(deeds), STORM_EVERY, 0.0
        self._random = random.Random(SEED)

    def __call__(self, record: dict[str, Any]) -> None:
        if "event" in record:
            self.events.append(record["event"])
            if found := re.search(r"worker (\d) of 2 is process (\d+)", record["event"]):
                self.workers[int(found[1]) - 1] = int(found[2])
            if "starting the group again" in record["event"]:
                self.seconds = time.monotonic() - self._since
        elif self._deeds and record["round"] >= self._next:
            self._next = record["round"] + STORM_EVERY
            time.sleep(self._random.uniform(0.0, 0.5))
            self._do(self._deeds.pop(0))

    def _do(self, deed: str) -> None:
        self._since = time.monotonic()
        number = signal.SIGSTOP if deed == "hang one" else signal.SIGKILL
        victims = dict(self.workers) if deed == "kill all" else {1: self.workers[1]}
        for pid in victims.values():
            os.kill(pid, number)
        self.victims.append(victims)


def run(out: Path, data: str, storm: Storm) -> None:
    train(run=str(out), data=data, model=MLP, settings=LONG, seed=0, workers=2, progress=storm)


def test_killed_and_hung_workers_change_neither_metrics_nor_weights_and_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(group, "SILENT_SECONDS", SILENT_SECONDS)
    data = write_points(tmp_path / "points")
    run(tmp_path / "calm", data, Storm())

    out = tmp_path / "stormy"
    storm = Storm("kill one", "kill all", "hang one")
    run(out, data, storm)
    assert read_metrics(str(out)) == read_metrics(str(tmp_path / "calm"))
    assert weights_digest(out) == weights_digest(tmp_path / "calm")

    told = [event for event in storm.events if "starting the group again from round" in event]
    one, every, hung = storm.victims
    dead = [NAMED.format(rank=rank, pid=pid) for rank, pid in every.items()]
    assert re.match(NAMED.format(rank=1, pid=one[1]) + " died, while rank 0 ", told[0])
    assert any(re.search(name + " died", told[1]) for name in dead)
    silence = NAMED.format(rank=1, pid=hung[1]) + r" gave no sign of life for \d+ s and was ended, while rank 0 waited"
    assert re.match(silence, told[2]) and len(told) == 3
    assert storm.seconds < SILENT_SECONDS + 15.0
    with pytest.raises(ProcessLookupError):
        os.kill(hung[1], 0)
