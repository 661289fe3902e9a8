"""Metropolis-adjusted Langevin algorithm.

Propose `z' ~ q(·|z) = N(z - h ∇U(z), 2h I)` and accept with probability

    min(1, exp(U(z) - U(z')) q(z|z') / q(z'|z)),

which leaves `exp(-U)` exactly invariant. The reference implementation's `gamma` is `h`.
Roberts and Tweedie, 1996, https://doi.org/10.2307/3318418
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
from gebm.sampler.metropolis import accept, all_finite, choose
from gebm.sampler.random_numbers import normal


class MALAState(NamedTuple):
    """position `(chains, p)`; potential `(chains,)` and gradient `(chains, p)`: `U` and `∇U` there."""

    position: Tensor
    potential: Tensor
    gradient: Tensor


def log_proposal_density(target: Tensor, source: MALAState, step_size: StepSize) -> Tensor:
    """`log q(target | source)` `(chains,)` up to the constant: `-‖z' - z + h ∇U(z)‖² / (4h)`."""
    h = as_step_size(step_size)
    difference = target - source.position + column(h) * source.gradient
    return difference.square().sum(1) / (-4 * h)


def log_acceptance_ratio(proposed: MALAState, current: MALAState, step_size: StepSize) -> Tensor:
    """`U(z) - U(z') + log q(z|z') - log q(z'|z)`, `(chains,)`."""
    forward = log_proposal_density(proposed.position, current, step_size)
    backward = log_proposal_density(current.position, proposed, step_size)
    return current.potential - proposed.potential + backward - forward


def mala(potential: Potential, step_size: StepSize) -> Algorithm:
    """The Metropolis-adjusted Langevin kernel with step size `h = step_size`; one gradient evaluation a step.

    Raises `ValueError` when `step_size` is not positive.
    """
    h = as_step_size(step_size)
    noise_scale = column((2 * h).sqrt())

    def init(position: Tensor, generator: torch.Generator) -> MALAState:
        return MALAState(position, *value_and_gradient(potential, position))

    def step(state: MALAState, generator: torch.Generator) -> tuple[MALAState, TransitionInfo]:
        noise = normal(state.position, generator)
        position = state.position - column(h) * state.gradient + noise_scale * noise
        proposed = MALAState(position, *value_and_gradient(potential, position))
        log_ratio = log_acceptance_ratio(proposed, state, h)
        info = accept(log_ratio, all_finite(proposed.potential, proposed.gradient), generator)
        return choose(info.accepted, proposed, state), info

    return Algorithm(init, step)
