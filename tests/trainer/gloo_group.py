"""The process group of a worker process of a test, without Ray."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist

# Before there is a group: functions of this module take the group of the moment that it is imported as their default,
# and would keep it, whatever destroys it. The first step of an optimiser imports it.
import torch.distributed.nn

THREADS = Path("/proc/self/task")


@contextmanager
def gloo_group(rank: int, world: int, port: int | str, *, outlived: bool = False) -> Iterator[None]:
    """Within it this process is worker `rank` of `world`, with one thread; a `world` of 1 has no group.

    A group whose threads outlive it makes some of the processes abort when Python ends, so that is an error at once;
    unless `outlived` says that it is known, and that the process ends without Python's end (`os._exit`).
    """
    torch.set_num_threads(1)
    if world == 1:
        yield
        return
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(world)}
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    dist.init_process_group("gloo")
    yield
    dist.destroy_process_group()
    names = [(thread / "comm").read_text().strip() for thread in THREADS.glob("*")]
    assert outlived or not [name for name in names if "gloo" in name], names
