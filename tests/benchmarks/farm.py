"""What the farm costs: the share of its actors' time that goes to chains, and images a second against two peers.

`python -m tests.benchmarks.farm [--quick] [--json FILE]`, on CPUs, the demo's networks with random weights, chains of
100 steps, two actors of one thread each:

- shards of 1,000 images, ours alone: where the actors' time goes. Target: 95% to chains.
- shards of 250 images, beside the peers of `farm_peers.py`, in turns: Ray Data's `map_batches` with two actors, and a
  spawned `multiprocessing` pool of two processes. They write the same bytes, which is checked. Medians, with and
  without the start of the workers; starting Ray is not counted. Target: images a second no fewer than by either.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from gebm.cluster import storage
from gebm.cluster.connect import connection
from gebm.launch.config import load_recipe
from gebm.sampler import SamplerSettings
from gebm.sampler.work import sample
from gebm.trainer.model import build_model, save_model
from tests.benchmarks.farm_peers import Job, ShardMade, by_pool, by_ray_data, window
from tests.benchmarks.harness import Record, machine, main

ACTORS = 2
REPEATS = 2
SHAPE = (1, 32, 32)
LARGE = SamplerSettings(name="ula", steps=100, step_size=0.01, chains=50, shard_size=1000)
SMALL = LARGE.model_copy(update={"shard_size": 250})
QUICK = LARGE.model_copy(update={"steps": 4, "chains": 8, "shard_size": 16})

Side = Callable[[Job, str], list[ShardMade]]


class Course(NamedTuple):
    """Seconds of one run of a side: all of it, first shard's beginning to last one's end, and chains of all workers."""

    wall: float
    running: float
    chain: float


def by_farm(job: Job, output: str) -> list[ShardMade]:
    """Ours; a record says how long a shard took, its file when it was done."""
    made = sample(
        model_url=job.model_url,
        output=output,
        settings=job.settings,
        count=job.count,
        seed=job.seed,
        actors=job.actors,
    )
    shards = []
    for record in made["shards"].values():
        ended = os.stat(storage.join(output, record["name"])).st_mtime
        shards.append(ShardMade(ended - record["seconds"], ended, record["chain_seconds"], record["sha256"]))
    return shards


SIDES: dict[str, Side] = {"farm": by_farm, "Ray Data": by_ray_data, "multiprocessing": by_pool}


def measure(quick: bool) -> list[Record]:
    with tempfile.TemporaryDirectory(prefix="gebm-farm-") as folder:
        large, small = (QUICK, QUICK) if quick else (LARGE, SMALL)
        share = share_of_chains(job_of(large, ACTORS, folder), folder)
        return [*share, *contest(job_of(small, 2 * ACTORS, folder), folder, 1 if quick else REPEATS)]


def job_of(settings: SamplerSettings, shards: int, folder: str) -> Job:
    """So many shards of a model of the demo's size, whose weights are random."""
    save_model(build_model(load_recipe("mnist").model, SHAPE, seed=0), load_recipe("mnist").model, f"{folder}/model")
    return Job(f"{folder}/model", settings, shards * settings.shard_size, 0, ACTORS)


def share_of_chains(job: Job, folder: str) -> list[Record]:
    """Where the time of our actors goes."""
    with connection("local", cpus=job.actors):
        course, _ = run(by_farm, job, f"{folder}/share")
    tell_share("farm", job, [course])
    case = f"chains of shards of {job.settings.shard_size:,} images"
    return [Record(case, course.chain, "all of the actors' time", job.actors * course.running, None, of_actors(job))]


def contest(job: Job, folder: str, repeats: int) -> list[Record]:
    """Ours beside the peers."""
    courses: dict[str, list[Course]] = {name: [] for name in SIDES}
    with connection("local", cpus=job.actors):
        for repeat in range(repeats):
            digests = {}
            for name, side in SIDES.items():
                print(f"== {name} {repeat + 1}", file=sys.stderr, flush=True)
                course, digests[name] = run(side, job, f"{folder}/{name}-{repeat}")
                courses[name].append(course)
            check_bytes(digests)
    for name, found in courses.items():
        tell_share(name, job, found)
    return records(courses, job)


def run(side: Side, job: Job, output: str) -> tuple[Course, list[str]]:
    """One run of a side, and the digests of its shards in the order of their samples."""
    os.makedirs(output)
    begun = time.time()
    made = sorted(side(job, output), key=lambda each: each.sha256)
    wall = time.time() - begun
    return Course(wall, window(made), sum(each.chain for each in made)), [each.sha256 for each in made]


def check_bytes(digests: dict[str, list[str]]) -> None:
    """Raise unless all sides wrote the same shards."""
    different = [name for name, found in digests.items() if found != digests["farm"]]
    if different:
        raise AssertionError(f"{', '.join(different)} wrote other shards than the farm")


def records(courses: dict[str, list[Course]], job: Job) -> list[Record]:
    """Ours beside each peer, with and without the start of the workers."""
    lines = []
    for what, of in (("running", _running), ("with the start of workers", _wall)):
        seconds = {name: statistics.median(of(course) for course in found) for name, found in courses.items()}
        rates = (f"{name} {job.count / taken:.1f}" for name, taken in seconds.items())
        print(f"images a second, {what}: {', '.join(rates)}")
        for peer in list(seconds)[1:]:
            case = f"{job.count:,} images, {what}"
            lines.append(Record(case, seconds["farm"], peer, seconds[peer], None, of_actors(job)))
    return lines


def tell_share(name: str, job: Job, courses: list[Course]) -> None:
    """Print what share of the workers' time went to chains."""
    running, whole = (
        statistics.median(course.chain / (job.actors * of(course)) for course in courses) for of in (_running, _wall)
    )
    print(f"{name}: chains are {running:.1%} of the workers' time while they run, {whole:.1%} with their start")


def of_actors(job: Job) -> dict[str, Any]:
    """The machine, and that each of so many actors had a thread."""
    return {**machine(), "threads": 1, "actors": job.actors}


def _running(course: Course) -> float:
    return course.running


def _wall(course: Course) -> float:
    return course.wall


if __name__ == "__main__":
    main("The cost of the farm", measure)
