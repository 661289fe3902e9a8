"""Sampling on the farm: one work item is one shard of images or vectors, made by whichever actor takes it.

A shard is a function of the model's weights, the settings, the seed, its number and the kind of device: the
batch of chains and the number of threads are part of the item and set inside the actor, so that neither the
number of actors nor their deaths change a byte.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from gebm.cluster import storage
from gebm.cluster.errors import InputError
from gebm.cluster.farm import FarmProgress, WorkItem, run_farm
from gebm.cluster.index import make_index, write_index
from gebm.cluster.randomness import derive_seed
from gebm.cluster.shards import ShardRecord, encode_png, write_shard
from gebm.cluster.vectors import encode_vector
from gebm.sampler.chain import Samples, chains_for, sample_from
from gebm.sampler.diagnostics import describe_chains, summarise
from gebm.sampler.findings import findings_of_run, mean_findings
from gebm.sampler.labels import chain_batches, check_label, draw_labels
from gebm.sampler.samplers import check_scale
from gebm.sampler.settings import SamplerSettings
from gebm.trainer.model import GEBM, load_model, model_digest, to_stored
from gebm.trainer.model.build import latents_of
from gebm.trainer.model.export import read_description

Record = dict[str, Any]


def sample(
    *,
    model_url: str,
    output: str,
    settings: SamplerSettings,
    count: int,
    seed: int,
    actors: int,
    gpus_per_actor: float = 0,
    progress: Callable[[FarmProgress], None] | None = None,
) -> dict[str, Any]:
    """Write `count` samples of the model at `model_url` as a shard set at `output`; Ray must be connected.

    `output` gets the shards, the farm's `manifest.json` (settings; for every shard digest, timings,
    diagnostics) and last `index.json`. A run that was cut short goes on where it stopped; finished shards are
    checked against their digests and damaged ones made again. The model and its base, sampled with the same
    seed, count and `shard_size`, start from the same prior draws and have the same labels.

    Returns `{"settings": …, "shards": {item id: record}, "diagnostics": …}`, the last for the whole run.
    Raises `InputError` for a bad model, count or label, and when `output` belongs to another run.
    """
    if count < 1:
        raise InputError(f"count is {count}: ask for at least one sample")
    model_url, output = storage.absolute(model_url), storage.absolute(output)
    description = read_description(model_url)
    check_label(settings, description.classes)
    check_scale(settings, latents_of(description.network, description.image_shape))
    device = "cuda" if gpus_per_actor > 0 else "cpu"
    described = {
        "kind": "samples",
        "model": model_digest(model_url),
        "sampler": settings.model_dump(mode="json"),
        "count": count,
        "seed": seed,
        "device": device,
    }
    records = run_farm(
        shard_items(settings, count, seed),
        make_shard_worker(model_url, output, settings, derive_seed(seed, "sample", "pilot"), device),
        output,
        settings=described,
        actors=actors,
        gpus_per_actor=gpus_per_actor,
        progress=progress,
    )
    publish_index(output, list(records.values()))
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
    model_url: str, output: str, settings: SamplerSettings, pilot_seed: int, device: str
) -> Callable[[], Callable[[WorkItem, str], Record]]:
    """What an actor runs once: it loads the model and returns the function that makes a shard."""

    def make_worker() -> Callable[[WorkItem, str], Record]:
        model = prepare(load_model(model_url, device=device))

        def work(item: WorkItem, attempt: str) -> Record:
            begun = time.perf_counter()
            torch.set_num_threads(item.description["threads"])
            batches = list(sample_shard(model, settings, item, pilot_seed))
            diagnostics = describe_batches(batches)
            drawn = time.perf_counter()
            name = f"{item.id}-{attempt}.tar"
            values = torch.cat([to_stored(batch.images) for batch in batches]).cpu().numpy()
            labels = [int(label) for batch in batches if batch.labels is not None for label in batch.labels]
            count = item.description["count"]  # several samples a chain may be more
            samples = stored_samples(values[:count], labels or None, first=item.description["first"])
            record = write_shard(storage.join(output, name), samples)
            return {
                **record.model_dump(mode="json"),
                "image_shape": list(model.image_shape),
                "classes": model.classes,
                "diagnostics": diagnostics,
                "chain_seconds": drawn - begun,
                "energy_ess_per_second": per_second(diagnostics["energy_ess_bulk"], drawn - begun),
                "seconds": time.perf_counter() - begun,
            }

        return work

    return make_worker


def prepare(model: GEBM) -> GEBM:
    """The frozen model, made to give the same bits every time on its device."""
    torch.backends.cudnn.benchmark = False  # it may pick another algorithm, with other bits, in each process
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.allow_tf32 = False  # acceptance steps compare energies: ten bits are too few
    return model


def sample_shard(model: GEBM, settings: SamplerSettings, item: WorkItem, pilot_seed: int) -> Iterator[Samples]:
    """The samples of one shard, a batch of at most `chains` at a time; too many where a chain makes several.

    The prior draws and the labels come from streams of their own on the CPU: whatever sampler and device, shards
    of the same seed and size start from the same latents and have the same labels.
    """
    device = next(model.parameters()).device
    count = item.description["count"]
    chains = chains_for(count, settings)
    prior = model.sample_prior(count, torch.Generator().manual_seed(derive_seed(item.seed, "shard", "prior")))[:chains]
    label_stream = torch.Generator().manual_seed(derive_seed(item.seed, "shard", "label"))
    labels = draw_labels(model, settings, chains, label_stream)
    generator = torch.Generator(device).manual_seed(derive_seed(item.seed, "shard", "chain"))
    for latents, own in chain_batches(prior, labels, item.description["chains"], device):
        yield sample_from(model, settings, latents, generator, pilot_seed, own)


def describe_batches(batches: list[Samples]) -> dict[str, Any]:
    """The diagnostics of a shard from those of its batches of chains."""
    sizes = [batch.energies.shape[1] for batch in batches]
    errors = [batch.potential_error for batch in batches if batch.potential_error is not None]
    described = describe_chains(
        batches[0].recorded_steps,
        torch.cat([batch.energies for batch in batches], dim=1).numpy(),
        float(np.average([batch.acceptance for batch in batches], weights=sizes)),
        sum(batch.nonfinite for batch in batches),
        float(np.max(errors)) if errors else None,
    )
    return {**described, "found": mean_findings([batch.found for batch in batches], sizes)}


def per_second(number: float | None, seconds: float) -> float | None:
    return None if number is None else number / seconds


def stored_samples(values: np.ndarray, labels: Sequence[int] | None, first: int) -> Iterable[dict[str, str | bytes]]:
    """Shard samples of uint8 images `(n, channels, height, width)` or float32 vectors `(n, d)`.

    Keyed by their number in the set, from `first`. Raises `InputError` for a vector that is not finite.
    """
    for number, value in enumerate(values):
        sample: dict[str, str | bytes] = {"__key__": f"{first + number:09d}"}
        if value.ndim == 3:
            sample["png"] = encode_png(value.transpose(1, 2, 0))
        elif np.isfinite(value).all():
            sample["npy"] = encode_vector(value)
        else:
            raise InputError(
                f"sample {first + number} is not finite: its latent went where the base overflows; "
                "give a smaller sampler.step_size"
            )
        if labels is not None:
            sample["cls"] = str(labels[number]).encode()
        yield sample


def publish_index(output: str, records: list[Record]) -> None:
    """Write `index.json`: from now on the samples are a shard set like any other."""
    fields = ShardRecord.model_fields
    shards = [ShardRecord.model_validate({key: record[key] for key in fields}) for record in records]
    write_index(output, make_index(shards, tuple(records[0]["image_shape"]), records[0]["classes"]))
