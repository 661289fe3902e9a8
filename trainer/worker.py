"""What runs in each actor of a training group."""

from __future__ import annotations

import os
from typing import Any

from gebm.cluster.errors import InputError
from gebm.cluster.progress_board import post, post_and_wait
from gebm.trainer.errors import FINAL
from gebm.trainer.loop import train_worker


def worker(config: dict[str, Any]) -> None:
    """Train as one worker of the group; `config` is the same for all: job, board, threads, gpu."""
    import ray.train
    import torch
    from accelerate import Accelerator

    from gebm.trainer.heartbeat import Heartbeat
    from gebm.trainer.pulse import Pulse
    from gebm.trainer.workers import Workers

    board, pulse = config["board"], Pulse()
    with Heartbeat(board, pulse, ray.train.get_context().get_world_rank()):
        torch.set_num_threads(config["threads"])
        half = torch.bfloat16 if config["job"].settings.dtype == "bfloat16" else None
        workers = Workers(Accelerator(cpu=not config["gpu"]), half)
        told = f"worker {workers.rank + 1} of {workers.world} is process {os.getpid()} on {workers.device}"
        post(board, {"event": told})
        try:
            train_worker(config["job"], workers, lambda record: post(board, record), pulse)
        except InputError as error:
            kind = type(error).__name__ if type(error).__name__ in FINAL else "InputError"
            post_and_wait(board, {"error": kind, "message": str(error), "rank": workers.rank})
            raise
