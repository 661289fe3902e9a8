"""Seconds by stage of the demo, and of the same work in one process without Ray.

The peer runs the very same functions on the same recipe and seed: one training worker instead of a group, every
work item one after the other instead of a farm, with all CPUs for each matrix product. So the difference is what
distributing costs (starting Ray, actors, a process group) and what it brings (workers side by side).
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from accelerate import Accelerator

from gebm.cluster.index import load_index
from gebm.cluster.manifest import WorkItem, begin_manifest, new_attempt, with_items, write_manifest
from gebm.launch.config import Recipe, load_recipe
from gebm.launch.data.mnist import write_mnist
from gebm.launch.demo import run_demo
from gebm.launch.farms import Actors
from gebm.launch.progress import LineDisplay
from gebm.launch.timings import read_timings
from gebm.trainer.driver import run_digest
from gebm.trainer.loop import TrainingJob, train_worker
from gebm.trainer.workers import Workers
from tests.benchmarks.harness import Record, machine, main

REPEATS = 3
PEER = "one process, no Ray"
QUICK = (
    "data.counts=[300, 50, 50]",
    "data.shard_size=50",
    "sample_count=50",
    "trainer.joint.steps=5",
    "trainer.joint.warmup_energy_steps=2",
    "trainer.energy.steps=5",
    "trainer.log_partition_draws=200",
    "trainer.batch_norm_draws=200",
    'tune.grids=[{sampler="ula", step_sizes=[0.01], steps=[5, 10]}]',
    "tune.count=40",
    "tune.groups=5",
    "sampler.shard_size=25",
    "sampler.chains=25",
    "evaluation.groups=5",
    "evaluation.permutations=99",
)


def measure(quick: bool) -> list[Record]:
    """One record a stage and one for the whole; quick: a small recipe, once."""
    recipe = load_recipe("mnist", QUICK if quick else ())
    ours: list[dict[str, float]] = []
    peer: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory(prefix="gebm-pipeline-") as folder:
        # What a process does once (imports, parsing the digits) would else count for the side that comes first.
        write_mnist(f"{folder}/warm-up", counts=(10, 10, 10))
        for repeat in range(1 if quick else REPEATS):
            ours.append(seconds_by_stage(recipe, f"{folder}/ray-{repeat}"))
            with one_process():
                peer.append(seconds_by_stage(recipe, f"{folder}/alone-{repeat}"))
    return records(ours, peer)


def records(ours: Sequence[dict[str, float]], peer: Sequence[dict[str, float]]) -> list[Record]:
    """The medians over the repeats, by stage in order, then those of the sums."""
    here = machine()

    def median(runs: Sequence[dict[str, float]], of: Callable[[dict[str, float]], float]) -> float:
        return statistics.median(of(run) for run in runs)

    lines = []
    for stage in ours[0]:
        # Starting Ray is work that the peer does not have.
        theirs = None if stage == "ray" else median(peer, lambda run, stage=stage: run[stage])
        mine = median(ours, lambda run, stage=stage: run[stage])
        lines.append(Record(stage, mine, None if theirs is None else PEER, theirs, None, here))
    total = median(peer, lambda run: sum(seconds for stage, seconds in run.items() if stage != "ray"))
    lines.append(Record("total", median(ours, lambda run: sum(run.values())), PEER, total, None, here))
    return lines


def seconds_by_stage(recipe: Recipe, run: str) -> dict[str, float]:
    """The demo in a new run directory."""
    print(f"== {Path(run).name}", file=sys.stderr, flush=True)
    return read_timings(run_demo(recipe, run, LineDisplay(sys.stderr)))


@contextmanager
def one_process() -> Iterator[None]:
    """Inside, nothing of the demo uses Ray: the farm and the training group are replaced by plain loops."""
    threads = torch.get_num_threads()
    torch.set_num_threads(os.cpu_count() or 1)
    modules = ("sampler.work", "evaluation.features", "launch.tune")
    with (
        patch("gebm.launch.demo.connection", lambda address: nullcontext()),
        patch("gebm.launch.stages.plan_actors", lambda *_: Actors(1, float(torch.cuda.is_available()))),
        patch("gebm.launch.stages.train", train_alone),
        patch(f"gebm.{modules[0]}.run_farm", farm_alone),
        patch(f"gebm.{modules[1]}.run_farm", farm_alone),
        patch(f"gebm.{modules[2]}.run_farm", farm_alone),
        # Work items ask for one thread each, because an actor has one CPU; here there is one worker for all.
        patch("torch.set_num_threads"),
    ):
        yield
    torch.set_num_threads(threads)


def farm_alone(
    items: Sequence[WorkItem],
    make_worker: Callable[[], Callable[[WorkItem, str], dict[str, Any]]],
    output: str | None,
    *,
    settings: dict[str, Any],
    **_: Any,
) -> dict[str, dict[str, Any]]:
    """Every item, one after the other, in this process; the same files as the farm's."""
    worker = make_worker()
    records = {item.id: worker(item, new_attempt()) for item in items}
    if output is not None:
        write_manifest(output, with_items(begin_manifest(output, settings, items), records))
    return records


def train_alone(*, run: str, data: str, validation: str | None, model: Any, settings: Any, seed: int, **_: Any) -> None:
    """The training loop in this process, as the only worker."""
    digest = run_digest(model, settings, seed, load_index(data), load_index(validation) if validation else None)
    workers = Workers(Accelerator(cpu=not torch.cuda.is_available()))
    train_worker(TrainingJob(run, data, validation, digest, model, settings, seed), workers, lambda record: None)


if __name__ == "__main__":
    main("Seconds by stage of the demo", measure)
