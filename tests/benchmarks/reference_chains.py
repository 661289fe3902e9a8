"""Chains in the form of the paper's public code, with our networks: the peer of the sampling benchmark.

Written anew after what the samplers of Arbel, Zhou and Gretton (2021) do, as a straightforward script would: the
potential is a module, its gradient is what `sum().backward()` leaves at the latents, the networks are in evaluation
mode, in float32, as they come: nobody told their weights not to ask for gradients.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class LatentPotential(nn.Module):
    """`U(z) = ‖z‖² / 2 + beta E(B(z))`, `(n, p) -> (n,)`."""

    def __init__(self, generator: nn.Module, energy: nn.Module, inverse_temperature: float):
        super().__init__()
        self.generator, self.energy, self.inverse_temperature = generator, energy, inverse_temperature

    def forward(self, latent: Tensor) -> Tensor:
        return latent.square().sum(1) / 2 + self.inverse_temperature * self.energy(self.generator(latent))


def gradient(potential: LatentPotential, latent: Tensor) -> tuple[Tensor, Tensor]:
    """`U` and `∇U` at `latent`."""
    latent = latent.detach().clone().requires_grad_()
    value = potential(latent)
    value.sum().backward()
    assert latent.grad is not None
    return value.detach(), latent.grad


def langevin_step(potential: LatentPotential, latent: Tensor, step_size: float) -> Tensor:
    """Unadjusted Langevin: `z - h ∇U(z) + sqrt(2h) xi`."""
    _, slope = gradient(potential, latent)
    return latent - step_size * slope + math.sqrt(2 * step_size) * torch.randn_like(latent)


def kinetic_step(
    potential: LatentPotential, latent: Tensor, velocity: Tensor, step_size: float, friction: float
) -> tuple[Tensor, Tensor]:
    """The kinetic Langevin algorithm: position and velocity after one step."""
    half = step_size / 2
    middle = latent + half * velocity
    _, slope = gradient(potential, middle)
    decay = math.exp(-friction * step_size)
    noise = math.sqrt(1 - decay**2) * torch.randn_like(latent)
    velocity = decay * (velocity - half * slope) + noise - half * slope
    return middle + half * velocity, velocity


def adjusted_langevin_step(potential: LatentPotential, latent: Tensor, step_size: float) -> Tensor:
    """Metropolis-adjusted Langevin; the gradient where the chain stands is computed at every step."""
    value, slope = gradient(potential, latent)
    proposal = latent - step_size * slope + math.sqrt(2 * step_size) * torch.randn_like(latent)
    new_value, new_slope = gradient(potential, proposal)
    there = (proposal - latent + step_size * slope).square().sum(1)
    back = (latent - proposal + step_size * new_slope).square().sum(1)
    log_ratio = value - new_value + (there - back) / (4 * step_size)
    accepted = torch.rand_like(log_ratio).log() < log_ratio
    return torch.where(accepted[:, None], proposal, latent)
