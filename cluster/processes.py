"""Ending a process on any node of the cluster, also one that is stopped and answers nobody."""

import os
import signal
from pathlib import Path

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy


def birth(pid: int) -> str:
    """When a process of this machine began, as the system counts it; "" where that cannot be told.

    Numbers of processes are given anew: together with its birth, the number is one process.
    """
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""


def is_alive(pid: int, born: str) -> bool:
    """Whether the process of this machine that was `born` then still is one: it may be stopped, but has not ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False
    return fields[19] == born and fields[0] not in "ZX"


def end_process(node: str, pid: int, born: str) -> None:
    """Ask for `kill -9` of a process of Ray's node `node`, if it is still the one that was `born` then.

    Returns at once. A node that does not answer has no process to end.
    """
    there = NodeAffinitySchedulingStrategy(node, soft=False)
    ray.remote(_end).options(num_cpus=0, max_retries=0, scheduling_strategy=there).remote(pid, born)


def _end(pid: int, born: str) -> None:
    if birth(pid) == born:
        os.kill(pid, signal.SIGKILL)
