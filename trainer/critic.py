"""What the energy network says of points, as an objective reads it, and the points of an energy step."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gebm.trainer.objectives.table import Objective


class ChainImages(NamedTuple):
    """What this worker's rows of the chains show: images `(n, ...)`, and labels `(n,)` of a conditional model.

    penalised: `(n,)` bool, the rows whose gradient penalty is taken towards the chain's image instead of the prior
    draw's: every other one of the global batch.
    """

    images: Tensor
    labels: Tensor | None
    penalised: Tensor

    def replace_penalised(self, fake: Tensor, fake_labels: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """`fake` and its labels with the chains' in the rows `penalised`."""
        labels = fake_labels
        if self.labels is not None and fake_labels is not None:
            labels = torch.where(self.penalised, self.labels, fake_labels)
        return torch.where(self.penalised.view(-1, *[1] * (fake.dim() - 1)), self.images, fake), labels


class EnergyPoints(NamedTuple):
    """This worker's rows of all that an energy step looks at; a slice of it is a micro-batch."""

    kinds: tuple[Tensor, ...]
    """Real, generated and, where there are chains, their images, each `(n, ...)`."""
    labels: tuple[Tensor | None, ...]
    """Their labels `(n,)`, None where the model is not conditional."""
    between: Tensor
    """Mixtures of real and generated images `(n, ...)`: where the penalty is taken."""
    between_labels: Tensor | None
    """A mixture has the class of its nearer end."""

    @classmethod
    def of(
        cls,
        real: Tensor,
        fake: Tensor,
        mixing: Tensor,
        real_labels: Tensor | None,
        fake_labels: Tensor | None,
        chain: ChainImages | None,
    ) -> EnergyPoints:
        """The points `a x + (1 - a) y` between `real` and `fake` `(n, ...)`, `a = mixing` `(n,)`, and the ends."""
        end, end_labels = (fake, fake_labels) if chain is None else chain.replace_penalised(fake, fake_labels)
        a = mixing.view(-1, *[1] * (real.dim() - 1))
        nearer = None
        if real_labels is not None and end_labels is not None:
            nearer = torch.where(mixing >= 0.5, real_labels, end_labels)
        kinds, labels = (real, fake), (real_labels, fake_labels)
        if chain is not None:
            return cls((*kinds, chain.images), (*labels, chain.labels), a * real + (1.0 - a) * end, nearer)
        return cls(kinds, labels, a * real + (1.0 - a) * end, nearer)

    def of_rows(self, rows: slice) -> EnergyPoints:
        """The points of these rows of each kind."""
        return EnergyPoints(
            tuple(kind[rows] for kind in self.kinds),
            tuple(None if labels is None else labels[rows] for labels in self.labels),
            self.between[rows],
            None if self.between_labels is None else self.between_labels[rows],
        )


def micro_batches(count: int, size: int | None) -> list[slice]:
    """`count` rows in slices of at most `size`, one slice where no size is given."""
    size = size or count
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def read_critic(energy: nn.Module, objective: Objective, points: Tensor, labels: Tensor | None) -> Tensor:
    """What `objective` reads at `points`: energies `(n,)`, or features `(n, d)` of the energy network."""
    network: Callable[..., Tensor] = energy.features if objective.reads == "features" else energy  # type: ignore[assignment]
    return network(points) if labels is None else network(points, labels)


def read_kinds(energy: nn.Module, objective: Objective, points: EnergyPoints) -> Tensor:
    """What `objective` reads at every kind of point, one kind after the other: `(kinds * n, ...)`."""
    given = [labels for labels in points.labels if labels is not None]
    return read_critic(energy, objective, torch.cat(points.kinds), torch.cat(given) if given else None)


def by_row(readings: Tensor, kinds: int) -> Tensor:
    """`(kinds * n, ...)`, one kind after the other, to `(n, kinds, ...)`."""
    return readings.unflatten(0, (kinds, -1)).transpose(0, 1)


def batch_energies(objective: Objective, on_real: Tensor, on_fake: Tensor) -> tuple[Tensor, Tensor]:
    """Energies `(n,)` of real and of generated points, given all that the critic says of the global batch."""
    return (on_real, on_fake) if objective.energies_of_batch is None else objective.energies_of_batch(on_real, on_fake)


def energies(objective: Objective, reading: Tensor, on_real: Tensor, on_fake: Tensor) -> Tensor:
    """Energies `(n,)` of other points, of which the critic says `reading`, given what it says of the batch."""
    if objective.energy_of_features is None:
        return reading
    return objective.energy_of_features(reading.to(on_real.dtype), on_real, on_fake)


def gradient_penalties(objective: Objective, energy_at: Tensor, points: Tensor) -> Tensor:
    """Penalty of `grad_x E` at each of `points` `(n, ...)`, `(n,)`, differentiable in the weights.

    `energy_at` `(n,)` are the energies there, each a function of its own point. `||grad E||^2`, or
    `(||grad E|| - 1)^2` for an objective whose penalty is one-centred.
    """
    (gradient,) = torch.autograd.grad(energy_at.sum(), points, create_graph=True)
    if objective.penalty == "one_centred":
        return (torch.linalg.vector_norm(gradient.flatten(1), dim=1) - 1.0).square()
    return gradient.square().flatten(1).sum(1)
