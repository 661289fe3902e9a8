"""Turning "N workers, GPUs each" into what a Ray cluster has."""

from dataclasses import dataclass

import ray

from gebm.cluster.errors import InputError

DEFAULT_CPU_WORKERS = 2


@dataclass(frozen=True)
class WorkerResources:
    """A group of equal workers."""

    workers: int
    cpus_per_worker: float
    gpus_per_worker: float


def count_cpus() -> int:
    """Return the number of CPUs of the connected cluster."""
    return int(ray.cluster_resources().get("CPU", 0))


def count_gpus() -> int:
    """Return the number of GPUs of the connected cluster."""
    return int(ray.cluster_resources().get("GPU", 0))


def count_room(needed: dict[str, float]) -> int:
    """Return how many actors with `num_cpus` and `num_gpus` each would fit on the living nodes of the cluster.

    What others hold is not counted off: it may come free. An actor that needs nothing is counted as one a CPU.
    """
    wishes = {"CPU": needed.get("num_cpus", 0), "GPU": needed.get("num_gpus", 0)}
    wishes = {name: number for name, number in wishes.items() if number > 0} or {"CPU": 1}
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return sum(min(int(node.get(name, 0) / number + 1e-9) for name, number in wishes.items()) for node in nodes)


def plan_workers(
    workers: int | None = None,
    gpus_per_worker: float | None = None,
    *,
    cpus_per_worker: float = 1,
) -> WorkerResources:
    """Return the worker group to start on the connected cluster.

    Without wishes: one worker for each GPU where there are GPUs, else two workers on CPUs (one on a machine
    with one CPU). `gpus_per_worker` may be a share: at 0.5 two workers use one GPU.
    Raises InputError for a wish that no cluster could grant, or more GPUs than there are.
    """
    if workers is not None and workers < 1:
        raise InputError(f"workers is {workers}; it must be at least 1")
    if gpus_per_worker is not None and gpus_per_worker < 0:
        raise InputError(f"gpus_per_worker is {gpus_per_worker}; it must be 0 or more")
    gpus = count_gpus()
    if gpus_per_worker is None:
        # More workers than GPUs were asked for: they share, as long as they fit.
        gpus_per_worker = 0.0 if gpus == 0 else min(1.0, gpus / workers) if workers else 1.0
    if gpus_per_worker > 0:
        workers = workers or max(1, int(gpus / gpus_per_worker))
        if workers * gpus_per_worker > gpus + 1e-9:
            raise InputError(
                f"{workers} workers with {gpus_per_worker:g} GPUs each need "
                f"{workers * gpus_per_worker:g} GPUs, the cluster has {gpus}; "
                "lower workers or gpus_per_worker"
            )
    else:
        workers = workers or max(1, min(DEFAULT_CPU_WORKERS, int(count_cpus() / cpus_per_worker)))
    # A CPU worker beyond the number of CPUs would wait for ever: let them share.
    cpus = count_cpus()
    if cpus and workers * cpus_per_worker > cpus:
        cpus_per_worker = int(100 * cpus / workers) / 100
    return WorkerResources(workers, cpus_per_worker, gpus_per_worker)
