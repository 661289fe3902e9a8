"""What a model is made of: enough to rebuild it without its training configuration."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from gebm.cluster import storage
from gebm.cluster.settings import StrictModel

ImageShape = tuple[int, ...]
"""Of one point of the data: `(channels, height, width)` of an image, `(d,)` of a vector."""


class RealNVPSettings(StrictModel):
    """A flow of affine couplings, for vectors."""

    couplings: PositiveInt = 8
    hidden_width: PositiveInt = 64
    hidden_layers: PositiveInt = 2
    log_scale_bound: PositiveFloat = 2.0  # of one coupling: it scales by at most exp(bound)


class ForeignSettings(StrictModel):
    """A generator of someone else's: `generator(**arguments)` is a `torch.nn.Module` of latents."""

    generator: str = Field(pattern=r"^\w+(\.\w+)*:\w+$")  # "package.module:Name", a class or a function
    arguments: dict[str, Any] = Field(default_factory=dict)
    weights: str | None = None  # its state_dict: .safetensors, or what torch.save writes
    weights_sha256: str | None = None  # of that file; checked when given, recorded in exported models

    @field_validator("weights")
    @classmethod
    def _the_same_file_for_every_process(cls, url: str | None) -> str | None:
        return None if url is None else storage.absolute(url)


class PriorSettings(StrictModel):
    """The law of the latent's coordinates, which are independent; see `prior.py`.

    low, high: the bounds of `uniform`, -1 and 1 when left out, and of `truncated_normal`, -2 and 2.
    """

    kind: Literal["normal", "uniform", "truncated_normal"] = "normal"
    low: float | None = Field(default=None, allow_inf_nan=False)
    high: float | None = Field(default=None, allow_inf_nan=False)

    @property
    def bounds(self) -> tuple[float, float]:
        """Of the support of a coordinate; of any but the normal prior."""
        most = {"uniform": 1.0, "truncated_normal": 2.0}[self.kind]
        return (-most if self.low is None else self.low, most if self.high is None else self.high)

    @model_validator(mode="after")
    def _bounds_of_a_support(self) -> PriorSettings:
        if self.kind == "normal":
            if (self.low, self.high) != (None, None):
                raise ValueError('prior.low and prior.high are given, but prior.kind = "normal" has no bounds')
            return self
        low, high = self.bounds
        if low >= high:
            raise ValueError(f"prior.low {low:g} must be below prior.high {high:g}")
        # Beyond, a double does not tell the distribution function from 0 or 1.
        if self.kind == "truncated_normal" and not (-7 <= low < high <= 7 and low < 4 and high > -4):
            raise ValueError(
                f"prior: a normal law truncated to [{low:g}, {high:g}] is not drawn exactly: stay within [-7, 7], with "
                "low below 4 and high above -4"
            )
        return self


class ModelSettings(StrictModel):
    """The network pair and the prior.

    `network` is the family of the energy, and of the base when `base` is "implicit". Widths are read by
    `resize_convnet` (channels from the 4x4 map up to the image, and from the image down to the 4x4 map) and by
    `mlp` (hidden layers); left out, each has its own. `latent_dimension` is 64 when left out; a RealNVP base has
    as many latents as the data has numbers, and a normal prior.
    """

    network: Literal["resize_convnet", "dcgan", "sngan_convnet", "sngan_resnet", "mlp"] = "resize_convnet"
    base: Literal["implicit", "realnvp", "foreign"] = "implicit"
    conditional: bool = False  # base and energy read the labels of the data
    prior: PriorSettings = PriorSettings()
    latent_dimension: PositiveInt | None = None
    base_widths: tuple[PositiveInt, ...] | None = Field(default=None, min_length=1)
    energy_widths: tuple[PositiveInt, ...] | None = Field(default=None, min_length=1)
    width_factor: PositiveFloat = 1.0  # times the published numbers of channels of dcgan, sngan_convnet, sngan_resnet
    feature_dimension: PositiveInt | None = None  # the energy is linear in so many learnt features; None: all it has
    realnvp: RealNVPSettings = RealNVPSettings()
    foreign: ForeignSettings | None = None

    @model_validator(mode="after")
    def _a_foreign_base_is_named(self) -> ModelSettings:
        if self.base == "foreign" and self.foreign is None:
            raise ValueError('base = "foreign" needs the section [model.foreign] with its generator')
        if self.base != "foreign" and self.foreign is not None:
            raise ValueError(f'[model.foreign] is given, but base = "{self.base}": say base = "foreign"')
        if self.base == "realnvp" and self.prior.kind != "normal":
            raise ValueError(f'prior.kind = "{self.prior.kind}", but base = "realnvp" is a flow of the normal prior')
        return self
