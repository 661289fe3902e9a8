"""RealNVP (Dinh, Sohl-Dickstein, Bengio 2017) for vectors: a base whose density is known in closed form.

With it the GEBM is a normalised density, `log p(x) = log q(x) - E(x) - c`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from gebm.trainer.model.networks.mlp import one_hot, silu_layers
from gebm.trainer.model.settings import RealNVPSettings


class AffineCoupling(nn.Module):
    """`x_moved = z_moved * exp(s(z_kept)) + t(z_kept)`, `x_kept = z_kept`, then a learnt gain and shift of each number.

    The log-scale is bounded, `s = bound * tanh(raw / bound)`: one far-away point cannot blow the flow up. Which
    numbers are kept alternates from one coupling to the next: every other one, then halves.
    """

    kept: Tensor
    moved: Tensor
    order: Tensor

    def __init__(self, dimension: int, number: int, settings: RealNVPSettings, classes: int | None):
        super().__init__()
        index = torch.arange(dimension)
        group = index % 2 if number % 4 < 2 else (index >= dimension // 2).long()
        mask = group == number % 2
        self.register_buffer("kept", index[mask], persistent=False)
        self.register_buffer("moved", index[~mask], persistent=False)
        self.register_buffer("order", torch.argsort(torch.cat([self.kept, self.moved])), persistent=False)
        self.bound, self.classes = settings.log_scale_bound, classes
        inputs = len(self.kept) + (classes or 0)
        self.hidden = silu_layers([inputs, *[settings.hidden_width] * settings.hidden_layers])
        self.to_scale_and_shift = nn.Linear(settings.hidden_width, 2 * len(self.moved))
        # The flow begins as the identity.
        nn.init.zeros_(self.to_scale_and_shift.weight)
        nn.init.zeros_(self.to_scale_and_shift.bias)
        self.log_gain = nn.Parameter(torch.zeros(dimension))
        self.shift = nn.Parameter(torch.zeros(dimension))

    def _scale_and_shift(self, kept: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        if self.classes is not None and labels is not None:
            kept = torch.cat([kept, one_hot(labels, self.classes, kept)], 1)
        raw, shift = self.to_scale_and_shift(self.hidden(kept)).chunk(2, 1)
        return self.bound * torch.tanh(raw / self.bound), shift

    def forward(self, z: Tensor, labels: Tensor | None) -> Tensor:
        kept = z[:, self.kept]
        log_scale, shift = self._scale_and_shift(kept, labels)
        x = torch.cat([kept, z[:, self.moved] * log_scale.exp() + shift], 1)[:, self.order]
        return x * self.log_gain.exp() + self.shift

    def inverse(self, x: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        """`z` `(n, d)`, and `log |det dx/dz|` `(n,)` there."""
        x = (x - self.shift) * (-self.log_gain).exp()
        kept = x[:, self.kept]
        log_scale, shift = self._scale_and_shift(kept, labels)
        z = torch.cat([kept, (x[:, self.moved] - shift) * (-log_scale).exp()], 1)[:, self.order]
        return z, log_scale.sum(1) + self.log_gain.sum()


class RealNVP(nn.Module):
    """Latents `(n, d)` to vectors `(n, d)`, one to one; with `classes`, another map for each label.

    Raises `ValueError` when `dimension` is 1: a coupling needs one number to keep and one to move.
    """

    def __init__(self, dimension: int, settings: RealNVPSettings, classes: int | None = None):
        super().__init__()
        if dimension < 2:
            raise ValueError("base realnvp needs vectors of at least 2 numbers, the data has 1")
        self.couplings = nn.ModuleList(
            AffineCoupling(dimension, number, settings, classes) for number in range(settings.couplings)
        )

    def forward(self, latent: Tensor, labels: Tensor | None = None) -> Tensor:
        x = latent
        for coupling in self.couplings:
            x = coupling(x, labels)
        return x

    def inverse(self, points: Tensor, labels: Tensor | None = None) -> Tensor:
        """The latents `(n, d)` of `points` `(n, d)`."""
        return self._inverse(points, labels)[0]

    def log_density(self, points: Tensor, labels: Tensor | None = None) -> Tensor:
        """`log q(x) = log N(z; 0, I) - log |det dx/dz|` in nats, `(n,)`, given the labels when there are any."""
        latent, log_determinant = self._inverse(points, labels)
        log_prior = -0.5 * latent.square().sum(1) - 0.5 * latent.shape[1] * math.log(2 * math.pi)
        return log_prior - log_determinant

    def _inverse(self, points: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        z, total = points, points.new_zeros(len(points))
        for coupling in reversed(self.couplings):
            assert isinstance(coupling, AffineCoupling)
            z, log_determinant = coupling.inverse(z, labels)
            total = total + log_determinant
        return z, total
