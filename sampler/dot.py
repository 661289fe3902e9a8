"""Discriminator optimal transport: gradient descent in latent space, not a sampler of the model.

From `z0 ~ eta`, descend

    sqrt(‖z - z0‖² + δ²) + E(B(z)) / k_eff,    k_eff = max ‖∇_z E(B(z))‖ over a pilot batch,

where the square root is the smoothed norm. No noise, no prior, no inverse temperature. With a normal prior
the gradient is projected onto the sphere through `z`, `g ← g - (g·z) z / ‖z‖²`, so that latents keep the norm
that the base was trained on. Tanaka, 2019, https://arxiv.org/abs/1910.06832
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from gebm.sampler.algorithm import (
    Algorithm,
    Potential,
    StepSize,
    TransitionInfo,
    as_step_size,
    check_positive,
    column,
    value_and_gradient,
)
from gebm.sampler.metropolis import all_finite, always, choose

Projection = Literal["sphere", "reference", "none"]


class DOTState(NamedTuple):
    """position `z` and anchor `z0`, both `(chains, p)`."""

    position: Tensor
    anchor: Tensor


def effective_lipschitz(energy: Potential, pilot: Tensor) -> float:
    """`k_eff`: the largest `‖∇_z E(B(z))‖` over the pilot latents `(n, p)`.

    Raises `ValueError` when it is zero or not finite: the descent would have no direction.
    """
    _, gradient = value_and_gradient(energy, pilot)
    largest = gradient.norm(dim=1).max().item()
    check_positive(effective_lipschitz=largest)
    return largest


def project(gradient: Tensor, position: Tensor, projection: Projection) -> Tensor:
    """The part of `gradient` `(chains, p)` that is followed.

    `sphere`: orthogonal to `position`. `reference`: `g - (g·z) z / sqrt(p)`, as public implementations have
    it, which takes away about `sqrt(p)` times too much. `none`: all of it.
    """
    if projection == "none":
        return gradient
    along = (gradient * position).sum(1, keepdim=True)
    if projection == "reference":
        return gradient - along * position / math.sqrt(position.shape[1])
    return gradient - along * position / position.square().sum(1, keepdim=True).clamp_min(1e-12)


def dot(
    energy: Potential,
    step_size: StepSize,
    lipschitz: float,
    smoothing: float = 1e-3,
    projection: Projection = "sphere",
) -> Algorithm:
    """Gradient descent with `step_size` on the transport objective; one gradient evaluation a step.

    energy: `E(B(z))`, `(chains, p) -> (chains,)`. lipschitz: `k_eff`, see `effective_lipschitz`. smoothing:
    `δ`. A step whose energy or gradient is not finite is not taken.
    Raises `ValueError` when `step_size`, `lipschitz` or `smoothing` is not positive.
    """
    check_positive(lipschitz=lipschitz, smoothing=smoothing)
    h = column(as_step_size(step_size))

    def init(position: Tensor, generator: torch.Generator) -> DOTState:
        return DOTState(position, position)

    def step(state: DOTState, generator: torch.Generator) -> tuple[DOTState, TransitionInfo]:
        value, gradient = value_and_gradient(energy, state.position)
        moved = state.position - state.anchor
        distance = (moved.square().sum(1, keepdim=True) + smoothing**2).sqrt()
        direction = project(moved / distance + gradient / lipschitz, state.position, projection)
        proposed = DOTState(state.position - h * direction, state.anchor)
        finite = all_finite(value, gradient)
        return choose(finite, proposed, state), always(finite, gradient.dtype)

    return Algorithm(init, step)
