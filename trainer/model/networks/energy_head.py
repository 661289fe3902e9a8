"""The last layer of every energy: from hidden units to one number, with the class's part when there are classes."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class EnergyHead(nn.Linear):
    """`E = w . phi + b`, and with labels `E = (w + v_y) . phi + b`: the projection of Miyato and Koyama (2018).

    `phi` are the hidden units `(n, hidden)` or, with `feature_dimension`, a learnt linear map of them to so many
    features: kernels on a handful of features are smoother than on thousands (Bińkowski et al. 2018 take 16).
    """

    def __init__(
        self, hidden: int, *, classes: int | None = None, feature_dimension: int | None = None, bias: bool = True
    ):
        width = feature_dimension or hidden
        super().__init__(width, 1, bias=bias)
        self.to_features = nn.Linear(hidden, width) if feature_dimension else None
        self.class_vectors = nn.Embedding(classes, width) if classes else None
        if self.class_vectors is not None:
            nn.init.xavier_uniform_(self.class_vectors.weight)

    def features(self, hidden: Tensor, labels: Tensor | None = None) -> Tensor:
        """What a kernel critic compares: `phi` `(n, d)`, beside it the label's vector `v_y` when there are labels.

        With both, a kernel between rows is one between pairs (image, label): it sees the joint law.
        """
        phi = hidden if self.to_features is None else self.to_features(hidden)
        return phi if labels is None else torch.cat([phi, self._vectors(labels)], 1)

    def forward(self, hidden: Tensor, labels: Tensor | None = None) -> Tensor:
        """Hidden units `(n, hidden)`, labels `(n,)` int64, to energies `(n,)`."""
        phi = hidden if self.to_features is None else self.to_features(hidden)
        energy = super().forward(phi).squeeze(1)
        return energy if labels is None else energy + (self._vectors(labels) * phi).sum(1)

    def _vectors(self, labels: Tensor) -> Tensor:
        if self.class_vectors is None:
            raise ValueError("labels were given to an energy without classes")
        return self.class_vectors(labels)


class HeadedEnergy(nn.Module):
    """An energy of images: `hidden`, which each network has of its own, and the head `to_energy`."""

    to_energy: EnergyHead

    def hidden(self, images: Tensor) -> Tensor:
        """Images `(n, channels, height, width)` to hidden units `(n, hidden)`."""
        raise NotImplementedError

    def features(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """`(n, d)`: what the energy is linear in."""
        return self.to_energy.features(self.hidden(images), labels)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images and, where there are classes, labels `(n,)` to energies `(n,)`."""
        return self.to_energy(self.hidden(images), labels)
