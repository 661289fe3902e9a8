"""The Ray side of a farm: actor processes that are started, asked and ended by number, and whose answers come in.

Ray tells of each answer as it comes, by a callback that puts it into a queue: a thousand actors cost the driver nothing
while they work, where `ray.wait` would look at all of them each time. First come, first served.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple, Protocol

import ray

from gebm.cluster.manifest import WorkItem
from gebm.cluster.resources import count_room

Record = dict[str, Any]
Worker = Callable[[WorkItem, str], Record]

MOST_AT_ONCE = 1000
"""Answers taken before the farm publishes and tells."""


class Answer(NamedTuple):
    """What an actor said to `start` (its pid, node_id and host) or `do` (a record and its seconds), or an error."""

    number: int
    when: float
    """It came in, on the clock of `now`."""
    value: Any
    error: BaseException | None


class Actors(Protocol):
    """What a crew needs of actors: Ray's, or those of a simulation, which have a clock of their own."""

    def now(self) -> float: ...

    def room(self) -> int:
        """How many actors the cluster has room for."""

    def start(self, number: int) -> None: ...

    def do(self, number: int, item: WorkItem, attempt: str) -> None: ...

    def end(self, number: int) -> None:
        """End an actor at once. What it was doing is still answered, with an error or by its result."""

    def answers(self, seconds: float) -> list[Answer]:
        """What has come in; if there is nothing, wait for it at most so long."""


class _Actor:
    """What runs in an actor process."""

    def start(self, make_worker: Callable[[], Worker]) -> dict[str, Any]:
        self._work = make_worker()
        node = ray.get_runtime_context().get_node_id()
        return {"pid": os.getpid(), "node_id": node, "host": platform.node()}

    def do(self, item: WorkItem, attempt: str) -> tuple[Record, float]:
        begun = time.perf_counter()
        # What cannot go into the manifest (NaN, an array) is this item's failure, here and by name.
        record = json.loads(json.dumps(self._work(item, attempt), allow_nan=False))
        return record, time.perf_counter() - begun


class RayActors:
    """Actors of the connected cluster with `resources` (`num_cpus`, `num_gpus`) each."""

    def __init__(self, make_worker: Callable[[], Worker], resources: dict[str, float]) -> None:
        self._resources = resources
        self._kind: Any = ray.remote(_Actor).options(max_restarts=0, max_task_retries=0, **resources)
        self._make_worker = ray.put(make_worker)  # once, and not with every actor
        self._actors: dict[int, Any] = {}
        self._answers: SimpleQueue[tuple[int, float, Future[Any]]] = SimpleQueue()

    def now(self) -> float:
        return time.monotonic()

    def room(self) -> int:
        return count_room(self._resources)

    def start(self, number: int) -> None:
        self._actors[number] = self._kind.remote()
        self._listen(number, self._actors[number].start.remote(self._make_worker))

    def do(self, number: int, item: WorkItem, attempt: str) -> None:
        self._listen(number, self._actors[number].do.remote(item, attempt))

    def end(self, number: int) -> None:
        ray.kill(self._actors.pop(number))

    def answers(self, seconds: float) -> list[Answer]:
        found: list[Answer] = []
        try:
            found.append(_open(*self._answers.get(timeout=seconds)))
            while len(found) < MOST_AT_ONCE:
                found.append(_open(*self._answers.get_nowait()))
        except Empty:
            pass
        return found

    def _listen(self, number: int, reference: Any) -> None:
        answers = self._answers
        reference.future().add_done_callback(lambda future: answers.put((number, time.monotonic(), future)))


def _open(number: int, when: float, future: Future[Any]) -> Answer:
    error = future.exception()
    return Answer(number, when, None if error is not None else future.result(), error)
