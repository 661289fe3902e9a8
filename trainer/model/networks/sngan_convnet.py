"""The SNGAN ConvNet pair of Miyato et al. (2018), table 3, as the GEBM paper uses it for 32x32 images."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from gebm.trainer.model.networks.conditional_norm import batch_norm, normalised
from gebm.trainer.model.networks.energy_head import EnergyHead, HeadedEnergy
from gebm.trainer.model.networks.image_size import channels_and_size, published, scaled
from gebm.trainer.model.networks.initialisation import xavier
from gebm.trainer.model.networks.spectral_norm import spectral_norm
from gebm.trainer.model.settings import ImageShape

LEAK = 0.1
# The smallest map of both networks by the size of the images: 4 and 6 are the paper's, 8 goes on in the same way.
SMALLEST = {32: 4, 48: 6, 64: 8}


class SNGANConvBase(nn.Module):
    """Latent `(n, latent_dimension)` to images `(n, channels, 8m, 8m)` in [-1, 1], `m` = 4, 6 or 8.

    Linear to 512 x m x m, batch norm, ReLU; transposed convolutions 4x4, stride 2, padding 1, to 256, 128 and 64
    channels, each with batch norm and ReLU; a 3x3 convolution and tanh. With `classes`, the batch norms are
    conditional on labels `(n,)`.
    """

    def __init__(
        self, latent_dimension: int, image_shape: ImageShape, classes: int | None = None, width_factor: float = 1.0
    ):
        super().__init__()
        channels, size = channels_and_size("sngan_convnet", image_shape)
        side = published("sngan_convnet", size, SMALLEST)
        widths = scaled([512, 256, 128, 64], width_factor)
        self.first_map = (widths[0], side, side)
        self.project = xavier(nn.Linear(latent_dimension, widths[0] * side**2))
        self.project_norm = batch_norm(widths[0], classes)
        self.up = nn.ModuleList(
            xavier(nn.ConvTranspose2d(wide, narrow, 4, stride=2, padding=1))
            for wide, narrow in itertools.pairwise(widths)
        )
        self.norms = nn.ModuleList(batch_norm(width, classes) for width in widths[1:])
        self.to_image = xavier(nn.Conv2d(widths[-1], channels, 3, padding=1))

    def forward(self, latent: Tensor, labels: Tensor | None = None) -> Tensor:
        x = self.project(latent).view(len(latent), *self.first_map)
        x = torch.relu(normalised(self.project_norm, x, labels))
        for up, norm in zip(self.up, self.norms, strict=True):
            x = torch.relu(normalised(norm, up(x), labels))
        return torch.tanh(self.to_image(x))


class SNGANConvEnergy(HeadedEnergy):
    """Images `(n, channels, 8m, 8m)` to energies `(n,)`.

    Seven convolutions with kernels 3, 4, 3, 4, 3, 4, 3 (4: stride 2; padding 1), channels 64, 128, 128, 256,
    256, 512, 512, LeakyReLU 0.1 after each, and a linear layer from 512 m². Spectral norm on the convolutions
    (one power iteration in a training forward pass), not on the linear layer.
    """

    def __init__(
        self,
        image_shape: ImageShape,
        classes: int | None = None,
        feature_dimension: int | None = None,
        width_factor: float = 1.0,
    ):
        super().__init__()
        channels, size = channels_and_size("sngan_convnet", image_shape)
        side = published("sngan_convnet", size, SMALLEST)
        widths = [channels, *scaled([64, 128, 128, 256, 256, 512, 512], width_factor)]
        kernels = [3, 4, 3, 4, 3, 4, 3]
        self.convolutions = nn.ModuleList(
            spectral_norm(xavier(nn.Conv2d(n_in, n_out, kernel, stride=kernel - 2, padding=1)))
            for n_in, n_out, kernel in zip(widths[:-1], widths[1:], kernels, strict=True)
        )
        self.to_energy = xavier(EnergyHead(widths[-1] * side**2, classes=classes, feature_dimension=feature_dimension))

    def hidden(self, images: Tensor) -> Tensor:
        x = images
        for convolution in self.convolutions:
            x = nn.functional.leaky_relu(convolution(x), LEAK)
        return x.flatten(1)
