"""Sampling-importance-resampling: draws of the model without a chain, and a check of the chains.

Draw `z_1..z_m ~ eta`, weigh them by `w_i ∝ exp(-beta E(B(z_i)))`, and draw `n` of them with these weights. As `m`
grows the law of a draw tends to the model's, with a bias of the order of one over the effective number of draws
`(Σ w)² / Σ w²`; where that is small, the same few latents come again and again. Rubin, 1988; systematic resampling:
Kitagawa, 1996, https://doi.org/10.2307/1390750
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from gebm.sampler.algorithm import Potential
from gebm.sampler.potential import latent_tilt
from gebm.sampler.settings import SamplerSettings
from gebm.trainer.model import GEBM


class Resampled(NamedTuple):
    """latents: `(n, p)`. effective: the effective share of the draws, in (0, 1]. largest: weight, of a sum of 1."""

    latents: Tensor
    effective: float
    largest: float


def importance_weights(tilt: Tensor) -> Tensor:
    """`(m,)` float64 weights `∝ exp(-tilt)` that sum to 1; 0 where the tilt is not a number.

    Raises `ValueError` when no draw has a finite tilt.
    """
    log_weights = -tilt.double()
    log_weights = log_weights.masked_fill(~log_weights.isfinite(), -torch.inf)
    if log_weights.max() == -torch.inf:
        raise ValueError("no prior draw has a finite energy: there is nothing to resample")
    return torch.softmax(log_weights, 0)


def effective_share(weights: Tensor) -> float:
    """`1 / (m Σ w²)` of weights `(m,)` that sum to 1: in (0, 1], the share of the draws that count."""
    return float(1 / (len(weights) * weights.square().sum()))


def systematic(weights: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """`(count,)` indices: i comes `count * w_i` times, rounded down or up, and on average exactly so often.

    weights: `(m,)`, of sum 1. In random order, so that copies do not lie side by side.
    """
    device = weights.device
    uniform = torch.rand((), generator=generator, dtype=torch.float64, device=device)
    points = (torch.arange(count, device=device) + uniform) / count
    chosen = torch.searchsorted(weights.cumsum(0), points, right=True).clamp(max=len(weights) - 1)
    return chosen[torch.randperm(count, generator=generator, device=device)]


@torch.no_grad()
def resample(
    tilt: Potential,
    sample_prior: Callable[[int, torch.Generator], Tensor],
    count: int,
    draws: int,
    generator: torch.Generator,
    labels: Tensor | None = None,
) -> Resampled:
    """`count` latents out of `draws * count` of the prior, which are evaluated `count` at a time.

    tilt: `beta E(B(z))`, `(count, p) -> (count,)`. sample_prior: `(count, generator) -> (count, p)`. labels: `(count,)`
    of a conditional model, which `tilt` is closed over: latents are drawn among those of their own label.
    Raises `ValueError` when no draw has a finite tilt.
    """
    parts = torch.stack([sample_prior(count, generator) for _ in range(draws)])
    tilts = torch.stack([tilt(part) for part in parts])
    kinds = [torch.ones(count, dtype=torch.bool, device=parts.device)]
    if labels is not None:
        kinds = [labels == label for label in labels.unique()]
    latents = torch.empty_like(parts[0])
    effective, largest = 0.0, 0.0
    for kind in kinds:
        weights = importance_weights(tilts[:, kind].flatten())
        size = len(weights) // draws
        rows = systematic(weights, size, generator)
        latents[kind] = parts[:, kind].flatten(0, 1)[rows]
        effective += size / count * effective_share(weights)
        largest = max(largest, float(weights.max()))
    return Resampled(latents, effective, largest)


def resample_model(
    model: GEBM, settings: SamplerSettings, count: int, generator: torch.Generator, labels: Tensor | None = None
) -> Resampled:
    """`count` latents of the model at the settings' inverse temperature. labels: `(count,)` of a conditional model.

    Raises `ValueError` when the model is not frozen, and as `resample`.
    """
    tilt = latent_tilt(model, settings.inverse_temperature, labels)
    return resample(tilt, model.sample_prior, count, settings.draws_per_sample, generator, labels)
