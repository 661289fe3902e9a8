"""The farm: a pool of Ray actors that maps idempotent work items to outputs, each exactly once.

Actors write their own output to storage and return only a small record of it, so image bytes never pass
through the driver or Ray's object store. An actor that dies is replaced and its item done again; an item's
result depends on the item alone, so neither deaths nor the number of actors change the output.
"""

import logging
import os
import platform
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import ray
from ray.exceptions import RayError, RayTaskError

from gebm.cluster.errors import FarmError, InputError
from gebm.cluster.manifest import (
    Manifest,
    WorkItem,
    begin_manifest,
    new_attempt,
    remove_strays,
    with_items,
    write_manifest,
)

__all__ = ["FarmError", "FarmProgress", "WorkItem", "run_farm"]

Record = dict[str, Any]
Worker = Callable[[WorkItem, str], Record]

DEATHS_ALLOWED = 5
"""An item that was in the hands of this many actors when they died is taken to be what kills them."""
WAIT_SECONDS = 0.5
MANIFEST_SECONDS = 1.0
"""Least time between two writings of the manifest: with thousands of items each costs more than the item."""
PATIENCE_SECONDS = 30.0

_log = logging.getLogger(__name__)


class FarmProgress(NamedTuple):
    """Where a farm stands."""

    done: int
    """Items done, those of earlier runs included."""
    total: int
    units_done: int
    """Sum of the records' "count" (images, rows), those of earlier runs included."""
    seconds: float
    """Since this run began."""
    rate: float
    """Units a second, of this run alone."""
    actor_pids: list[int]
    """Process ids of the living actors."""


def run_farm(
    items: Sequence[WorkItem],
    make_worker: Callable[[], Worker],
    output: str | None,
    *,
    settings: dict[str, Any],
    actors: int,
    cpus_per_actor: float = 1,
    gpus_per_actor: float = 0,
    tries: int = 3,
    progress: Callable[[FarmProgress], None] | None = None,
    on_actor_start: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Record]:
    """Do every item on a pool of actors of the connected cluster; return {item id: record} in item order.

    `make_worker()` runs once in each actor (load the model there) and returns `worker(item, attempt)`, which
    writes the item's files under names that hold `attempt` and returns a JSON-able record of them: name,
    count, bytes and sha256 for an item that makes a file, anything else otherwise. Each actor has one item at
    a time.

    With `output`, an existing `<output>/manifest.json` of the same settings and items is continued: only
    items that are missing or whose file is damaged are done. The manifest is rewritten as items finish, also
    when the run is interrupted. Without `output` the records are only returned.

    An item that raises is done again, up to `tries` times; then the rest is still done. `progress` is called
    at least every second, `on_actor_start` with {"pid", "node_id", "host"} for each actor that has come up.

    Raises InputError for another run's output, for resources that the cluster does not have and, at once, for
    an InputError of a worker; FarmError naming the items that failed for good.
    """
    if len({item.id for item in items}) != len(items):
        raise ValueError("work items must have ids of their own")
    _check_resources(cpus_per_actor, gpus_per_actor)
    manifest = begin_manifest(output, settings, items) if output is not None else None
    records = dict(manifest.items) if manifest is not None else {}
    crew = _Crew(
        make_worker,
        [item for item in items if item.id not in records],
        actors,
        {"num_cpus": cpus_per_actor, "num_gpus": gpus_per_actor},
        tries,
        on_actor_start,
    )
    resumed_units = _units(records)
    begin = written = time.monotonic()

    def tell() -> None:
        if progress is not None:
            seconds, units = time.monotonic() - begin, _units(records)
            rate = (units - resumed_units) / max(seconds, 1e-9)
            progress(FarmProgress(len(records), len(items), units, seconds, rate, crew.pids()))

    def publish(manifest: Manifest) -> Manifest:
        manifest = with_items(manifest, {item.id: records[item.id] for item in items if item.id in records})
        if output is not None:
            write_manifest(output, manifest)
        return manifest

    try:
        tell()
        while crew.has_work():
            for item, record in crew.wait():
                records[item.id] = record
            if manifest is not None and time.monotonic() - written >= MANIFEST_SECONDS:
                manifest = publish(manifest)
                written = time.monotonic()
            tell()
    finally:
        crew.dismiss()
        if manifest is not None:
            manifest = publish(manifest)
    crew.raise_failures(len(items))
    if output is not None and manifest is not None:
        remove_strays(output, manifest)
    return {item.id: records[item.id] for item in items}


class _Actor:
    """What runs in an actor process."""

    def start(self, make_worker: Callable[[], Worker]) -> dict[str, Any]:
        self._work = make_worker()
        node = ray.get_runtime_context().get_node_id()
        return {"pid": os.getpid(), "node_id": node, "host": platform.node()}

    def run(self, item: WorkItem, attempt: str) -> Record:
        return self._work(item, attempt)


@dataclass
class _Seat:
    """One living actor, and the item it has: None while it starts."""

    actor: Any
    pid: int | None = None
    item: WorkItem | None = None


class _Crew:
    """The actors, the items that wait and the failures so far."""

    def __init__(
        self,
        make_worker: Callable[[], Worker],
        items: list[WorkItem],
        actors: int,
        resources: dict[str, float],
        tries: int,
        on_actor_start: Callable[[dict[str, Any]], None] | None,
    ) -> None:
        self._make_worker, self._actors, self._tries = make_worker, max(1, actors), tries
        self._waiting = deque(items)
        self._actor_class: Any = ray.remote(_Actor).options(max_restarts=0, max_task_retries=0, **resources)
        self._on_actor_start = on_actor_start
        self._seats: dict[Any, _Seat] = {}  # by the reference of what the actor is doing
        self._errors: dict[str, list[BaseException]] = {}
        self._deaths: dict[str, int] = {}
        self._failed: dict[str, BaseException] = {}
        self._failed_starts = 0
        self._idle_since: float | None = time.monotonic()

    def has_work(self) -> bool:
        return bool(self._waiting) or any(seat.item is not None for seat in self._seats.values())

    def pids(self) -> list[int]:
        return [seat.pid for seat in self._seats.values() if seat.pid is not None]

    def wait(self) -> list[tuple[WorkItem, Record]]:
        """Keep the actors busy for at most WAIT_SECONDS; return what was finished."""
        while len(self._seats) < self._actors and self._free_starts() < len(self._waiting):
            actor: Any = self._actor_class.remote()
            self._seats[actor.start.remote(self._make_worker)] = _Seat(actor)
        ready, _ = ray.wait(list(self._seats), num_returns=1, timeout=WAIT_SECONDS)
        if not ready:
            self._warn_if_nothing_starts()
        return [done for reference in ready if (done := self._settle(reference)) is not None]

    def _free_starts(self) -> int:
        """Actors that are still coming up and will take an item then."""
        return sum(seat.item is None for seat in self._seats.values())

    def _settle(self, reference: Any) -> tuple[WorkItem, Record] | None:
        """Take the answer of one actor, give it the next item; return (item, record) if it finished one."""
        seat = self._seats.pop(reference)
        finished = None
        try:
            answer = ray.get(reference)
        except RayTaskError as error:
            self._note_error(seat, error)
        except RayError as error:
            self._note_death(seat, error)
            return None
        else:
            if seat.item is None:
                seat.pid = answer["pid"]
                self._failed_starts, self._idle_since = 0, None
                if self._on_actor_start is not None:
                    self._on_actor_start(answer)
            else:
                finished = seat.item, answer
        if seat.pid is None or not self._waiting:
            ray.kill(seat.actor)  # it could not start, or nothing is left for it
            return finished
        seat.item = self._waiting.popleft()
        self._seats[seat.actor.run.remote(seat.item, new_attempt())] = seat
        return finished

    def _note_error(self, seat: _Seat, error: RayTaskError) -> None:
        cause = error.cause if isinstance(error.cause, BaseException) else error
        if isinstance(cause, InputError):
            raise InputError(str(cause)) from error
        if seat.item is None:
            self._note_failed_start(error, cause)
            return
        errors = self._errors.setdefault(seat.item.id, [])
        errors.append(cause)
        if len(errors) < self._tries:
            self._waiting.append(seat.item)
        else:
            self._failed[seat.item.id] = error

    def _note_death(self, seat: _Seat, error: RayError) -> None:
        ray.kill(seat.actor)  # a node that is only cut off must not go on writing
        if seat.item is None:
            self._note_failed_start(error, error)
            return
        _log.warning("actor %s died; item %s is done again by another", seat.pid, seat.item.id)
        self._deaths[seat.item.id] = self._deaths.get(seat.item.id, 0) + 1
        if self._deaths[seat.item.id] < DEATHS_ALLOWED:
            self._waiting.appendleft(seat.item)
        else:
            self._failed[seat.item.id] = error

    def _note_failed_start(self, error: BaseException, cause: BaseException) -> None:
        self._failed_starts += 1
        if self._failed_starts >= self._tries * self._actors:
            raise FarmError(f"no worker could start: {_spell(cause)}") from error

    def _warn_if_nothing_starts(self) -> None:
        if self._idle_since is not None and time.monotonic() - self._idle_since > PATIENCE_SECONDS:
            _log.warning(
                "no actor has started in %.0f s: are the cluster's CPUs and GPUs held by others?",
                PATIENCE_SECONDS,
            )
            self._idle_since = None

    def dismiss(self) -> None:
        """End every actor."""
        for seat in self._seats.values():
            ray.kill(seat.actor)
        self._seats.clear()

    def raise_failures(self, total: int) -> None:
        if not self._failed:
            return
        causes = {
            name: _spell(self._errors[name][-1] if self._errors.get(name) else error)
            for name, error in self._failed.items()
        }
        named = "; ".join(f"{name} ({cause})" for name, cause in causes.items())
        raise FarmError(
            f"{len(causes)} of {total} work items failed after {self._tries} tries: {named}; "
            "the others are done"
        ) from next(iter(self._failed.values()))


def _check_resources(cpus: float, gpus: float) -> None:
    there = ray.cluster_resources()
    for name, needed in (("CPU", cpus), ("GPU", gpus)):
        if needed > there.get(name, 0):
            raise InputError(
                f"an actor needs {needed:g} {name}s, the cluster has {there.get(name, 0):g}; ask for fewer"
            )


def _units(records: dict[str, Record]) -> int:
    return sum(int(record.get("count", 0)) for record in records.values())


def _spell(error: BaseException) -> str:
    first_line = (str(error).strip() or "no message").splitlines()[0]
    return f"{type(error).__name__}: {first_line[:300]}"
