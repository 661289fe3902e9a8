"""A small model whose energy was trained: a ring in the plane, by the Donsker-Varadhan bound on a fixed base."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gebm.trainer.model import GEBM, ModelSettings, build_model, freeze
from gebm.trainer.objectives.kale import log_mean_exp

SETTINGS = ModelSettings(network="mlp", latent_dimension=2, base_widths=(16,), energy_widths=(48, 48))
STEPS, BATCH = 400, 256


def ring(count: int, generator: torch.Generator) -> Tensor:
    """`(count, 2)`: radius 1.5 with a deviation of 0.3, in the half plane above -0.75 twice as often."""
    angle = 2 * math.pi * torch.rand(count, generator=generator)
    flip = (angle > math.pi) & (torch.rand(count, generator=generator) < 0.5)
    angle = torch.where(flip, 2 * math.pi - angle, angle)
    radius = 1.5 + 0.3 * torch.randn(count, generator=generator)
    return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1)


def trained_model() -> GEBM:
    """About two seconds of training on one CPU; a function of nothing."""
    model = build_model(SETTINGS, (2,), seed=0)
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(model.base.parameters(), lr=1e-2)
    for _ in range(150):  # a base that covers the ring, and bends
        latent = model.sample_prior(BATCH, generator)
        wanted = 1.5 * latent + 0.3 * torch.sin(2 * latent.flip(1))
        optimizer.zero_grad()
        (model.generate(latent) - wanted).square().mean().backward()
        optimizer.step()
    model.base.requires_grad_(False)
    optimizer = torch.optim.Adam(model.energy_network.parameters(), lr=2e-3)
    for _ in range(STEPS):
        real = ring(BATCH, generator)
        fake = model.generate(model.sample_prior(BATCH, generator))
        loss = model.energy(real).mean() + log_mean_exp(-model.energy(fake))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return freeze(model)
