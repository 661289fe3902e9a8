"""Random-walk Metropolis.

Propose `z' = z + sqrt(2h) xi`, `xi ~ N(0, I)`, and accept with probability `min(1, exp(U(z) - U(z')))`, which
leaves `exp(-U)` exactly invariant. The scale is that of ULA and MALA without their drift; the reference
implementation's variance `gamma` is `2h`. Metropolis et al., 1953, https://doi.org/10.1063/1.1699114
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
)
from gebm.sampler.metropolis import accept, all_finite, choose
from gebm.sampler.random_numbers import normal


class RWMHState(NamedTuple):
    """position `(chains, p)` and potential `(chains,)`: `U` there."""

    position: Tensor
    potential: Tensor


def rwmh(potential: Potential, step_size: StepSize) -> Algorithm:
    """The random-walk Metropolis kernel with step size `h = step_size`; one evaluation of `U` a step.

    Raises `ValueError` when `step_size` is not positive.
    """
    scale = column((2 * as_step_size(step_size)).sqrt())

    @torch.no_grad()
    def init(position: Tensor, generator: torch.Generator) -> RWMHState:
        return RWMHState(position, potential(position))

    @torch.no_grad()
    def step(state: RWMHState, generator: torch.Generator) -> tuple[RWMHState, TransitionInfo]:
        position = state.position + scale * normal(state.position, generator)
        proposed = RWMHState(position, potential(position))
        info = accept(state.potential - proposed.potential, all_finite(proposed.potential), generator)
        return choose(info.accepted, proposed, state), info

    return Algorithm(init, step)
