"""Run by `test_farm_growth.py` as a process of its own: a farm on a cluster that gets another node in the middle.

Prints a line of JSON for each of two farms: without a number of actors, and with one more than there is room for.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from typing import Any

import ray
from ray.cluster_utils import Cluster

from gebm.cluster import crew
from gebm.cluster.farm import FarmProgress, FarmSummary, WorkItem, run_farm

NODE = {"num_cpus": 1, "object_store_memory": 80 << 20}
ITEMS = 30


def make_worker() -> Callable[[WorkItem, str], dict[str, Any]]:
    def work(item: WorkItem, attempt: str) -> dict[str, Any]:
        time.sleep(0.3)
        return {"count": 1}

    return work


def grow_within(cluster: Cluster, actors: int | None) -> dict[str, Any]:
    """Run a farm to which a node is added after two items."""
    nodes, most_before, summaries = len(cluster.list_all_nodes()), 0, list[FarmSummary]()

    def grow(progress: FarmProgress) -> None:
        nonlocal most_before
        if len(cluster.list_all_nodes()) == nodes:
            most_before = max(most_before, len(progress.actor_pids))
            if progress.done >= 2:
                cluster.add_node(**NODE)

    items = [WorkItem(f"item-{n}", n, {}) for n in range(ITEMS)]
    records = run_farm(items, make_worker, None, settings={}, actors=actors, progress=grow, summary=summaries.append)
    return {
        "records": len(records),
        "before": most_before,
        "nodes": len({each["node_id"] for each in summaries[0].actors.values()}),
        "least_items": min(each["items"] for each in summaries[0].actors.values()),
        "actors": len(summaries[0].actors),
    }


def main() -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    crew.ROOM_SECONDS = 0.5
    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    try:
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        for actors in (None, 3):
            print(json.dumps(grow_within(cluster, actors)), flush=True)
    finally:
        ray.shutdown()
        cluster.shutdown()


if __name__ == "__main__":
    main()
