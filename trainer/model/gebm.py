"""The generalized energy-based model: a base that says where the mass lies, an energy that says how much."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from gebm.cluster.errors import InputError
from gebm.trainer.model.networks.table import NETWORKS, ImageShape
from gebm.trainer.model.settings import ModelSettings


class GEBM(nn.Module):
    """`dQ_{B,E} / dQ_base (x) = exp(-E(x) - c)` (Arbel, Zhou, Gretton 2021).

    `Q_base` is the law of `base(z)`, `z ~ N(0, I_p)`; `E` is low where data is likely; `c` is the log-partition
    `log E[exp(-E(base(z)))]`, with its Monte-Carlo standard error `log_partition_error`.
    """

    log_partition: Tensor
    log_partition_error: Tensor

    def __init__(self, base: nn.Module, energy_network: nn.Module, latent_dimension: int, image_shape: ImageShape):
        super().__init__()
        self.base = base
        self.energy_network = energy_network
        self.latent_dimension = latent_dimension
        self.image_shape = image_shape
        # float64: c is a sum of thousands of small corrections.
        self.register_buffer("log_partition", torch.zeros((), dtype=torch.float64))
        self.register_buffer("log_partition_error", torch.full((), math.nan, dtype=torch.float64))

    def sample_prior(self, count: int, generator: torch.Generator) -> Tensor:
        """`(count, p)` draws of the standard normal prior, on the generator's device."""
        return torch.randn(count, self.latent_dimension, generator=generator, device=generator.device)

    def log_prior(self, latent: Tensor) -> Tensor:
        """`log eta(z)`, `(n,)`: the log-density of `N(0, I_p)` at `latent` `(n, p)`."""
        return -0.5 * latent.square().sum(1) - 0.5 * self.latent_dimension * math.log(2 * math.pi)

    def generate(self, latent: Tensor) -> Tensor:
        """`B(z)`: latents `(n, p)` to images `(n, channels, height, width)` in [-1, 1]."""
        return self.base(latent)

    def energy(self, images: Tensor) -> Tensor:
        """`E(x)`: images `(n, channels, height, width)` in [-1, 1] to energies `(n,)`."""
        return self.energy_network(images)


def build_model(settings: ModelSettings, image_shape: ImageShape, seed: int | None = None) -> GEBM:
    """A model with fresh weights for images of `image_shape` `(channels, height, width)`.

    With `seed`, the weights are a function of it and the global random state is left as it was.
    Raises `InputError` when the networks cannot make or read images of that shape.
    """
    if image_shape[1] != image_shape[2]:
        raise InputError(f"images of {image_shape[1]}x{image_shape[2]} pixels: only square images can be modelled")
    family = NETWORKS[settings.network]
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        try:
            base, energy = family.base(settings, image_shape), family.energy(settings, image_shape)
        except ValueError as error:
            raise InputError(f"model.{error}") from error
    return GEBM(base, energy, settings.latent_dimension, image_shape)


def freeze(model: GEBM) -> GEBM:
    """The model as samplers use it: evaluation mode, no weight gradients, spectral norms folded into weights."""
    model.eval().requires_grad_(False)
    for module in model.modules():
        if parametrize.is_parametrized(module):
            for name in list(module.parametrizations):  # type: ignore[arg-type]
                parametrize.remove_parametrizations(module, name, leave_parametrized=True)
    return model.requires_grad_(False)
