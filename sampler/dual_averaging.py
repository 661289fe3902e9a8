"""Dual averaging: the step size at which proposals are accepted as often as asked.

Hoffman and Gelman, 2014, https://jmlr.org/papers/v15/hoffman14a.html, section 3.2. With `alpha_t` the mean acceptance
probability of the chains at step t and `delta` the target,

    H_t = (1 - 1/(t + t0)) H_{t-1} + (delta - alpha_t) / (t + t0)
    x_t = mu - sqrt(t) / gamma * H_t
    x̄_t = t^{-kappa} x_t + (1 - t^{-kappa}) x̄_{t-1},

`mu = log(10 h_1)`, `gamma = 0.05`, `t0 = 10`, `kappa = 0.75`. Step t + 1 is made with `exp(x_t)`; what is kept is
`exp(x̄)`. All chains of a batch share a step size, or all replicas of a rung when there is a ladder of temperatures.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gebm.sampler.algorithm import Algorithm, StepSize

GAMMA, T0, KAPPA = 0.05, 10.0, 0.75
MOST_DOUBLINGS = 60


class DualAveraging(NamedTuple):
    """Each `()`, or `(rungs,)`: `log_step` is `x`, `log_average` is `x̄`, `error` is `H`; `updates` is `t`."""

    log_step: Tensor
    log_average: Tensor
    error: Tensor
    centre: Tensor
    updates: int


def begin(step_size: Tensor) -> DualAveraging:
    """Before the first step, which is made with `step_size`, `()` or `(rungs,)`."""
    log_step = step_size.double().log()
    return DualAveraging(log_step, log_step, torch.zeros_like(log_step), (10 * step_size.double()).log(), 0)


def update(state: DualAveraging, acceptance: Tensor, target: float) -> DualAveraging:
    """After a step of mean acceptance probability `acceptance`, of the shape of the step size."""
    t = state.updates + 1
    weight = 1 / (t + T0)
    error = (1 - weight) * state.error + weight * (target - acceptance)
    log_step = state.centre - t**0.5 / GAMMA * error
    log_average = torch.lerp(state.log_average, log_step, t**-KAPPA)
    return DualAveraging(log_step, log_average, error, state.centre, t)


def acceptance_by_rung(acceptance: Tensor, like: Tensor) -> Tensor:
    """Mean of `(rows,)` probabilities, rung by rung, in the shape of `like`, `()` or `(rungs,)`; float64."""
    return acceptance.double().view(*like.shape, -1).mean(-1)


def reasonable_step_size(
    kernel: Callable[[StepSize], Algorithm], state: Any, step_size: Tensor, generator: torch.Generator
) -> Tensor:
    """`step_size`, doubled or halved until the mean acceptance of one step crosses one half (their algorithm 4).

    The chains stay where they are. Read by the host: only before the chains begin.
    """
    grows = crossed = None
    for _ in range(MOST_DOUBLINGS):
        _, info = kernel(step_size).step(state, generator)
        high = acceptance_by_rung(info.acceptance, step_size) > 0.5
        grows = high if grows is None else grows
        crossed = high != grows if crossed is None else crossed | (high != grows)
        if crossed.all():
            break
        step_size = torch.where(crossed, step_size, step_size * torch.where(grows, 2.0, 0.5))
    return step_size


def tuned_step(
    kernel: Callable[[StepSize], Algorithm],
    state: Any,
    averaging: DualAveraging,
    target: float,
    generator: torch.Generator,
) -> tuple[Any, DualAveraging]:
    """Move the chains one transition and tune their step size by it. kernel: without work of its own.

    The tuned step size is `exp(x̄)` of the last.
    """
    state, info = kernel(averaging.log_step.exp()).step(state, generator)
    return state, update(averaging, acceptance_by_rung(info.acceptance, averaging.log_step), target)
