"""The energies that a run is watched by: the network's, or for an objective that reads features the witness's.

The witness is the one between the training samples and the prior draws that are watched, never the network's last
layer, which such an objective does not train.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from gebm.trainer.critic import batch_energies, energies
from gebm.trainer.model.witness import WitnessEnergy
from gebm.trainer.objectives.table import Objective
from gebm.trainer.watch.fixed_samples import Samples, read_in_chunks
from gebm.trainer.workers import Workers


class Watched(NamedTuple):
    """This worker's share of the samples that are watched. `fake` are prior draws through the base as it is now."""

    fake: Samples
    train: Samples
    validation: Samples | None


class Energies(NamedTuple):
    """Of all workers' samples, float64 `(n,)`."""

    fake: Tensor
    train: Tensor
    validation: Tensor | None


def energies_of(objective: Objective, network: nn.Module, watched: Watched, workers: Workers) -> Energies:
    """Energies by `network`. Of a witness, those of its own samples leave each one's own kernel out."""
    fake, train = (_read(objective, network, of, workers).double() for of in (watched.fake, watched.train))
    on_train, on_fake = batch_energies(objective, train, fake)
    if watched.validation is None:
        return Energies(on_fake, on_train, None)
    validation = _read(objective, network, watched.validation, workers).double()
    return Energies(on_fake, on_train, energies(objective, validation, train, fake))


def witness_energy(objective: Objective, network: nn.Module, watched: Watched, workers: Workers) -> WitnessEnergy:
    """The energy of any other samples by the features of `network`. All workers ask together."""
    on_train, on_fake = (_read(objective, network, of, workers) for of in (watched.train, watched.fake))
    return WitnessEnergy(network, on_train, on_fake).eval()


def _read(objective: Objective, network: nn.Module, samples: Samples, workers: Workers) -> Tensor:
    return workers.gather(read_in_chunks(objective, network, samples))
