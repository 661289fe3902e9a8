"""The samples of one shard, a batch of chains at a time; it can be put down after any transition and taken up again.

The prior draws and the labels come from streams of their own on the CPU: whatever sampler and device, shards of the
same seed and size start from the same latents and have the same labels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gebm.cluster.farm import WorkItem
from gebm.cluster.randomness import derive_seed
from gebm.sampler.chain import Samples, chains_for, sample_from
from gebm.sampler.diagnostics import describe_chains
from gebm.sampler.findings import Findings, mean_findings
from gebm.sampler.labels import chain_batches, draw_labels
from gebm.sampler.settings import SamplerSettings
from gebm.sampler.stored import StoreSettings
from gebm.trainer.model import GEBM, to_stored

Content = dict[str, Any]
Offer = Callable[[Callable[[], Content]], None]
"""Told after each transition how to make a snapshot of the shard; takes one when it wants to."""


class Batch(NamedTuple):
    """The samples of a batch of chains as they are stored, and how they came about; all on the CPU.

    values: uint8 images `(n, channels, height, width)` or float32 vectors `(n, d)`. labels: `(n,)` or None. latents:
    `(n, p)`, sample_energies: `(n,)`, each None unless it is kept. The others as in `Samples`.
    """

    values: Tensor
    labels: Tensor | None
    latents: Tensor | None
    sample_energies: Tensor | None
    recorded_steps: tuple[int, ...]
    energies: Tensor
    acceptance: float
    nonfinite: int
    potential_error: float | None
    found: Findings


def sample_shard(
    model: GEBM,
    settings: SamplerSettings,
    item: WorkItem,
    pilot_seed: int,
    store: StoreSettings,
    begin: Content | None = None,
    offer: Offer | None = None,
) -> list[Batch]:
    """The batches of one shard, each of at most `chains` chains; too many samples where a chain makes several.

    begin: a snapshot that was offered, by this process or another: the shard goes on from there, and ends with the same
    bytes as without. Raises `OtherChains` for a snapshot of others.
    """
    device = next(model.parameters()).device
    count = item.description["count"]
    chains = chains_for(count, settings)
    prior = model.sample_prior(count, torch.Generator().manual_seed(derive_seed(item.seed, "shard", "prior")))[:chains]
    label_stream = torch.Generator().manual_seed(derive_seed(item.seed, "shard", "label"))
    labels = draw_labels(model, settings, chains, label_stream)
    generator = torch.Generator(device).manual_seed(derive_seed(item.seed, "shard", "chain"))
    finished: list[Batch] = []
    running = None
    if begin is not None:
        finished = [Batch(**each) for each in begin["finished"]]
        generator.set_state(begin["generator"])
        running = begin["running"]

    def tell(make_snapshot: Callable[[], Content | None]) -> None:
        if offer is not None:
            offer(lambda: _content(finished, generator, make_snapshot()))

    batches = list(chain_batches(prior, labels, item.description["chains"], device))
    for latents, own in batches[len(finished) :]:
        samples = sample_from(model, settings, latents, generator, pilot_seed, own, snapshot=running, after_step=tell)
        running = None
        finished.append(_batch(model, samples, store, len(latents)))
        tell(lambda: None)
    return finished


def describe_batches(batches: list[Batch]) -> dict[str, Any]:
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


def joined(parts: list[Tensor | None]) -> np.ndarray | None:
    """The rows of all batches; None where they have none."""
    there = [part for part in parts if part is not None]
    return torch.cat(there).numpy() if there else None


def _content(finished: list[Batch], generator: torch.Generator, running: Content | None) -> Content:
    batches = [batch._asdict() for batch in finished]
    return {"finished": batches, "generator": generator.get_state(), "running": running}


@torch.no_grad()
def _batch(model: GEBM, samples: Samples, store: StoreSettings, chains: int) -> Batch:
    """Reduced to what is kept. chains: how many samples the networks are given at once."""
    energies = None
    if "energies" in store.save:
        images = samples.images.split(chains)
        labels = [None] * len(images) if samples.labels is None else samples.labels.split(chains)
        energies = torch.cat([model.energy(*each) for each in zip(images, labels, strict=True)]).float().cpu()
    return Batch(
        to_stored(samples.images).cpu(),
        None if samples.labels is None else samples.labels.cpu(),
        samples.latents.float().cpu() if "latents" in store.save else None,
        energies,
        samples.recorded_steps,
        samples.energies,
        samples.acceptance,
        samples.nonfinite,
        samples.potential_error,
        samples.found,
    )
