"""A drill: a node with a worker on it is drained as a spot machine is, in a cluster of four nodes on this machine.

`make drill`, or `python -m tests.drills.preemption`: a minute or two. Training must make a checkpoint at once, also in
the middle of a line of metrics, go on on the nodes that stay, and end with the lines and weights of a run that was
left alone.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import ray
from ray.cluster_utils import Cluster

from gebm.trainer.driver import train
from gebm.trainer.metrics import read_metrics
from gebm.trainer.settings import TrainerSettings
from tests.trainer.tiny_runs import MLP, SETTINGS, weights_digest, write_points

STORE_BYTES = 80 << 20
AT_ROUND = 200
LONG = TrainerSettings.model_validate(
    SETTINGS | {"joint": {"steps": 1500}, "log_every": 50, "checkpoint_every": 500, "energy": {"steps": 200}}
)


class Drain:
    """Takes the records of a run, and drains the node of one worker, once there is another one to go to."""

    def __init__(self, cluster: Cluster, node: Any):
        self.events: list[str] = []
        self._cluster, self._node, self._done = cluster, node, False

    def __call__(self, record: dict[str, Any]) -> None:
        if "event" in record:
            self.events.append(record["event"])
            print(record["event"], flush=True)
        elif not self._done and record["round"] >= AT_ROUND:
            self._done = True
            self._cluster.add_node(num_cpus=1, object_store_memory=STORE_BYTES)
            command = [sys.executable, "-m", "ray.scripts.scripts", "drain-node", "--address", self._cluster.address]
            command += ["--node-id", self._node.node_id, "--reason", "DRAIN_NODE_REASON_PREEMPTION"]
            command += ["--reason-message", "drill", "--deadline-remaining-seconds", "120"]
            subprocess.run(command, check=True, capture_output=True)


def main() -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    folder = Path(tempfile.mkdtemp(prefix="gebm-drill-"))
    data = write_points(folder / "points")
    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": STORE_BYTES}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        nodes = [cluster.add_node(num_cpus=1, object_store_memory=STORE_BYTES) for _ in range(2)]
        ray.init(address=cluster.address, log_to_driver=False)
        drain = Drain(cluster, nodes[1])
        for out, progress in (("calm", None), ("drained", drain)):
            run = str(folder / out)
            train(run=run, data=data, model=MLP, settings=LONG, seed=0, workers=2, progress=progress)
    finally:
        ray.shutdown()
        cluster.shutdown()
    if not any("is about to go away" in event for event in drain.events):
        sys.exit("drill failed: no worker has heard of the drain")
    moved = [found for event in drain.events if (found := re.search(r"elsewhere, from round ([\d,]+)", event))]
    if not moved or int(moved[0][1].replace(",", "")) % LONG.checkpoint_every == 0:
        sys.exit(f"drill failed: no checkpoint was made of the drain; {drain.events}")
    if read_metrics(str(folder / "drained")) != read_metrics(str(folder / "calm")):
        sys.exit(f"drill failed: other lines of values; see {folder}")
    if weights_digest(folder / "drained") != weights_digest(folder / "calm"):
        sys.exit(f"drill failed: other weights; see {folder}")
    print(f"the same lines of values and the same weights; moved at round {moved[0][1]}")


if __name__ == "__main__":
    main()
