"""The farm: a pool of Ray actors that maps idempotent work items to outputs, each exactly once.

Actors write their own output to storage and return only a small record of it, so image bytes never pass
through the driver or Ray's object store. An actor that dies is replaced and its item done again; an item's
result depends on the item alone, so neither deaths nor the number of actors change the output.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import ray

from gebm.cluster.crew import Crew, Record, Worker
from gebm.cluster.errors import FarmError, InputError
from gebm.cluster.manifest import (
    Manifest,
    WorkItem,
    begin_manifest,
    remove_strays,
    with_items,
    write_manifest,
)

__all__ = ["FarmError", "FarmProgress", "WorkItem", "run_farm"]

MANIFEST_SECONDS = 1.0
"""Least time between two writings of the manifest: with thousands of items each costs more than the item."""


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
    crew = Crew(
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
            # Not before there is something to name: a run that failed at once must not claim the directory.
            news = manifest is not None and len(records) > len(manifest.items)
            if manifest is not None and news and time.monotonic() - written >= MANIFEST_SECONDS:
                manifest = publish(manifest)
                written = time.monotonic()
            tell()
    finally:
        crew.dismiss()
        if manifest is not None and len(records) > len(manifest.items):
            manifest = publish(manifest)
    crew.raise_failures(len(items))
    if output is not None and manifest is not None:
        remove_strays(output, manifest)
    return {item.id: records[item.id] for item in items}


def _check_resources(cpus: float, gpus: float) -> None:
    there = ray.cluster_resources()
    for name, needed in (("CPU", cpus), ("GPU", gpus)):
        if needed > there.get(name, 0):
            raise InputError(
                f"an actor needs {needed:g} {name}s, the cluster has {there.get(name, 0):g}; ask for fewer"
            )


def _units(records: dict[str, Record]) -> int:
    return sum(int(record.get("count", 0)) for record in records.values())
