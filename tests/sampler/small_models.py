"""Small models with random weights whose energy varies enough over the prior to make sampling worth while."""

from __future__ import annotations

import torch

from gebm.trainer.model import GEBM, ModelSettings, build_model, freeze, save_model

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
