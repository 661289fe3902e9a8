"""How many actors a farm has, and what share of a GPU each."""

from __future__ import annotations

import pytest

from gebm.cluster.errors import InputError
from gebm.cluster.farm import FarmProgress
from gebm.launch.farms import Actors, farm_report, plan_actors, time_words


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch):
    """`cluster(cpus, gpus)`: what the connected cluster is taken to have."""

    def has(cpus: int, gpus: int) -> None:
        monkeypatch.setattr("gebm.launch.farms.count_cpus", lambda: cpus)
        monkeypatch.setattr("gebm.launch.farms.count_gpus", lambda: gpus)

    return has


@pytest.mark.parametrize(
    ("gpus", "actors", "share", "expected"),
    [
        (0, None, None, Actors(6, 0)),
        (2, None, None, Actors(2, 1.0)),
        (2, 8, None, Actors(8, 0.25)),
        (2, None, 0.5, Actors(4, 0.5)),
        (2, None, 0.3, Actors(6, 0.3)),  # three find room on a GPU
        (2, None, 1 / 3, Actors(6, 1 / 3)),
        (4, 8, 0.5, Actors(8, 0.5)),
        (2, None, 0, Actors(6, 0)),
        (2, 3, 0, Actors(3, 0)),
        (0, 3, 0, Actors(3, 0)),
    ],
)
def test_actors_share_gpus_as_they_are_told(cluster, gpus: int, actors: int | None, share: float | None, expected):
    cluster(6, gpus)
    assert plan_actors(actors, share) == expected


@pytest.mark.parametrize(
    ("gpus", "actors", "share", "message"),
    [
        (2, 0, None, "--actors 0: give at least 1"),
        (2, None, 1.5, r"--gpus-per-actor 1\.5: an actor uses one GPU"),
        (2, None, -0.5, r"--gpus-per-actor -0\.5: an actor uses one GPU"),
        (2, None, float("nan"), "--gpus-per-actor nan"),
        (0, 4, 0.5, r"--gpus-per-actor 0\.5: the cluster has no GPU; give 0"),
    ],
)
def test_what_no_cluster_can_grant_is_refused(cluster, gpus, actors, share, message):
    cluster(6, gpus)
    with pytest.raises(InputError, match=message):
        plan_actors(actors, share)


def told(progress: FarmProgress, total: int) -> tuple[int, int, str]:
    lines: list[tuple[int, int, str]] = []
    farm_report(lambda *line: lines.append(line), "samples", total)(progress)
    return lines[0]


def test_a_farm_says_how_fast_it_is_and_how_long_it_will_take():
    progress = FarmProgress(3, 10, 750, 5.0, 150.0, [7, 8], seconds_left=61.6)
    assert told(progress, 2500) == (750, 2500, "samples  150.0 a second  2 actors  about 62 s left")
    assert told(progress, 0) == (3, 10, "samples  2 actors  about 62 s left")
    troubled = progress._replace(actor_pids=[7], seconds_left=None, retried=2, failed=1)
    assert told(troubled, 2500)[2] == "samples  150.0 a second  1 actor  2 tried again  1 failed"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "about 1 s"), (89, "about 89 s"), (100, "about 2 min"), (5000, "about 83 min"), (9000, "about 2.5 h")],
)
def test_a_time_is_told_as_well_as_it_is_known(seconds, words):
    assert time_words(seconds) == words
