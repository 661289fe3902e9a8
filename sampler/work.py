"""Sampling on the farm: one work item is one shard of images or vectors, made by whichever actor takes it.

A shard is a function of the model's weights, the settings, the seed, its number and the kind of device: the
batch of chains and the number of threads are part of the item and set inside the actor, so that neither the
number of actors nor their deaths change a byte.
"""

from __future__ import annotations

import logging
import os
import platform
import time
from collections.abc import Callable
from typing import Any

import torch

from gebm.cluster import storage
from gebm.cluster.errors import InputError
from gebm.cluster.farm import FarmProgress, FarmSummary, WorkItem, run_farm
from gebm.cluster.index import make_index, write_index
from gebm.cluster.randomness import derive_seed
from gebm.cluster.shards import ShardRecord, write_shard
from gebm.sampler.diagnostics import summarise
from gebm.sampler.findings import findings_of_run
from gebm.sampler.labels import check_label
from gebm.sampler.run_summary import RunSummary, run_summary, write_summary
from gebm.sampler.samplers import check_scale
from gebm.sampler.settings import SamplerSettings
from gebm.sampler.shard import Batch, Content, describe_batches, joined, sample_shard
from gebm.sampler.shard_checkpoint import ShardCheckpoint, remove_checkpoints
from gebm.sampler.snapshot import OtherChains
from gebm.sampler.stored import StoreSettings, stored_samples
from gebm.trainer.model import GEBM, load_model, model_digest
from gebm.trainer.model.build import latents_of
from gebm.trainer.model.export import read_description

__all__ = ["make_shard_worker", "prepare", "publish_index", "sample", "shard_items", "stored_samples"]

CHECKPOINT_SECONDS = 60.0

_log = logging.getLogger(__name__)

Record = dict[str, Any]


def sample(
    *,
    model_url: str,
    output: str,
    settings: SamplerSettings,
    count: int,
    seed: int,
    actors: int | None,
    gpus_per_actor: float = 0,
    store: StoreSettings = StoreSettings(),  # noqa: B008
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    progress: Callable[[FarmProgress], None] | None = None,
    summary: Callable[[RunSummary], None] | None = None,
) -> dict[str, Any]:
    """Write `count` samples of the model at `model_url` as a shard set at `output`; Ray must be connected.

    `output` gets the shards, the farm's `manifest.json` (settings; for every shard digest, timings,
    diagnostics) and last `index.json`. A run that was cut short goes on where it stopped; finished shards are
    checked against their digests and damaged ones made again. The model and its base, sampled with the same
    seed, count and `shard_size`, start from the same prior draws and have the same labels.

    store: the format of the samples, and what is kept beside them. checkpoint_seconds: so much of an actor's chains is
    lost at the most when it dies, see `shard_checkpoint.py`; it changes no byte. actors: None for as many as the
    cluster has room for, also when it grows. summary: is told what the actors did with their time, when any shard was
    made; `output` gets it as `summary.json`.

    Returns `{"settings": …, "shards": {item id: record}, "diagnostics": …}`, the last for the whole run.
    Raises `InputError` for a bad model, count or label, and when `output` belongs to another run.
    """
    if count < 1:
        raise InputError(f"count is {count}: ask for at least one sample")
    if not checkpoint_seconds > 0:
        raise InputError(f"--checkpoint-seconds {checkpoint_seconds:g}: give a number above 0")
    model_url, output = storage.absolute(model_url), storage.absolute(output)
    description = read_description(model_url)
    check_label(settings, description.classes)
    check_scale(settings, latents_of(description.network, description.image_shape))
    store = store.of_samples(description.image_shape)
    device = "cuda" if gpus_per_actor > 0 else "cpu"
    described = {
        "kind": "samples",
        "model": model_digest(model_url),
        "sampler": settings.model_dump(mode="json"),
        "stored": store.model_dump(mode="json"),
        "count": count,
        "seed": seed,
        "device": device,
    }
    farm: list[FarmSummary] = []

    def finish(records: dict[str, Record]) -> None:
        publish_index(output, list(records.values()))
        remove_checkpoints(output)
        if farm and farm[0].done:
            told = run_summary(farm[0], records.values())
            write_summary(output, told)
            if summary is not None:
                summary(told)

    records = run_farm(
        shard_items(settings, count, seed),
        make_shard_worker(
            model_url, output, settings, derive_seed(seed, "sample", "pilot"), device, store, checkpoint_seconds
        ),
        output,
        settings=described,
        actors=actors,
        gpus_per_actor=gpus_per_actor,
        progress=progress,
        summary=farm.append,
        finish=finish,
        stage="sample",
    )
    found = findings_of_run(records.values())
    return {"settings": described, "shards": records, "diagnostics": {**summarise(records.values()), "found": found}}


def shard_items(settings: SamplerSettings, count: int, seed: int) -> list[WorkItem]:
    """One item a shard: `settings.shard_size` samples each, the rest in the last.

    Their seeds depend on `seed` and the shard's number only, not on the sampler.
    """
    starts = range(0, count, settings.shard_size)
    return [
        WorkItem(
            id=f"shard-{number:06d}",
            seed=derive_seed(seed, "sample", number),
            description={
                "first": first,
                "count": min(settings.shard_size, count - first),
                "chains": settings.chains,
                "threads": settings.threads,
            },
        )
        for number, first in enumerate(starts)
    ]


def make_shard_worker(
    model_url: str,
    output: str,
    settings: SamplerSettings,
    pilot_seed: int,
    device: str,
    store: StoreSettings = StoreSettings(),  # noqa: B008
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> Callable[[], Callable[[WorkItem, str], Record]]:
    """What an actor runs once: it loads the model and returns the function that makes a shard."""

    def make_worker() -> Callable[[WorkItem, str], Record]:
        model = prepare(load_model(model_url, device=device))
        stored = store.of_samples(model.image_shape)
        depends_on = [model_digest(model_url), settings.model_dump(mode="json"), stored.model_dump(mode="json")]

        def work(item: WorkItem, attempt: str) -> Record:
            begun = time.perf_counter()
            torch.set_num_threads(item.description["threads"])
            checkpoint = ShardCheckpoint(
                output, item.id, [*depends_on, pilot_seed, device, list(item)], checkpoint_seconds
            )
            batches, before = _batches(model, settings, item, pilot_seed, stored, checkpoint)
            diagnostics = describe_batches(batches)
            chain_seconds = before + time.perf_counter() - begun
            record = _write(storage.join(output, f"{item.id}-{attempt}.tar"), item, batches, stored)
            checkpoint.remove()
            return {
                **record.model_dump(mode="json"),
                "image_shape": list(model.image_shape),
                "classes": model.classes,
                "diagnostics": diagnostics,
                "chain_seconds": chain_seconds,
                "energy_ess_per_second": per_second(diagnostics["energy_ess_bulk"], chain_seconds),
                "seconds": before + time.perf_counter() - begun,
                "seconds_taken_over": before,
                "host": platform.node(),
                "pid": os.getpid(),
            }

        return work

    return make_worker


def _batches(
    model: GEBM,
    settings: SamplerSettings,
    item: WorkItem,
    pilot_seed: int,
    store: StoreSettings,
    checkpoint: ShardCheckpoint,
) -> tuple[list[Batch], float]:
    """The batches of a shard, and the seconds that went into what its checkpoint held: 0 without one."""
    begun = time.perf_counter()
    saved = checkpoint.load()

    def sampled(begin: Content | None, before: float) -> list[Batch]:
        def offer(make_content: Callable[[], Content]) -> None:
            checkpoint.offer(lambda: {**make_content(), "seconds": before + time.perf_counter() - begun})

        return sample_shard(model, settings, item, pilot_seed, store, begin, offer)

    if saved is not None:
        before: float = saved["seconds"]
        _log.info("%s goes on from its checkpoint, %.0f s of chains in", item.id, before)
        try:
            return sampled(saved, before), before
        except OtherChains as error:
            _log.warning("%s cannot be gone on from (%s); the shard starts over", checkpoint.url, error)
    return sampled(None, 0.0), 0.0


def _write(url: str, item: WorkItem, batches: list[Batch], store: StoreSettings) -> ShardRecord:
    """The shard of the item's samples. Several samples a chain may be more than it wants."""
    rows = slice(item.description["count"])
    values, labels, latents, energies = (
        None if part is None else part[rows]
        for part in (
            joined([batch.values for batch in batches]),
            joined([batch.labels for batch in batches]),
            joined([batch.latents for batch in batches]),
            joined([batch.sample_energies for batch in batches]),
        )
    )
    assert values is not None and store.format is not None
    samples = stored_samples(
        values,
        None if labels is None else labels.tolist(),
        first=item.description["first"],
        image_format=store.format,
        latents=latents,
        energies=energies,
    )
    return write_shard(url, samples)


def prepare(model: GEBM) -> GEBM:
    """The frozen model, made to give the same bits every time on its device."""
    torch.backends.cudnn.benchmark = False  # it may pick another algorithm, with other bits, in each process
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.allow_tf32 = False  # acceptance steps compare energies: ten bits are too few
    return model


def per_second(number: float | None, seconds: float) -> float | None:
    return None if number is None else number / seconds


def publish_index(output: str, records: list[Record]) -> None:
    """Write `index.json`: from now on the samples are a shard set like any other."""
    fields = ShardRecord.model_fields
    shards = [ShardRecord.model_validate({key: record[key] for key in fields}) for record in records]
    write_index(output, make_index(shards, tuple(records[0]["image_shape"]), records[0]["classes"]))
