"""Worker planning: what is asked for, or a sensible default, and never what the cluster does not have."""

import pytest
import ray

from gebm.cluster.errors import InputError
from gebm.cluster.farm import WorkItem, run_farm
from gebm.cluster.resources import WorkerResources, count_cpus, count_gpus, count_room, plan_workers
from tests.cluster.farm_work import no_worker


@pytest.fixture
def cluster(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    cpus, gpus = request.param
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": float(cpus), "GPU": float(gpus)})


@pytest.mark.parametrize(
    ("cluster", "workers", "gpus", "plan"),
    [
        ((2, 0), None, None, (2, 1, 0)),
        ((1, 0), None, None, (1, 1, 0)),
        ((64, 0), None, None, (2, 1, 0)),
        ((64, 0), 16, None, (16, 1, 0)),
        ((2, 0), 4, None, (4, 0.5, 0)),
        ((16, 4), None, None, (4, 1, 1)),
        ((16, 4), 2, None, (2, 1, 1)),
        ((16, 1), 2, None, (2, 1, 0.5)),
        ((16, 4), None, 2, (2, 1, 2)),
        ((16, 1), None, 0.25, (4, 1, 0.25)),
        ((16, 4), None, 0, (2, 1, 0)),
        ((16, 4), 3, 0, (3, 1, 0)),
    ],
    indirect=["cluster"],
)
def test_plans(cluster: None, workers: int | None, gpus: float | None, plan: tuple) -> None:
    assert plan_workers(workers, gpus) == WorkerResources(*plan)


@pytest.mark.parametrize("cluster", [(16, 2)], indirect=True)
@pytest.mark.parametrize(
    ("workers", "gpus", "message"),
    [(0, None, "workers is 0"), (1, -1, "gpus_per_worker is -1"), (3, 1, "need 3 GPUs, the cluster has 2")],
)
def test_wishes_that_cannot_be_granted(cluster: None, workers: int, gpus: float, message: str) -> None:
    with pytest.raises(InputError, match=message):
        plan_workers(workers, gpus)


def test_the_connected_cluster_is_counted(ray_cluster: None) -> None:
    assert count_cpus() == 2
    assert count_gpus() == int(ray.cluster_resources().get("GPU", 0))


def test_room_is_counted_node_by_node_and_on_living_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [
        {"Alive": True, "Resources": {"CPU": 4.0, "GPU": 1.0}},
        {"Alive": True, "Resources": {"CPU": 3.0}},
        {"Alive": True, "Resources": {"memory": 1e9}},
        {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}},
    ]
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    assert count_room({"num_cpus": 1, "num_gpus": 0}) == 7
    assert count_room({"num_cpus": 2, "num_gpus": 0}) == 3  # and not 7 / 2: an actor lives on one node
    assert count_room({"num_cpus": 1, "num_gpus": 0.1}) == 4  # as many as one node's CPUs
    assert count_room({"num_cpus": 0, "num_gpus": 0.1}) == 10
    assert count_room({"num_cpus": 5, "num_gpus": 0}) == 0
    assert count_room({}) == 7


def test_an_actor_that_is_larger_than_any_node_is_refused_and_does_not_hang(
    ray_cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = [{"Alive": True, "Resources": {"CPU": 1.0}}] * 2
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    with pytest.raises(InputError, match="no node of the cluster has room for an actor with 2 CPUs and 0 GPUs"):
        run_farm([WorkItem("a", 0, {})], no_worker, None, settings={}, actors=None, cpus_per_actor=2)
