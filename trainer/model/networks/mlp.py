"""Fully connected pair for toy and tabular data: smooth (SiLU), so that energies have gradients to sample with."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gebm.trainer.model.networks.energy_head import EnergyHead
from gebm.trainer.model.settings import ImageShape


def silu_layers(widths: Sequence[int]) -> nn.Sequential:
    """Linear layers between `widths`, SiLU after each."""
    layers = [(nn.Linear(narrow, wide), nn.SiLU()) for narrow, wide in itertools.pairwise(widths)]
    return nn.Sequential(*itertools.chain.from_iterable(layers))


def one_hot(labels: Tensor, classes: int, like: Tensor) -> Tensor:
    """Labels `(n,)` int64 to `(n, classes)` of the kind of `like`."""
    return nn.functional.one_hot(labels, classes).to(like.dtype)


class MLPBase(nn.Module):
    """Latent `(n, latent_dimension)` to points `(n, *image_shape)`; images are squashed to [-1, 1] by tanh.

    Hidden layers of `widths`; with `classes`, the label is one-hot beside the latent.
    """

    def __init__(
        self, latent_dimension: int, image_shape: ImageShape, widths: Sequence[int], classes: int | None = None
    ):
        super().__init__()
        self.image_shape, self.classes = image_shape, classes
        self.hidden = silu_layers([latent_dimension + (classes or 0), *widths])
        self.to_image = nn.Linear(widths[-1], math.prod(image_shape))

    def forward(self, latent: Tensor, labels: Tensor | None = None) -> Tensor:
        if self.classes is not None and labels is not None:
            latent = torch.cat([latent, one_hot(labels, self.classes, latent)], 1)
        points = self.to_image(self.hidden(latent)).view(len(latent), *self.image_shape)
        return points if len(self.image_shape) == 1 else torch.tanh(points)


class MLPEnergy(nn.Module):
    """Points `(n, *image_shape)` to energies `(n,)`, low where data is likely. Hidden layers of `widths`."""

    def __init__(
        self,
        image_shape: ImageShape,
        widths: Sequence[int],
        classes: int | None = None,
        feature_dimension: int | None = None,
    ):
        super().__init__()
        self.hidden = silu_layers([math.prod(image_shape), *widths])
        # No bias: a constant in E is c's.
        self.to_energy = EnergyHead(widths[-1], classes=classes, feature_dimension=feature_dimension, bias=False)

    def features(self, points: Tensor, labels: Tensor | None = None) -> Tensor:
        """`(n, d)`: what the energy is linear in."""
        return self.to_energy.features(self.hidden(points.flatten(1)), labels)

    def forward(self, points: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.to_energy(self.hidden(points.flatten(1)), labels)
