"""What an actor of the tuning farm does: run one chain, and take the features of its images on the way."""

from __future__ import annotations

import hashlib
import io
import math
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gebm.cluster import storage
from gebm.cluster.errors import InputError
from gebm.cluster.farm import WorkItem
from gebm.cluster.index import load_index
from gebm.cluster.randomness import derive_seed
from gebm.cluster.reader import iterate_batches
from gebm.evaluation.extractors.settings import ExtractorSettings
from gebm.sampler.chain import run_chain
from gebm.sampler.labels import chain_batches, draw_labels
from gebm.sampler.potential import latent_energy
from gebm.sampler.settings import SamplerSettings
from gebm.sampler.warmup import start_chains
from gebm.sampler.work import prepare
from gebm.trainer.model import GEBM, from_stored, in_normal_coordinates, load_model, to_stored
from gebm.trainer.model.prior import to_normal

Record = dict[str, Any]
IMAGES_AT_ONCE = 50


class Snapshot(NamedTuple):
    """One batch of chains at one length.

    images: as they would be stored, uint8 `(chains, channels, height, width)` or float32 `(chains, d)`.
    energies: `(chains,)`. acceptance: mean so far. nonfinite: proposals so far.
    """

    images: Tensor
    energies: Tensor
    acceptance: float
    nonfinite: int


def make_candidate_worker(
    run: str,
    validation: str,
    output: str,
    extractor_settings: ExtractorSettings,
    validation_count: int | None,
    pilot_seed: int,
    device: str,
) -> Callable[[], Callable[[WorkItem, str], Record]]:
    """What runs once in each actor: model and extractor are made there."""

    def make_worker() -> Callable[[WorkItem, str], Record]:
        from gebm.evaluation.extractors.extractor import make_extractor

        model = prepare(load_model(run, device=device))
        extractor = make_extractor(extractor_settings, device, model.image_shape)

        def work(item: WorkItem, attempt: str) -> Record:
            begun = time.perf_counter()
            settings = SamplerSettings.model_validate(item.description["sampler"])
            torch.set_num_threads(settings.threads)
            batches = list(run_batches(model, settings, item, pilot_seed))
            lengths = [list(column) for column in zip(*batches, strict=True)]
            features = [
                torch.cat([extractor(part) for part in images_of(length).split(IMAGES_AT_ONCE)]).numpy()
                for length in lengths
            ]
            record = write_features(np.stack(features), output, f"{item.id}-{attempt}.npy")
            sizes = np.array([len(batch[0].images) for batch in batches])
            record |= {
                "count": len(lengths),
                "sampler": item.description["sampler"],
                "lengths": item.description["lengths"],
                "energies": [finite(float(energies_of(length).mean())) for length in lengths],
                "acceptance": [float(np.average([s.acceptance for s in each], weights=sizes)) for each in lengths],
                "nonfinite": [sum(snapshot.nonfinite for snapshot in length) for length in lengths],
            }
            if settings.name == "base":
                record["energy_validation"] = mean_energy(model, validation, validation_count)
            return {**record, "seconds": time.perf_counter() - begun}

        return work

    return make_worker


def run_batches(model: GEBM, settings: SamplerSettings, item: WorkItem, pilot_seed: int) -> Iterator[list[Snapshot]]:
    """For each batch of chains its snapshots at the item's lengths."""
    device = next(model.parameters()).device
    count = item.description["count"]
    prior = model.sample_prior(count, torch.Generator().manual_seed(derive_seed(item.seed, "tune", "prior")))
    label_stream = torch.Generator().manual_seed(derive_seed(item.seed, "tune", "label"))
    all_labels = draw_labels(model, settings, count, label_stream)
    generator = torch.Generator(device).manual_seed(derive_seed(item.seed, "tune", "chain"))
    if settings.name != "base":
        model, prior = in_normal_coordinates(model), to_normal(model.prior, prior)
    for latents, labels in chain_batches(prior, all_labels, settings.chains, device):
        energy = latent_energy(model, labels)
        if settings.name == "base":
            yield [snapshot(model, energy, latents, labels, 1.0, 0)]
            continue
        algorithm, state = start_chains(model, settings, latents, generator, pilot_seed, labels)[:2]
        done, accepted, nonfinite, snapshots = 0, 0.0, 0, []
        for length in item.description["lengths"]:
            # Only the last record is looked at: none in between.
            part = run_chain(algorithm, state, length - done, generator, energy, record_every=length)
            state, accepted = part.state, accepted + part.acceptance * (length - done)
            nonfinite, done = nonfinite + part.nonfinite, length
            snapshots.append(snapshot(model, energy, part.position, labels, accepted / done, nonfinite))
        yield snapshots


@torch.no_grad()
def snapshot(
    model: GEBM,
    energy: Callable[[Tensor], Tensor],
    latents: Tensor,
    labels: Tensor | None,
    acceptance: float,
    nonfinite: int,
) -> Snapshot:
    """The images at `latents` `(chains, p)`, as they would be stored, and their energies."""
    return Snapshot(to_stored(model.generate(latents, labels)).cpu(), energy(latents).cpu(), acceptance, nonfinite)


def images_of(length: list[Snapshot]) -> Tensor:
    """The images of all batches, contiguous: `(count, channels, height, width)`, or vectors `(count, d)`."""
    return torch.cat([snapshot.images for snapshot in length]).contiguous()


def energies_of(length: list[Snapshot]) -> Tensor:
    """The energies of all batches, `(count,)` float64."""
    return torch.cat([snapshot.energies for snapshot in length]).double()


def finite(value: float) -> float | None:
    """The value, or what JSON has in place of infinity and NaN: chains with too large a step can fly away."""
    return value if math.isfinite(value) else None


@torch.no_grad()
def mean_energy(model: GEBM, url: str, limit: int | None) -> float:
    """Mean of `E(x)`, or `E(x, y)`, over the first `limit` samples of the shard set at `url`. Raises `InputError`."""
    index = load_index(url)
    if model.classes is not None and (index.classes is None or index.classes > model.classes):
        raise InputError(
            f"{url} has {index.classes or 'no'} classes, the conditional model {model.classes}: "
            "give validation data with the labels of the training data"
        )
    device = next(model.parameters()).device
    sums, count = [], 0
    for batch in iterate_batches(url, IMAGES_AT_ONCE, stop=limit):
        images = from_stored(torch.from_numpy(batch.images).to(device))
        known = None if model.classes is None or batch.labels is None else torch.from_numpy(batch.labels).to(device)
        sums.append(float(model.energy(images, known).double().sum()))
        count += len(images)
    return math.fsum(sums) / count


def write_features(features: np.ndarray, output: str, name: str) -> Record:
    """Write features `(lengths, count, d)`, float32, as `name`; return the record of the file."""
    buffer = io.BytesIO()
    np.save(buffer, features, allow_pickle=False)
    data = buffer.getvalue()
    storage.write_bytes_atomic(storage.join(output, name), data)
    return {"name": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def load_features(output: str, record: Record) -> np.ndarray:
    """The features that `write_features` wrote."""
    return np.load(io.BytesIO(storage.read_bytes(storage.join(output, record["name"]))), allow_pickle=False)
