"""Hamiltonian Monte Carlo.

With `H(z, v) = U(z) + ½‖v‖²`: draw `v ~ N(0, I)`, then `L` times (velocity Verlet, kick–drift–kick)

    v ← v - (eps/2) ∇U(z);    z ← z + eps v;    v ← v - (eps/2) ∇U(z),

and accept with probability `min(1, exp(H(z, v) - H(z', v')))`, which leaves `exp(-U)` exactly invariant.
The reference implementation has `eps = 2 sqrt(gamma)` and `L = 2`. Neal, 2011,
https://arxiv.org/abs/1206.1901
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
from gebm.sampler.metropolis import accept, all_finite, choose
from gebm.sampler.random_numbers import normal


class HMCState(NamedTuple):
    """position `(chains, p)`; potential `(chains,)` and gradient `(chains, p)`: `U` and `∇U` there."""

    position: Tensor
    potential: Tensor
    gradient: Tensor


def hmc(potential: Potential, step_size: StepSize, leapfrog_steps: int) -> Algorithm:
    """The Hamiltonian kernel with leapfrog steps of size `eps = step_size`.

    One gradient evaluation a leapfrog step: neighbouring half kicks share it, and the first one has it from
    the state. Raises `ValueError` when `step_size` or `leapfrog_steps` is not positive.
    """
    check_positive(leapfrog_steps=leapfrog_steps)
    eps = column(as_step_size(step_size))

    def init(position: Tensor, generator: torch.Generator) -> HMCState:
        return HMCState(position, *value_and_gradient(potential, position))

    def step(state: HMCState, generator: torch.Generator) -> tuple[HMCState, TransitionInfo]:
        velocity = normal(state.position, generator)
        initial = state.potential + velocity.square().sum(1) / 2
        proposed = state
        for _ in range(leapfrog_steps):
            velocity = velocity - eps / 2 * proposed.gradient
            position = proposed.position + eps * velocity
            proposed = HMCState(position, *value_and_gradient(potential, position))
            velocity = velocity - eps / 2 * proposed.gradient
        final = proposed.potential + velocity.square().sum(1) / 2
        finite = all_finite(proposed.potential, proposed.gradient, proposed.position)
        info = accept(initial - final, finite, generator)
        return choose(info.accepted, proposed, state), info

    return Algorithm(init, step)
