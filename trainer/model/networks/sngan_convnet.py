"""The SNGAN ConvNet pair of Miyato et al. (2018) as the GEBM paper uses it for 32x32 images."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

LEAK = 0.1
SIZE = 32


def _xavier(layer: nn.Module) -> nn.Module:
    nn.init.xavier_uniform_(layer.weight)  # type: ignore[arg-type]
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


class SNGANConvBase(nn.Module):
    """Latent `(n, latent_dimension)` to images `(n, channels, 32, 32)` in [-1, 1].

    Linear to 512x4x4, batch norm, ReLU; transposed convolutions 4x4, stride 2, padding 1, to 256, 128 and 64
    channels, each with batch norm and ReLU; a 3x3 convolution and tanh.
    """

    def __init__(self, latent_dimension: int, image_shape: tuple[int, ...]):
        super().__init__()
        channels, size, _ = image_shape
        if size != SIZE:
            raise ValueError(f"network sngan_convnet makes {SIZE}x{SIZE} images, the data has {size}x{size}")
        self.project = _xavier(nn.Linear(latent_dimension, 512 * 4 * 4))
        self.project_norm = nn.BatchNorm2d(512)
        widths = [512, 256, 128, 64]
        self.up = nn.ModuleList(
            _xavier(nn.ConvTranspose2d(wide, narrow, 4, stride=2, padding=1))
            for wide, narrow in itertools.pairwise(widths)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in widths[1:])
        self.to_image = _xavier(nn.Conv2d(64, channels, 3, padding=1))

    def forward(self, latent: Tensor) -> Tensor:
        x = torch.relu(self.project_norm(self.project(latent).view(len(latent), 512, 4, 4)))
        for up, norm in zip(self.up, self.norms, strict=True):
            x = torch.relu(norm(up(x)))
        return torch.tanh(self.to_image(x))


class SNGANConvEnergy(nn.Module):
    """Images `(n, channels, 32, 32)` to energies `(n,)`.

    Seven convolutions with kernels 3, 4, 3, 4, 3, 4, 3 (4: stride 2; padding 1), channels 64, 128, 128, 256,
    256, 512, 512, LeakyReLU 0.1 after each, and a linear layer from 8192. Spectral norm on the convolutions
    (one power iteration in a training forward pass), not on the linear layer.
    """

    def __init__(self, image_shape: tuple[int, ...]):
        super().__init__()
        channels, size, _ = image_shape
        if size != SIZE:
            raise ValueError(f"network sngan_convnet reads {SIZE}x{SIZE} images, the data has {size}x{size}")
        widths = [channels, 64, 128, 128, 256, 256, 512, 512]
        kernels = [3, 4, 3, 4, 3, 4, 3]
        self.convolutions = nn.ModuleList(
            spectral_norm(_xavier(nn.Conv2d(n_in, n_out, kernel, stride=kernel - 2, padding=1)))
            for n_in, n_out, kernel in zip(widths[:-1], widths[1:], kernels, strict=True)
        )
        self.to_energy = _xavier(nn.Linear(512 * 4 * 4, 1))

    def forward(self, images: Tensor) -> Tensor:
        x = images
        for convolution in self.convolutions:
            x = nn.functional.leaky_relu(convolution(x), LEAK)
        return self.to_energy(x.flatten(1)).squeeze(1)
