"""What a model is made of: enough to rebuild it without its training configuration."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt

from gebm.cluster.settings import StrictModel


class ModelSettings(StrictModel):
    """The network pair and the prior.

    `base_widths` and `energy_widths` are read by `resize_convnet` only: channels from the 4x4 map up to the
    image, and from the image down to the 4x4 map.
    """

    network: Literal["resize_convnet", "sngan_convnet"] = "resize_convnet"
    latent_dimension: PositiveInt = 64
    base_widths: tuple[PositiveInt, ...] = Field(default=(64, 32, 16, 8), min_length=1)
    energy_widths: tuple[PositiveInt, ...] = Field(default=(32, 64, 128), min_length=1)
