"""Independent Metropolis–Hastings with the prior as proposal.

The target is `nu(z) ∝ eta(z) exp(-W(z))` with the tilt `W(z) = beta E(B(z))`. Propose `z' ~ eta`, whatever
`z`, and accept with probability

    min(1, exp(W(z) - W(z'))):

the prior cancels, so its density is never needed. Leaves `nu` exactly invariant.
Turner et al., 2019 (MH-GAN), https://arxiv.org/abs/1811.11357
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from gebm.sampler.algorithm import Algorithm, Potential, TransitionInfo
from gebm.sampler.metropolis import accept, all_finite, choose


class IMHState(NamedTuple):
    """position `(chains, p)` and tilt `(chains,)`: `W` there."""

    position: Tensor
    tilt: Tensor


def imh(tilt: Potential, sample_prior: Callable[[int, torch.Generator], Tensor]) -> Algorithm:
    """The independence kernel; one evaluation of `W` a step, no gradient.

    tilt: `W`, `(chains, p) -> (chains,)`, minus the log-density of the target relative to the prior.
    sample_prior: `(chains, generator) -> (chains, p)`, draws of the prior `eta`.
    """

    @torch.no_grad()
    def init(position: Tensor, generator: torch.Generator) -> IMHState:
        return IMHState(position, tilt(position))

    @torch.no_grad()
    def step(state: IMHState, generator: torch.Generator) -> tuple[IMHState, TransitionInfo]:
        position = sample_prior(len(state.position), generator).to(state.position)
        proposed = IMHState(position, tilt(position))
        info = accept(state.tilt - proposed.tilt, all_finite(proposed.tilt), generator)
        return choose(info.accepted, proposed, state), info

    return Algorithm(init, step)
