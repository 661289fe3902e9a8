"""Network families by the name that a recipe gives. A new family is one file and one entry here."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import nn

from gebm.trainer.model.networks.dcgan import DCGANBase, DCGANEnergy
from gebm.trainer.model.networks.mlp import MLPBase, MLPEnergy
from gebm.trainer.model.networks.resize_convnet import ResizeConvBase, StridedConvEnergy
from gebm.trainer.model.networks.sngan_convnet import SNGANConvBase, SNGANConvEnergy
from gebm.trainer.model.networks.sngan_resnet import SNGANResNetBase, SNGANResNetEnergy
from gebm.trainer.model.settings import ImageShape, ModelSettings

MakeBase = Callable[[ModelSettings, int, ImageShape, int | None], nn.Module]  # of so many latents and classes
MakeEnergy = Callable[[ModelSettings, ImageShape, int | None], nn.Module]


class Family(NamedTuple):
    """How to build the two networks of a pair from the settings and the shape of the data."""

    base: MakeBase
    energy: MakeEnergy


NETWORKS: dict[str, Family] = {
    "resize_convnet": Family(
        base=lambda s, latents, shape, classes: ResizeConvBase(
            latents, shape, s.base_widths or (64, 32, 16, 8), classes
        ),
        energy=lambda s, shape, classes: StridedConvEnergy(
            shape, s.energy_widths or (32, 64, 128), classes, s.feature_dimension
        ),
    ),
    "dcgan": Family(
        base=lambda s, latents, shape, classes: DCGANBase(latents, shape, classes, s.width_factor),
        energy=lambda s, shape, classes: DCGANEnergy(shape, classes, s.feature_dimension, s.width_factor),
    ),
    "sngan_convnet": Family(
        base=lambda s, latents, shape, classes: SNGANConvBase(latents, shape, classes, s.width_factor),
        energy=lambda s, shape, classes: SNGANConvEnergy(shape, classes, s.feature_dimension, s.width_factor),
    ),
    "sngan_resnet": Family(
        base=lambda s, latents, shape, classes: SNGANResNetBase(latents, shape, classes, s.width_factor),
        energy=lambda s, shape, classes: SNGANResNetEnergy(shape, classes, s.feature_dimension, s.width_factor),
    ),
    "mlp": Family(
        base=lambda s, latents, shape, classes: MLPBase(latents, shape, s.base_widths or (128, 128, 128), classes),
        energy=lambda s, shape, classes: MLPEnergy(
            shape, s.energy_widths or (128, 128, 128), classes, s.feature_dimension
        ),
    ),
}
