"""Worker planning: what is asked for, or a sensible default, and never what the cluster does not have."""

import pytest
import ray

from gebm.cluster.errors import InputError
from gebm.cluster.resources import WorkerResources, count_cpus, count_gpus, plan_workers


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
