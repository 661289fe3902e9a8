"""Unadjusted Langevin algorithm.

    z' = z - h ∇U(z) + sqrt(2h) xi,    xi ~ N(0, I)

The Euler–Maruyama discretisation of `dz = -∇U(z) dt + sqrt(2) dW`. There is no acceptance step, so the
stationary law differs from `exp(-U)` by O(h): on `N(0, s²)` its variance is `s² / (1 - h / (2 s²))`. The
reference implementation's `gamma` is `2h`. Roberts and Tweedie, 1996, https://doi.org/10.2307/3318418
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from gebm.sampler.algorithm import (
    Algorithm,
    Potential,
    StepSize,
    TransitionInfo,
    as_step_size,
    column,
    value_and_gradient,
)
from gebm.sampler.metropolis import all_finite, always, choose
from gebm.sampler.random_numbers import normal


class ULAState(NamedTuple):
    """position `(chains, p)`; potential `(chains,)` and gradient `(chains, p)`: `U` and `∇U` there."""

    position: Tensor
    potential: Tensor
    gradient: Tensor


def ula(potential: Potential, step_size: StepSize) -> Algorithm:
    """The unadjusted Langevin kernel with step size `h = step_size`; one gradient evaluation a step.

    A proposal at which `U` or `∇U` is not finite is not taken: a chain there could never come back.
    Raises `ValueError` when `step_size` is not positive.
    """
    h = column(as_step_size(step_size))
    noise_scale = (2 * h).sqrt()

    def init(position: Tensor, generator: torch.Generator) -> ULAState:
        return ULAState(position, *value_and_gradient(potential, position))

    def step(state: ULAState, generator: torch.Generator) -> tuple[ULAState, TransitionInfo]:
        noise = normal(state.position, generator)
        position = state.position - h * state.gradient + noise_scale * noise
        proposed = ULAState(position, *value_and_gradient(potential, position))
        finite = all_finite(proposed.potential, proposed.gradient)
        return choose(finite, proposed, state), always(finite, position.dtype)

    return Algorithm(init, step)
