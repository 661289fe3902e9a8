"""Priors of the latent: their draws, their densities, and normal coordinates in which they are all alike.

The coordinates of a latent are independent, and each prior is the image of the standard normal law under an increasing
map of every coordinate, `z = T(u)`, `u ~ N(0, 1)`, with `Phi` the normal distribution function:

    normal             z = u
    uniform            z = low + (high - low) Phi(u)
    truncated_normal   z = Phi⁻¹(Phi(low) + (Phi(high) - Phi(low)) Phi(u))

So a generator `B` on any of them is the generator `B(T(u))` on the normal one, with the same images, energies and
log-partition. Training draws `T(u)`. Samplers move `u`, where there is no edge that a chain could leave by: all kernels
are as right as on a normal prior.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from gebm.trainer.model.settings import PriorSettings


def from_normal(prior: PriorSettings, normal: Tensor) -> Tensor:
    """`T(u)`: standard normal numbers of any shape to latents of the prior. Worked out in float64, differentiable."""
    if prior.kind == "normal":
        return normal
    low, high = prior.bounds
    share = torch.special.ndtr(normal.double())
    if prior.kind == "uniform":
        latent = low + (high - low) * share
    else:
        below, above = _phi(low), _phi(high)
        latent = torch.special.ndtri(below + (above - below) * share)
    return latent.to(normal.dtype).clamp(low, high)


def to_normal(prior: PriorSettings, latent: Tensor) -> Tensor:
    """`T⁻¹(z)`, of any shape. Also on the edge of the support it is finite: as far out as its type can tell."""
    if prior.kind == "normal":
        return latent
    low, high = prior.bounds
    if prior.kind == "uniform":
        share = (latent.double() - low) / (high - low)
    else:
        below, above = _phi(low), _phi(high)
        share = (torch.special.ndtr(latent.double()) - below) / (above - below)
    edge = torch.finfo(latent.dtype).eps / 4
    return torch.special.ndtri(share.clamp(edge, 1 - edge)).to(latent.dtype)


def log_density(prior: PriorSettings, latent: Tensor) -> Tensor:
    """`log eta(z)`, `(n,)`, of latents `(n, p)`; `-inf` outside of the support."""
    dimension = latent.shape[1]
    of_normal = -0.5 * latent.square().sum(1) - 0.5 * dimension * math.log(2 * math.pi)
    if prior.kind == "normal":
        return of_normal
    low, high = prior.bounds
    if prior.kind == "uniform":
        inside = torch.zeros_like(of_normal) - dimension * math.log(high - low)
    else:
        inside = of_normal - dimension * math.log(_phi(high) - _phi(low))
    return torch.where(((latent >= low) & (latent <= high)).all(1), inside, -torch.inf)


def on_normal(base: nn.Module, prior: PriorSettings) -> nn.Module:
    """`base` as one of standard normal latents, in the mode that it is in; itself where they are its own."""
    if prior.kind == "normal":
        return base
    wrapped = FromNormal(base, prior)
    wrapped.training = base.training
    return wrapped


class FromNormal(nn.Module):
    """The base `u -> B(T(u))` of standard normal `u` `(n, p)`, of a base `B` on another prior."""

    def __init__(self, base: nn.Module, prior: PriorSettings):
        super().__init__()
        self.base = base
        self.prior = prior

    def forward(self, normal: Tensor, *labels: Tensor) -> Tensor:
        images: Tensor = self.base(from_normal(self.prior, normal), *labels)
        return images


def _phi(value: float) -> float:
    return 0.5 * math.erfc(-value / math.sqrt(2))
