"""The peers of the farm: the same shards by Ray Data's actors, and by a pool of processes.

They make the chains, encode the images and write the tars by the functions that the farm's workers use; what they do
not have is what a farm is for: attempts, a manifest, checkpoints, other actors when one dies.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import torch

from gebm.cluster import storage
from gebm.cluster.randomness import derive_seed
from gebm.cluster.shards import write_shard
from gebm.sampler import SamplerSettings
from gebm.sampler.shard import joined, sample_shard
from gebm.sampler.stored import StoreSettings, stored_samples
from gebm.sampler.work import prepare, shard_items
from gebm.trainer.model import GEBM, load_model

STORE = StoreSettings(format="png")


class Job(NamedTuple):
    """What is to be drawn, and by how many actors or processes of one thread each."""

    model_url: str
    settings: SamplerSettings
    count: int
    seed: int
    actors: int


class ShardMade(NamedTuple):
    """begun, ended: seconds of the clock. chain: seconds of chains in between."""

    begun: float
    ended: float
    chain: float
    sha256: str


def load(job: Job) -> GEBM:
    torch.set_num_threads(1)
    return prepare(load_model(job.model_url))


def make_shard(model: GEBM, job: Job, number: int, output: str) -> ShardMade:
    """Shard `number` of the job, without a farm."""
    begun = time.time()
    item = shard_items(job.settings, job.count, job.seed)[number]
    batches = sample_shard(model, job.settings, item, derive_seed(job.seed, "sample", "pilot"), STORE)
    drawn = time.time()
    values = joined([batch.values for batch in batches])
    assert values is not None
    samples = stored_samples(values, None, first=item.description["first"])
    record = write_shard(storage.join(output, f"{item.id}.tar"), samples)
    return ShardMade(begun, time.time(), drawn - begun, record.sha256)


def by_ray_data(job: Job, output: str) -> list[ShardMade]:
    """`map_batches` with actors, a shard a batch; Ray must be connected."""
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    numbers = ray.data.from_items([{"number": n} for n in _numbers(job)], override_num_blocks=len(_numbers(job)))
    made = numbers.map_batches(
        _RayDataActor,
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=job.actors),
        num_cpus=1,
        fn_constructor_args=(job, output),
    ).take_all()
    return [ShardMade(**{name: row[name] for name in ShardMade._fields}) for row in made]


class _RayDataActor:
    def __init__(self, job: Job, output: str):
        self.model, self.job, self.output = load(job), job, output

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[Any]]:
        made = [make_shard(self.model, self.job, int(number), self.output) for number in batch["number"]]
        return {name: [getattr(each, name) for each in made] for name in ShardMade._fields}


def by_pool(job: Job, output: str) -> list[ShardMade]:
    """`multiprocessing` with spawned processes, which take one shard after the other."""
    with multiprocessing.get_context("spawn").Pool(job.actors, _begin_process, (job, output)) as pool:
        return list(pool.imap_unordered(_shard_of_process, _numbers(job)))


_of_process: dict[str, Any] = {}


def _begin_process(job: Job, output: str) -> None:
    _of_process.update(model=load(job), job=job, output=output)


def _shard_of_process(number: int) -> ShardMade:
    return make_shard(_of_process["model"], _of_process["job"], number, _of_process["output"])


def _numbers(job: Job) -> range:
    return range(len(shard_items(job.settings, job.count, job.seed)))


def window(made: Iterable[ShardMade]) -> float:
    """Seconds from the beginning of the first shard to the end of the last."""
    made = list(made)
    return max(each.ended for each in made) - min(each.begun for each in made)
