"""`python -m tests.benchmarks.once_through FOLDER OUT BATCH`: one training run over numbered images, and its memory.

A process of its own, so that its peak memory is that of this run alone. Prints one line of JSON: images, seconds,
peak_bytes. Ends with an error when an image came twice or not at all.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
from accelerate import Accelerator

from gebm.cluster.index import load_index
from gebm.cluster.lanes import LaneBatch, LaneReader
from gebm.trainer.loop import TrainingJob, train_worker
from gebm.trainer.model import ModelSettings
from gebm.trainer.settings import TrainerSettings
from gebm.trainer.workers import Workers
from tests.benchmarks.numbered_images import numbers_of

CACHE_BYTES = 16 << 20
MODEL = ModelSettings(network="mlp", latent_dimension=4, base_widths=(32,), energy_widths=(32,))


class CountingReader(LaneReader):
    """Counts how often it hands out each image."""

    seen: np.ndarray

    def batch(self, step: int) -> LaneBatch:
        found = super().batch(step)
        np.add.at(CountingReader.seen, numbers_of(found.images), 1)
        return found


def main(folder: str, out: str, batch: int) -> None:
    total = load_index(folder).total
    CountingReader.seen = np.zeros(total, np.uint8)
    settings = TrainerSettings.model_validate(
        {
            "batch_size": batch,
            "lanes": 40,
            "log_every": 10,
            "checkpoint_every": 1000,
            # Every base step comes after one energy step, which takes one batch.
            "joint": {"steps": total // batch, "energy_steps": 1, "warmup_energy_steps": 1},
            "energy": {"steps": 0},
            "watch": {"every": 0, "grid_images": 0, "tensorboard": False},
        }
    )
    job = TrainingJob(out, folder, None, "digest", MODEL, settings, seed=0)
    begun = time.perf_counter()
    with patch("gebm.trainer.loop.LaneReader", partial(CountingReader, cache_bytes=CACHE_BYTES)):
        train_worker(job, Workers(Accelerator(cpu=True)), lambda record: None)
    seconds = time.perf_counter() - begun
    if not (CountingReader.seen == 1).all():
        sys.exit(f"{int((CountingReader.seen != 1).sum())} of {total} images did not come exactly once")
    print(json.dumps({"images": total, "seconds": seconds, "peak_bytes": peak_bytes()}))


def peak_bytes() -> int:
    """The most resident memory that this process has had."""
    status = Path("/proc/self/status")
    if status.exists():  # elsewhere the process that started this one may be counted in
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
