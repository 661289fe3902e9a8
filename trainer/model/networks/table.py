"""Network families by the name that a recipe gives. A new family is one file and one entry here."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import nn

from gebm.trainer.model.networks.resize_convnet import ResizeConvBase, StridedConvEnergy
from gebm.trainer.model.networks.sngan_convnet import SNGANConvBase, SNGANConvEnergy
from gebm.trainer.model.settings import ModelSettings

ImageShape = tuple[int, ...]
"""`(channels, height, width)` of images, `(d,)` of vectors."""


class Family(NamedTuple):
    """How to build the two networks of a pair from the settings and the shape `(channels, height, width)`."""

    base: Callable[[ModelSettings, ImageShape], nn.Module]
    energy: Callable[[ModelSettings, ImageShape], nn.Module]


NETWORKS: dict[str, Family] = {
    "resize_convnet": Family(
        base=lambda s, shape: ResizeConvBase(s.latent_dimension, shape, s.base_widths),
        energy=lambda s, shape: StridedConvEnergy(shape, s.energy_widths),
    ),
    "sngan_convnet": Family(
        base=lambda s, shape: SNGANConvBase(s.latent_dimension, shape),
        energy=lambda s, shape: SNGANConvEnergy(shape),
    ),
}
