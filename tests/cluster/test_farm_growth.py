"""The farm on a cluster that grows, in a process of its own: this one has the session's local Ray."""

import json
import os
import subprocess
import sys
from pathlib import Path


def test_actors_join_as_the_cluster_grows(tmp_path: Path) -> None:
    top = Path(__file__).parents[2]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.cluster.growing_cluster"],
        cwd=top,
        env={**environment, "PYTHONPATH": str(top), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    follows, fixed = (json.loads(line) for line in done.stdout.splitlines() if line.startswith("{"))
    # One node, and one more in the middle; then two, and a third for the actor that had found no room.
    assert (follows["before"], follows["nodes"], follows["actors"]) == (1, 2, 2)
    assert (fixed["before"], fixed["nodes"], fixed["actors"]) == (2, 3, 3)
    assert follows["records"] == fixed["records"] == 30 and min(follows["least_items"], fixed["least_items"]) >= 1
