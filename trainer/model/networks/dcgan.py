"""The DCGAN pair (Radford, Metz, Chintala 2016) for 28 to 128 pixels."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from gebm.trainer.model.networks.conditional_norm import batch_norm, normalised
from gebm.trainer.model.networks.energy_head import EnergyHead, HeadedEnergy
from gebm.trainer.model.networks.image_size import channels_and_size, published, scaled
from gebm.trainer.model.networks.initialisation import xavier
from gebm.trainer.model.settings import ImageShape

LEAK = 0.2
DEVIATION = 0.02  # of the base's first weights, as in the paper

# Size of the images: side of the smallest map, and the channels from there up. 64 is the paper's (its figure 1);
# the others have fewer or more doublings, of at most 1,024 channels.
LAYOUTS = {
    28: (7, [256, 128]),
    32: (4, [512, 256, 128]),
    48: (6, [512, 256, 128]),
    64: (4, [1024, 512, 256, 128]),
    128: (4, [1024, 1024, 512, 256, 128]),
}


class DCGANBase(nn.Module):
    """Latent `(n, latent_dimension)` to images `(n, channels, size, size)` in [-1, 1].

    Linear to the smallest map, batch norm, ReLU; transposed convolutions 4x4, stride 2, padding 1, each with batch
    norm and ReLU but the last, which makes the image, with tanh. With `classes`, the batch norms are conditional
    on labels `(n,)`.
    """

    def __init__(
        self, latent_dimension: int, image_shape: ImageShape, classes: int | None = None, width_factor: float = 1.0
    ):
        super().__init__()
        channels, size = channels_and_size("dcgan", image_shape)
        side, full_widths = published("dcgan", size, LAYOUTS)
        widths = scaled(full_widths, width_factor)
        self.first_map = (widths[0], side, side)
        # A bias before a batch norm is taken out again by its mean.
        self.project = nn.Linear(latent_dimension, widths[0] * side**2, bias=False)
        self.project_norm = batch_norm(widths[0], classes)
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(wide, narrow, 4, stride=2, padding=1, bias=False)
            for wide, narrow in itertools.pairwise(widths)
        )
        self.norms = nn.ModuleList(batch_norm(width, classes) for width in widths[1:])
        self.to_image = nn.ConvTranspose2d(widths[-1], channels, 4, stride=2, padding=1)
        for layer in (self.project, *self.up, self.to_image):
            nn.init.normal_(layer.weight, std=DEVIATION)  # type: ignore[arg-type]
        nn.init.zeros_(self.to_image.bias)  # type: ignore[arg-type]

    def forward(self, latent: Tensor, labels: Tensor | None = None) -> Tensor:
        x = self.project(latent).view(len(latent), *self.first_map)
        x = torch.relu(normalised(self.project_norm, x, labels))
        for up, norm in zip(self.up, self.norms, strict=True):
            x = torch.relu(normalised(norm, up(x), labels))
        return torch.tanh(self.to_image(x))


class DCGANEnergy(HeadedEnergy):
    """Images `(n, channels, size, size)` to energies `(n,)`, low where data is likely.

    Convolutions 4x4, stride 2, padding 1, with the base's channels in reverse, LeakyReLU 0.2 after each, and a
    linear layer. The paper's discriminator has batch norm; an energy is a function of one image, so this one has
    none, and Xavier-uniform weights keep the scale instead.
    """

    def __init__(
        self,
        image_shape: ImageShape,
        classes: int | None = None,
        feature_dimension: int | None = None,
        width_factor: float = 1.0,
    ):
        super().__init__()
        channels, size = channels_and_size("dcgan", image_shape)
        side, full_widths = published("dcgan", size, LAYOUTS)
        widths = [channels, *reversed(scaled(full_widths, width_factor))]
        self.convolutions = nn.ModuleList(
            xavier(nn.Conv2d(narrow, wide, 4, stride=2, padding=1)) for narrow, wide in itertools.pairwise(widths)
        )
        # No bias: a constant in E is c's.
        self.to_energy = xavier(
            EnergyHead(widths[-1] * side**2, classes=classes, feature_dimension=feature_dimension, bias=False)
        )

    def hidden(self, images: Tensor) -> Tensor:
        x = images
        for convolution in self.convolutions:
            x = nn.functional.leaky_relu(convolution(x), LEAK)
        return x.flatten(1)
