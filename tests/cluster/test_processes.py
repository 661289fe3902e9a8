"""Ending a process of a node, also one that cannot answer."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
import ray

from gebm.cluster.processes import birth, end_process

pytestmark = pytest.mark.usefixtures("ray_cluster")


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen]:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as process:
        yield process
        process.kill()


def here() -> str:
    return ray.get_runtime_context().get_node_id()


def test_a_stopped_process_is_really_gone(sleeper):
    os.kill(sleeper.pid, signal.SIGSTOP)
    end_process(here(), sleeper.pid, birth(sleeper.pid))
    assert sleeper.wait(timeout=60) == -signal.SIGKILL


def test_a_process_that_has_the_number_of_one_that_is_gone_is_left_alone(sleeper):
    end_process(here(), sleeper.pid, "another birth")
    time.sleep(3.0)
    assert sleeper.poll() is None
    assert birth(sleeper.pid) != "" and birth(2**30) == ""


def test_a_node_that_is_gone_holds_nobody_up():
    begun = time.monotonic()
    end_process("0" * 56, 1, "1")
    assert time.monotonic() - begun < 5.0
