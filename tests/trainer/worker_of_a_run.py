"""One worker process of a tiny run of several, without Ray: a whole run, or until it is told to stop.

Arguments: run, data, number of workers, port, rank, the round to stop after (or -1). Rank 0 alone hears the word.
"""

import sys
from pathlib import Path

from accelerate import Accelerator

from gebm.trainer.council import STOP
from gebm.trainer.loop import train_worker
from gebm.trainer.pulse import Pulse
from gebm.trainer.workers import Workers
from tests.trainer.gloo_group import gloo_group
from tests.trainer.tiny_runs import PulseWithWord, tiny_job

CHANGES = {"dtype": "float64", "log_every": 4, "energy": {"steps": 6, "chain_steps": 2}}


def main(run: str, data: str, world: int, port: str, rank: int, stop_after: int) -> None:
    with gloo_group(rank, world, port):
        pulse = PulseWithWord(STOP, stop_after) if rank == 0 and stop_after >= 0 else Pulse()
        job = tiny_job(Path(run), data, **CHANGES)
        word = train_worker(job, Workers(Accelerator(cpu=True)), lambda record: None, pulse)
        print(word or "done")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4], int(sys.argv[5]), int(sys.argv[6]))
