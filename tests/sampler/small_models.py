"""Small models with random weights whose energy varies enough over the prior to make sampling worth while."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gebm.trainer.model import GEBM, ModelSettings, PriorSettings, build_model, freeze, save_model

SETTINGS = ModelSettings(latent_dimension=4, base_widths=(6, 4), energy_widths=(6,))
SHAPE = (1, 8, 8)


def small_model(spread: float = 1.2, seed: int = 1) -> GEBM:
    """A frozen model of 8x8 images, latent dimension 4, with `E(B(z))` of standard deviation `spread`."""
    model = freeze(build_model(SETTINGS, SHAPE, seed=seed))
    with torch.no_grad():
        # Freshly initialised, images hardly vary with the latent: make the last layer of the base louder first.
        model.base.to_image.weight *= 8  # type: ignore[union-attr, operator]
        latents = model.sample_prior(2000, torch.Generator().manual_seed(seed))
        deviation = model.energy(model.generate(latents)).std()
        model.energy_network.to_energy.weight *= spread / deviation  # type: ignore[union-attr, operator]
    return model


def save_small_model(url: str, seed: int = 1) -> str:
    """Write `small_model` to the folder `url`, as training would, and return it."""
    save_model(small_model(seed=seed), SETTINGS, url)
    return url


class _Scaled(nn.Module):
    """A base `B(z) = weight * z`, or an energy `½ Σ weight_i x_i²`, on vectors."""

    def __init__(self, weight: tuple[float, ...], energy: bool):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))
        self.is_energy = energy

    def forward(self, x: Tensor) -> Tensor:
        return (self.weight * x.square()).sum(1) / 2 if self.is_energy else self.weight * x


def gaussian_model(scales: tuple[float, ...]) -> GEBM:
    """A frozen model of vectors whose latent posterior at `beta = 1` is `N(0, diag(scales)²)`, `scales < 1`.

    At another one, the precision is `1 + beta (scales^-2 - 1)`.
    """
    return quadratic_model(tuple(s**-2 - 1 for s in scales), PriorSettings())


def quadratic_model(stiffness: tuple[float, ...], prior: PriorSettings) -> GEBM:
    """A frozen model of vectors with `E(B(z)) = ½ Σ stiffness_i z_i²`, on any prior."""
    dimension = len(stiffness)
    base = _Scaled((2.0,) * dimension, energy=False)
    energy = _Scaled(tuple(k / 4 for k in stiffness), energy=True)
    return freeze(GEBM(base, energy, dimension, (dimension,), prior=prior))
