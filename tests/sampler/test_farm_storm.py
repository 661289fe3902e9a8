"""`gebm sample` on two nodes that is struck in the middle: a short form of the drill, in a cluster of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

STRIKES = ("kill all actors", "remove a node", "SIGTERM", "cut a shard short")


def test_a_storm_leaves_every_shard_there_once_with_the_bytes_of_a_calm_run() -> None:
    top = Path(__file__).parents[2]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    drill = [sys.executable, "-m", "tests.drills.farm_storm", "--strikes", "4", "--shards", "16", "--steps", "250"]
    done = subprocess.run(
        [*drill, *(argument for kind in STRIKES for argument in ("--kind", kind))],
        cwd=top,
        env={**environment, "PYTHONPATH": str(top), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "the same 16 shards, each once" in done.stdout
    assert all(f"{kind}, after " in done.stdout for kind in STRIKES)
