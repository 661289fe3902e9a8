"""Per-coordinate preconditioning: chains in rescaled coordinates.

With a positive scale `s` `(p,)`, the kernel moves `y = z / s` under `U(s y)`: for ULA

    z' = z - h s² ∇U(z) + sqrt(2h) s xi,

and for any kernel the mass matrix `diag(s)^{-2}`. An exact kernel stays exact. The step size is one of the rescaled
coordinates: where `s` are the standard deviations of the target, one of unit variances.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from gebm.sampler.algorithm import Algorithm, TransitionInfo

PRIOR_WEIGHT = 5


class RescaledState(NamedTuple):
    """position `(chains, p)`: the latents `z = s y`. chains: the kernel's state, of `y`."""

    position: Tensor
    chains: Any


def rescaled(algorithm: Algorithm, scale: Tensor) -> Algorithm:
    """`algorithm`, made on `y -> U(scale * y)`, as one of latents `z`. scale: `(p,)`, positive."""

    def init(position: Tensor, generator: torch.Generator) -> RescaledState:
        return RescaledState(position, algorithm.init(position / scale, generator))

    def step(state: RescaledState, generator: torch.Generator) -> tuple[RescaledState, TransitionInfo]:
        chains, info = algorithm.step(state.chains, generator)
        return RescaledState(scale * chains.position, chains), info

    return Algorithm(init, step)


class Spread(NamedTuple):
    """Moments of latents, pooled over chains and steps: their number, sum and sum of squares `(p,)`, float64."""

    number: int
    total: Tensor
    squares: Tensor


def spread_of(position: Tensor, before: Spread | None = None) -> Spread:
    """The moments of `position` `(chains, p)`, added to those of `before`."""
    latents = position.double()
    number, total, squares = len(latents), latents.sum(0), latents.square().sum(0)
    if before is None:
        return Spread(number, total, squares)
    return Spread(before.number + number, before.total + total, before.squares + squares)


def scale_of(spread: Spread) -> Tensor:
    """`(p,)` float64: standard deviations, drawn towards the prior's 1 as by 5 more latents of variance 1.

    So the few latents of a small batch give no scale that is far off.
    """
    mean = spread.total / spread.number
    variance = (spread.squares / spread.number - mean.square()).clamp_min(0)
    return ((spread.number * variance + PRIOR_WEIGHT) / (spread.number + PRIOR_WEIGHT)).sqrt()
