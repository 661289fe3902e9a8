"""Discriminator-driven latent sampling, as it is published: Langevin dynamics that temper the prior too.

With `U = -log eta(z) + E(B(z))`, where a GAN has `E = -logit` of its discriminator,

    z' = z - s ∇U(z) + τ xi,    xi ~ N(0, I),    τ² = 2 s / b:

drift `s` and noise `τ` are chosen apart, and to first order the stationary law is

    exp(-b U) ∝ eta(z)^b exp(-b E(B(z))).

At `b = 1` this is `ula` with `h = s`, number for number. At `b > 1` it is not `ula` at inverse temperature `b`, whose
law `eta(z) exp(-b E(B(z)))` leaves the prior as wide as the base was trained on: here a normal prior has variance
`1 / b`. With the prior left out of `b` the two would coincide at every temperature: there is one Langevin kernel.
Che et al., 2020, https://arxiv.org/abs/2003.06060
"""

from __future__ import annotations

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
from gebm.sampler.ula import ULAState


def ddls(potential: Potential, step_size: StepSize, inverse_temperature: float) -> Algorithm:
    """The kernel with drift `s = step_size` and noise `sqrt(2 s / b)`; one gradient evaluation a step.

    potential: `U` at inverse temperature 1. inverse_temperature: `b`, of prior and energy together. On `U` of
    `N(0, σ²)` the stationary variance is `σ² / (b (1 - s / (2 σ²)))`.
    A proposal at which `U` or `∇U` is not finite is not taken.
    Raises `ValueError` when `step_size` or `inverse_temperature` is not positive.
    """
    check_positive(inverse_temperature=inverse_temperature)
    s = column(as_step_size(step_size))
    noise_scale = (2 * s / inverse_temperature).sqrt()

    def init(position: Tensor, generator: torch.Generator) -> ULAState:
        return ULAState(position, *value_and_gradient(potential, position))

    def step(state: ULAState, generator: torch.Generator) -> tuple[ULAState, TransitionInfo]:
        noise = normal(state.position, generator)
        position = state.position - s * state.gradient + noise_scale * noise
        proposed = ULAState(position, *value_and_gradient(potential, position))
        finite = all_finite(proposed.potential, proposed.gradient)
        return choose(finite, proposed, state), always(finite, position.dtype)

    return Algorithm(init, step)
