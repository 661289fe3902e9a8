"""Doing the items of a test: one after the other in this process, or on the farm. Either gives the same bits.

What an item comes to depends on the item alone, the number of its threads included, and results are added in the order
of the items, whoever made them and whenever they came.
"""

import base64
import hashlib
import io
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch

from gebm.cluster import storage
from gebm.cluster.farm import FarmProgress, FarmSummary, WorkItem, run_farm
from gebm.cluster.npy import encode_npy

THREADS = 1

Key = tuple[int, ...]


class Task(Protocol):
    """A test as items: all that anyone needs to do one, and to put their results together."""

    def keys(self) -> list[Key]:
        """The items, in the order in which `merge` takes their results."""

    def describe(self) -> dict[str, Any]:
        """JSON-able: what results depend on."""

    def open(self, device: str) -> Callable[[Key], np.ndarray]:
        """Once in each process: what does an item, which gives `(k,)` float64."""

    def merge(self, results: Iterable[np.ndarray]) -> Any:
        """What the results, in the order of `keys`, come to together."""


Execute = Callable[[Task], Iterable[np.ndarray]]
"""Gives the results of a task's items, in their order."""


def here(task: Task, device: str = "cpu") -> Iterator[np.ndarray]:
    """The items one after the other, in this process."""
    threads = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        work = task.open(device)
        for key in task.keys():
            yield work(key)
    finally:
        torch.set_num_threads(threads)


def on_farm(
    task: Task,
    *,
    output: str | None,
    actors: int | None,
    gpus_per_actor: float = 0,
    progress: Callable[[FarmProgress], None] | None = None,
    summary: Callable[[FarmSummary], None] | None = None,
) -> Iterator[np.ndarray]:
    """The items on actors of the connected cluster.

    With `output`, results are small files there, named by a manifest: finished ones are kept, and the same call goes on
    where it was cut short. Raises what `run_farm` raises, `InputError` for another test's output among it.
    """
    device = "cuda" if gpus_per_actor > 0 else "cpu"
    output = None if output is None else storage.absolute(output)
    records = run_farm(
        work_items(task),
        partial(_make_worker, task, output, device),
        output,
        settings={"kind": "comparison", "device": device, **task.describe()},
        actors=actors,
        gpus_per_actor=gpus_per_actor,
        progress=progress,
        summary=summary,
        stage="compare",
    )
    for record in records.values():
        data = (
            base64.b64decode(record["npy"])
            if output is None
            else storage.read_bytes(storage.join(output, record["name"]))
        )
        yield np.load(io.BytesIO(data), allow_pickle=False)


def work_items(task: Task) -> list[WorkItem]:
    """One item for each key. Nothing in it is random: the seed is part of the test."""
    return [
        WorkItem("-".join(["tile", *(f"{part:05d}" for part in key)]), 0, {"key": list(key), "threads": THREADS})
        for key in task.keys()
    ]


def _make_worker(task: Task, output: str | None, device: str) -> Callable[[WorkItem, str], dict[str, Any]]:
    torch.set_num_threads(THREADS)
    torch.backends.cuda.matmul.allow_tf32 = False  # ten bits are too few for distances
    do = task.open(device)

    def work(item: WorkItem, attempt: str) -> dict[str, Any]:
        torch.set_num_threads(item.description["threads"])
        data = encode_npy(do(tuple(item.description["key"])))
        if output is None:  # records are JSON
            return {"count": 1, "npy": base64.b64encode(data).decode()}
        name = f"{item.id}-{attempt}.npy"
        storage.write_bytes_atomic(storage.join(output, name), data)
        return {"name": name, "count": 1, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}

    return work
