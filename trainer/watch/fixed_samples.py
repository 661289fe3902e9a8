"""The samples that a run is watched on: the same real images and the same prior draws from its start to its end.

Readings then change because the model does. Every worker holds its share, and shares are gathered: rank 0 alone would
keep the others waiting.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gebm.cluster.index import load_index
from gebm.cluster.lanes import LaneReader
from gebm.cluster.randomness import derive_seed
from gebm.trainer.critic import read_critic
from gebm.trainer.log_partition import apply_network, evaluation_mode, prior_draws, prior_labels
from gebm.trainer.objectives.table import Objective
from gebm.trainer.real_data import real_data
from gebm.trainer.speed import uncompiled
from gebm.trainer.state import TrainingState
from gebm.trainer.workers import Workers


class Samples(NamedTuple):
    """This worker's share of some samples, real or generated."""

    images: Tensor
    """`(n, channels, height, width)` in [-1, 1], or vectors `(n, d)`."""
    labels: Tensor | None
    """int64 `(n,)`, None unless the model is conditional."""


CHUNK = 256  # samples that go through a network at once


def real_samples(url: str, count: int, *, seed: int, rank: int, world: int, state: TrainingState) -> Samples:
    """The share of worker `rank` of `world` in `count` samples from all over the set at `url`.

    `count` must be a multiple of `world`, and no more than the set holds. Images are as stored: `trainer.flip` is for
    learning.
    """
    # A global batch with a lane for each sample: one from each of `count` equal ranges of the set.
    reader = LaneReader(
        url, seed=derive_seed(seed, "watch", "samples"), batch_size=count, lanes=count, rank=rank, world=world
    )
    try:
        conditional = state.model.classes is not None
        device = state.log_partition.device
        return Samples(*real_data(reader, device=device, dtype=state.dtype, conditional=conditional)(0))
    finally:
        reader.close()


def equal_counts(wanted: int, urls: list[str], world: int) -> int:
    """How many samples each set of `urls` can give: `wanted`, or as many as the smallest has, the same a worker."""
    smallest = min([wanted, *(load_index(url).total for url in urls)])
    return smallest - smallest % world


def share(count: int, workers: Workers) -> Tensor:
    """The rows of `count`, or a few less, that are this worker's: as many as every other's."""
    return torch.arange(workers.rank, count - count % workers.world, workers.world)


def share_of_draws(
    count: int, stage: str, seed: int, state: TrainingState, workers: Workers
) -> tuple[Tensor, Tensor | None]:
    """This worker's share of the `count` prior draws of `stage`: latents `(n, p)` and labels `(n,)` or None."""
    rows = share(count, workers).to(workers.device)
    labels = prior_labels(state, seed, stage, count)
    return prior_draws(state, seed, stage, count)[rows], None if labels is None else labels[rows]


Read = Callable[[nn.Module, Tensor, Tensor | None], Tensor]


@torch.no_grad()
def apply_in_chunks(network: nn.Module, inputs: Tensor, labels: Tensor | None, read: Read = apply_network) -> Tensor:
    """`read(network, inputs, labels)`, plainly `network(inputs)`, in evaluation mode, a few at a time."""
    with evaluation_mode(network), uncompiled():
        parts = [
            read(network, inputs[start : start + CHUNK], None if labels is None else labels[start:][:CHUNK])
            for start in range(0, len(inputs), CHUNK)
        ]
    return torch.cat(parts)


def read_in_chunks(objective: Objective, energy: nn.Module, samples: Samples) -> Tensor:
    """What `objective` reads of the energy network at `samples`: energies `(n,)`, or features `(n, d)`."""
    return apply_in_chunks(
        energy, samples.images, samples.labels, lambda network, x, labels: read_critic(network, objective, x, labels)
    )
