"""The SNGAN ResNet pair of Miyato et al. (2018): as the GEBM paper has it at 32 pixels, theirs at 48, 64 and 128."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gebm.trainer.model.networks.conditional_norm import batch_norm, normalised
from gebm.trainer.model.networks.energy_head import EnergyHead, HeadedEnergy
from gebm.trainer.model.networks.image_size import channels_and_size, published, scaled
from gebm.trainer.model.networks.initialisation import xavier
from gebm.trainer.model.networks.residual_blocks import DownBlock, UpBlock
from gebm.trainer.model.networks.spectral_norm import spectral_norm
from gebm.trainer.model.settings import ImageShape


class Layout(NamedTuple):
    """`base`: channels of the smallest map, of side `side`, and of each up-block; `energy`: of each block, of which
    the first `halvings` halve. `average`: the energy averages its last map, else sums it."""

    side: int
    base: list[int]
    energy: list[int]
    halvings: int
    average: bool


LAYOUTS = {
    28: Layout(7, [128] * 3, [128] * 4, 2, True),  # as 32, with one up-block less
    32: Layout(4, [128] * 4, [128] * 4, 2, True),
    48: Layout(6, [512, 256, 128, 64], [64, 128, 256, 512, 1024], 4, False),
    64: Layout(4, [1024, 512, 256, 128, 64], [64, 128, 256, 512, 1024], 5, False),
    128: Layout(4, [1024, 1024, 512, 256, 128, 64], [64, 128, 256, 512, 1024, 1024], 5, False),
}


class SNGANResNetBase(nn.Module):
    """Latent `(n, latent_dimension)` to images `(n, channels, size, size)` in [-1, 1].

    Linear to the smallest map, up-blocks, BN, ReLU, 3x3 convolution, tanh. With `classes`, every batch norm is
    conditional on labels `(n,)`.
    """

    def __init__(
        self, latent_dimension: int, image_shape: ImageShape, classes: int | None = None, width_factor: float = 1.0
    ):
        super().__init__()
        channels, size = channels_and_size("sngan_resnet", image_shape)
        layout = published("sngan_resnet", size, LAYOUTS)
        widths = scaled(layout.base, width_factor)
        self.first_map = (widths[0], layout.side, layout.side)
        self.project = xavier(nn.Linear(latent_dimension, widths[0] * layout.side**2))
        self.blocks = nn.ModuleList(UpBlock(n_in, n_out, classes) for n_in, n_out in itertools.pairwise(widths))
        self.norm = batch_norm(widths[-1], classes)
        self.to_image = xavier(nn.Conv2d(widths[-1], channels, 3, padding=1))

    def forward(self, latent: Tensor, labels: Tensor | None = None) -> Tensor:
        x = self.project(latent).view(len(latent), *self.first_map)
        for block in self.blocks:
            x = block(x, labels)
        return torch.tanh(self.to_image(torch.relu(normalised(self.norm, x, labels))))


class SNGANResNetEnergy(HeadedEnergy):
    """Images `(n, channels, size, size)` to energies `(n,)`, low where data is likely.

    Down-blocks, ReLU, the mean or the sum over the last map, a linear layer; spectral norm on every layer (one
    power iteration in a training forward pass), no batch norm.
    """

    def __init__(
        self,
        image_shape: ImageShape,
        classes: int | None = None,
        feature_dimension: int | None = None,
        width_factor: float = 1.0,
    ):
        super().__init__()
        channels, size = channels_and_size("sngan_resnet", image_shape)
        layout = published("sngan_resnet", size, LAYOUTS)
        widths = [channels, *scaled(layout.energy, width_factor)]
        self.average = layout.average
        self.blocks = nn.ModuleList(
            DownBlock(n_in, n_out, halves=number < layout.halvings, first=number == 0)
            for number, (n_in, n_out) in enumerate(itertools.pairwise(widths))
        )
        self.to_energy = xavier(EnergyHead(widths[-1], classes=classes, feature_dimension=feature_dimension))
        for layer in (self.to_energy, self.to_energy.to_features, self.to_energy.class_vectors):
            if layer is not None:
                spectral_norm(layer)

    def hidden(self, images: Tensor) -> Tensor:
        x = images
        for block in self.blocks:
            x = block(x)
        x = torch.relu(x)
        return x.mean((2, 3)) if self.average else x.sum((2, 3))
