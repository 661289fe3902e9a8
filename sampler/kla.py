"""Kinetic Langevin algorithm: under-damped Langevin dynamics, without acceptance step.

With step `d` and friction `k` (algorithm 3 of the GEBM paper; the splitting of Sachs, Leimkuhler, Danos,
2017, https://doi.org/10.3390/e19120647):

    z½ = z + (d/2) v
    v½ = v - (d/2) ∇U(z½)
    ṽ  = e^{-kd} v½ + sqrt(1 - e^{-2kd}) xi,    xi ~ N(0, I)
    v' = ṽ - (d/2) ∇U(z½)
    z' = z½ + (d/2) v'

started with `v ~ N(0, I)`, which is carried from step to step. The reported position is `z'`, never `z½`: on
`N(0, s²)`, `d < 2s`, `z'` has exactly the variance `s²`, while `v` has `1 / (1 - d² / (4 s²))` and `z½` has
`s² / (1 - d² / (4 s²))`. In general the bias is O(d²). The reference implementation has `d = 2 sqrt(gamma)`,
`k = kappa`.
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
    check_positive,
    column,
    value_and_gradient,
)
from gebm.sampler.metropolis import all_finite, always, choose
from gebm.sampler.random_numbers import normal


class KLAState(NamedTuple):
    """position `z` and velocity `v`, both `(chains, p)`."""

    position: Tensor
    velocity: Tensor


def kla(potential: Potential, step_size: StepSize, friction: float) -> Algorithm:
    """The kinetic Langevin kernel with `d = step_size` and `k = friction`; one gradient evaluation a step.

    A step that meets a potential or gradient that is not finite leaves the chain where it is, with a fresh
    velocity (with the old one it would run into the same point again).
    Raises `ValueError` when `step_size` or `friction` is not positive.
    """
    check_positive(friction=friction)
    d = column(as_step_size(step_size))
    half = d / 2
    decay = torch.exp(-friction * d)
    noise_scale = torch.expm1(-2 * friction * d).neg().sqrt()

    def init(position: Tensor, generator: torch.Generator) -> KLAState:
        return KLAState(position, normal(position, generator))

    def step(state: KLAState, generator: torch.Generator) -> tuple[KLAState, TransitionInfo]:
        noise = normal(state.position, generator)
        middle = state.position + half * state.velocity
        value, gradient = value_and_gradient(potential, middle)
        velocity = decay * (state.velocity - half * gradient) + noise_scale * noise - half * gradient
        proposed = KLAState(middle + half * velocity, velocity)
        finite = all_finite(value, gradient, proposed.position)
        stay = KLAState(state.position, noise)
        return choose(finite, proposed, stay), always(finite, noise.dtype)

    return Algorithm(init, step)
