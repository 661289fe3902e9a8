"""Connecting: what was started here is ended here, and nothing else."""

import subprocess
import sys

import pytest
import ray

from gebm.cluster.connect import connection
from gebm.cluster.resources import count_cpus


def test_a_connection_that_was_there_stays(ray_cluster: None) -> None:
    address = ray.get_runtime_context().gcs_address
    with connection(None, cpus=1):
        assert ray.get_runtime_context().gcs_address == address
        assert count_cpus() == 2
    assert ray.is_initialized()


PROGRAM = """
import os, sys, time, ray
from gebm.cluster.connect import connection
from gebm.cluster.errors import InputError
try:
    with connection("127.0.0.1:9"):
        raise SystemExit("joined a cluster that is not there")
except InputError as error:
    assert "127.0.0.1:9" in str(error) and "--address" in str(error), error

with connection(None, cpus=1):
    own = ray.get_runtime_context().gcs_address
    assert own != sys.argv[1], "joined the cluster of someone else"
    assert ray.cluster_resources()["CPU"] == 1
    pid = ray.get(ray.remote(lambda: os.getpid()).remote())
    assert pid != os.getpid()
assert not ray.is_initialized()
for _ in range(100):
    if not os.path.exists(f"/proc/{pid}"):
        break
    time.sleep(0.1)
else:
    raise SystemExit(f"worker {pid} outlived its cluster")

with connection(sys.argv[1]):
    assert ray.get_runtime_context().gcs_address == sys.argv[1]
assert not ray.is_initialized()
print("ok")
"""


def test_a_local_ray_is_ended_and_a_joined_one_is_left_running(ray_cluster: None) -> None:
    address = ray.get_runtime_context().gcs_address
    program = [sys.executable, "-c", PROGRAM, address]
    run = subprocess.run(program, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0 and run.stdout.strip().endswith("ok"), run.stderr[-2000:]
    assert ray.get(ray.remote(lambda: 7).remote()) == 7  # ours still works


def test_a_failure_inside_leaves_a_connection_that_was_there(ray_cluster: None) -> None:
    with pytest.raises(RuntimeError, match="inside"), connection(None):
        raise RuntimeError("inside")
    assert ray.is_initialized()
