"""The farm: a pool of Ray actors that maps idempotent work items to outputs, each exactly once.

Actors write their own output to storage and return only a small record of it, so image bytes never pass
through the driver or Ray's object store. An actor that dies is replaced and its item done again; an item's
result depends on the item alone, so neither deaths nor the number of actors change the output.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import ray

from gebm.cluster.actors import RayActors, Record, Worker
from gebm.cluster.crew import Crew
from gebm.cluster.errors import FarmError, InputError
from gebm.cluster.lease import held
from gebm.cluster.ledger import Ledger
from gebm.cluster.manifest import WorkItem
from gebm.cluster.metrics import FarmMetrics
from gebm.cluster.resources import count_room
from gebm.cluster.scheduler import Policy

__all__ = ["FarmError", "FarmProgress", "FarmSummary", "WorkItem", "run_farm"]

PUBLISH_SECONDS = 1.0
"""Least time between two publications of new records."""
TELL_SECONDS = 1.0


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
    seconds_left: float | None = None
    """About how long the rest will take these actors; None when nobody can know: nothing done yet, nobody there."""
    waiting: int = 0
    """Items that no actor has."""
    running: int = 0
    """Items that an actor has, or two."""
    failed: int = 0
    """Items that failed for good."""
    retried: int = 0
    """Tries after a first one, so far."""
    reissued: int = 0
    """Late items that were given to a second actor, so far."""


@dataclass(frozen=True)
class FarmSummary:
    """What a run of a farm came to, also one that was interrupted."""

    seconds: float
    done: int
    """Items of this run alone."""
    failed: int
    retried: int
    reissued: int
    deaths: int
    """Of actors, busy ones and those that rested."""
    actors: dict[str, dict[str, Any]]
    """For each actor that came up, by its label: `host`, `pid`, `node_id`; `items` and `units` that counted;
    `busy_seconds` in the worker's function for these, by its own clock; `lived_seconds` from when it had its worker."""


def run_farm(
    items: Sequence[WorkItem],
    make_worker: Callable[[], Worker],
    output: str | None,
    *,
    settings: dict[str, Any],
    actors: int | None,
    cpus_per_actor: float = 1,
    gpus_per_actor: float = 0,
    tries: int = 3,
    progress: Callable[[FarmProgress], None] | None = None,
    on_actor_start: Callable[[dict[str, Any]], None] | None = None,
    summary: Callable[[FarmSummary], None] | None = None,
    keep: Callable[[WorkItem, Record], Record] | None = None,
    finish: Callable[[dict[str, Record]], None] | None = None,
    policy: Policy = Policy(),  # noqa: B008
    stage: str = "farm",
) -> dict[str, Record]:
    """Do every item on a pool of actors of the connected cluster; return {item id: record} in item order.

    `make_worker()` runs once in each actor (load the model there) and returns `worker(item, attempt)`, which
    writes the item's files under names that hold `attempt` and returns a JSON-able record of them: name,
    count, bytes and sha256 for an item that makes a file, anything else otherwise. Each actor has one item at
    a time.

    With `output`, the directory is this process's alone until the end, see `lease.py`. An existing
    `<output>/manifest.json` of the same settings and items is continued: only items that are missing or whose file is
    damaged are done. Records are published as items finish, also when the run is interrupted, see `Ledger`. Without
    `output` the records are only returned.

    `actors`: so many, of which those that find no room come up when there is some; None for as many as the cluster
    has room for, looked at again every few seconds. An item that raises is done again, up to `tries` times, and more
    often, each time after a longer wait, when the error may pass (memory, disk, storage); then the rest is still done.
    An item that is late at the end is given to a second actor, and the first answer counts; see `Policy`.

    `progress` is called at least every second, `on_actor_start` with {"pid", "node_id", "host"} for each actor that has
    come up, `summary` once, however the run ends. `keep`, without `output` only, is told each item's record when it
    comes and returns what is kept of it: for records that are large. `finish` is told all records once every item is
    done, while the output is still this process's alone: for what is written last. `stage` is the tag of its Ray
    metrics, see `metrics.py`.

    Raises InputError for another run's output, for one that another process is at, for resources that the cluster does
    not have and, at once, for an InputError of a worker; FarmError naming the items that failed for good.
    """
    if len({item.id for item in items}) != len(items):
        raise ValueError("work items must have ids of their own")
    if keep is not None and output is not None:
        raise ValueError("keep is for farms without an output: a manifest has whole records")
    _check_resources(cpus_per_actor, gpus_per_actor)
    begin = told = time.monotonic()

    def tell_found(found: dict[str, Record]) -> None:
        nonlocal told
        if progress is not None and time.monotonic() - told >= TELL_SECONDS:
            told = time.monotonic()
            progress(FarmProgress(len(found), len(items), sum(map(_units, found.values())), told - begin, 0.0, []))

    with nullcontext() if output is None else held(output) as hold:
        ledger = None
        if output is not None and hold is not None:
            ledger = Ledger(output, settings, items, tell_found, hold.check)
        records: dict[str, Record] = ledger.records if ledger is not None else {}
        resources = {"num_cpus": cpus_per_actor, "num_gpus": gpus_per_actor}
        left = [item for item in items if item.id not in records]
        crew = Crew(RayActors(make_worker, resources), left, actors, replace(policy, tries=tries), on_actor_start)
        resumed_units = units = sum(map(_units, records.values()))
        begin = published = time.monotonic()
        metrics, metered = FarmMetrics(stage), -TELL_SECONDS

        def tell() -> None:
            nonlocal metered
            seconds = time.monotonic() - begin
            state = _progress(
                crew, len(records), len(items), units, (units - resumed_units) / max(seconds, 1e-9), seconds
            )
            if seconds - metered >= TELL_SECONDS or not crew.has_work():  # seven calls of Ray
                metrics.tell(state)
                metered = seconds
            if progress is not None:
                progress(state)

        try:
            tell()
            while crew.has_work():
                for item, record in crew.wait():
                    units += _units(record)
                    metrics.item(record)
                    if ledger is not None:
                        ledger.add(item.id, record)
                    else:
                        records[item.id] = record if keep is None else keep(item, record)
                if ledger is not None and ledger.has_news() and time.monotonic() - published >= PUBLISH_SECONDS:
                    ledger.publish()
                    published = time.monotonic()
                tell()
        finally:
            crew.dismiss()
            if summary is not None:
                summary(_summary(crew, time.monotonic() - begin))
            if ledger is not None:
                ledger.publish()
        if ledger is not None:
            ledger.close()
        crew.raise_failures(len(items))
        if ledger is not None:
            crew.await_ended()
            ledger.remove_strays()
        complete = {item.id: records[item.id] for item in items}
        if finish is not None:
            if hold is not None:
                hold.check()
            finish(complete)
        return complete


def _progress(crew: Crew, done: int, total: int, units: int, rate: float, seconds: float) -> FarmProgress:
    scheduler = crew.scheduler
    return FarmProgress(
        done=done,
        total=total,
        units_done=units,
        seconds=seconds,
        rate=rate,
        actor_pids=crew.pids(),
        seconds_left=scheduler.seconds_left(),
        waiting=scheduler.waiting,
        running=scheduler.running,
        failed=len(scheduler.failures),
        retried=scheduler.retried,
        reissued=scheduler.reissued,
    )


def _summary(crew: Crew, seconds: float) -> FarmSummary:
    scheduler = crew.scheduler
    return FarmSummary(
        seconds=seconds,
        done=scheduler.finished_count,
        failed=len(scheduler.failures),
        retried=scheduler.retried,
        reissued=scheduler.reissued,
        deaths=scheduler.deaths,
        actors=crew.describe(),
    )


def _check_resources(cpus: float, gpus: float) -> None:
    there = ray.cluster_resources()
    for name, needed in (("CPU", cpus), ("GPU", gpus)):
        if needed > there.get(name, 0):
            raise InputError(
                f"an actor needs {needed:g} {name}s, the cluster has {there.get(name, 0):g}; ask for fewer"
            )
    if count_room({"num_cpus": cpus, "num_gpus": gpus}) == 0:
        raise InputError(
            f"no node of the cluster has room for an actor with {cpus:g} CPUs and {gpus:g} GPUs; ask for fewer"
        )


def _units(record: Record) -> int:
    return int(record.get("count", 0))
