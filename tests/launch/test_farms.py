"""How many actors a farm has, and what share of a GPU each."""

from __future__ import annotations

import pytest

from gebm.cluster.errors import InputError
from gebm.launch.farms import Actors, plan_actors


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
