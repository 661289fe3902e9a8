"""A small convolutional pair for 28-64 pixels: nearest-neighbour up-sampling, no spectral normalisation.

Cheap enough to train in minutes on two CPU cores. Up-sampling followed by a 3x3 convolution needs about a
quarter of the arithmetic of a transposed convolution of the same width, and leaves no checkerboard.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gebm.trainer.model.networks.conditional_norm import batch_norm, normalised
from gebm.trainer.model.networks.energy_head import EnergyHead, HeadedEnergy
from gebm.trainer.model.networks.image_size import channels_and_size
from gebm.trainer.model.settings import ImageShape

LEAK = 0.1
SMALLEST = 4  # side of the first feature map of the base and of the last one of the energy


class ResizeConvBase(nn.Module):
    """Latent `(n, latent_dimension)` to images `(n, channels, size, size)` in [-1, 1].

    Linear to `widths[0] x 4 x 4`, batch norm, ReLU; then, for each further width: nearest x2, 3x3
    convolution, batch norm, ReLU; last a 3x3 convolution and tanh. `size = 4 * 2 ** (len(widths) - 1)`.
    With `classes`, the batch norms are conditional on labels `(n,)`.
    """

    def __init__(
        self, latent_dimension: int, image_shape: ImageShape, widths: Sequence[int], classes: int | None = None
    ):
        super().__init__()
        channels, size = channels_and_size("resize_convnet", image_shape)
        if SMALLEST * 2 ** (len(widths) - 1) != size:
            raise ValueError(
                f"base_widths {list(widths)} make images of {SMALLEST * 2 ** (len(widths) - 1)} pixels, "
                f"the data has {size}: give {(size // SMALLEST).bit_length()} widths"
            )
        self.first_width = widths[0]
        # A bias before a batch norm is taken out again by its mean.
        self.project = nn.Linear(latent_dimension, widths[0] * SMALLEST**2, bias=False)
        self.project_norm = batch_norm(widths[0], classes)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(narrow, wide, 3, padding=1, bias=False) for narrow, wide in itertools.pairwise(widths)
        )
        self.norms = nn.ModuleList(batch_norm(width, classes) for width in widths[1:])
        self.to_image = nn.Conv2d(widths[-1], channels, 3, padding=1)

    def forward(self, latent: Tensor, labels: Tensor | None = None) -> Tensor:
        x = self.project(latent).view(len(latent), self.first_width, SMALLEST, SMALLEST)
        x = torch.relu(normalised(self.project_norm, x, labels))
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = nn.functional.interpolate(x, scale_factor=2, mode="nearest")
            x = torch.relu(normalised(norm, convolution(x), labels))
        return torch.tanh(self.to_image(x))


class StridedConvEnergy(HeadedEnergy):
    """Images `(n, channels, size, size)` to energies `(n,)`, low where data is likely.

    4x4 convolutions of stride 2 down to 4x4, LeakyReLU 0.1 after each, and a linear layer:
    `size = 4 * 2 ** len(widths)`. No normalisation: the gradient penalty alone keeps it smooth.
    """

    def __init__(
        self,
        image_shape: ImageShape,
        widths: Sequence[int],
        classes: int | None = None,
        feature_dimension: int | None = None,
    ):
        super().__init__()
        channels, size = channels_and_size("resize_convnet", image_shape)
        if SMALLEST * 2 ** len(widths) != size:
            raise ValueError(
                f"energy_widths {list(widths)} read images of {SMALLEST * 2 ** len(widths)} pixels, "
                f"the data has {size}: give {(size // SMALLEST).bit_length() - 1} widths"
            )
        self.convolutions = nn.ModuleList(
            nn.Conv2d(narrow, wide, 4, stride=2, padding=1) for narrow, wide in itertools.pairwise((channels, *widths))
        )
        # No bias: the loss does not change with a constant in E (c takes it up), so its gradient is rounding noise,
        # which Adam would blow up to full steps.
        self.to_energy = EnergyHead(
            widths[-1] * SMALLEST**2, classes=classes, feature_dimension=feature_dimension, bias=False
        )

    def hidden(self, images: Tensor) -> Tensor:
        x = images
        for convolution in self.convolutions:
            x = nn.functional.leaky_relu(convolution(x), LEAK)
        return x.flatten(1)
