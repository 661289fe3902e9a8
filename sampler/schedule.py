"""Step sizes that change with the number of the step.

A schedule is a function of the number of transitions done, `() int64` on the chains' device, to a factor of the step
size, `() float64`:

    constant    1
    stepwise    factor^⌊n / every⌋: the reference's CIFAR-10 chains have a tenth after each 200 steps
    polynomial  (1 + n / offset)^{-power}: Welling and Teh, 2011, https://www.stats.ox.ac.uk/~teh/research/compstats/WelTeh2011a.pdf

Kernels keep the gradient at the position, which knows of no step size: a new one costs no evaluation. All of it is
arithmetic of tensors on the device, so that the host never waits and a step can be recorded and replayed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gebm.sampler.algorithm import Algorithm, StepSize, TransitionInfo
from gebm.sampler.settings import ScheduleSettings

Schedule = Callable[[Tensor], Tensor]


class NumberedState(NamedTuple):
    """chains: state of a kernel that changes with time. done: transitions so far, `()` int64."""

    chains: Any
    done: Tensor

    @property
    def position(self) -> Tensor:
        """`(chains, p)`, the latents."""
        position: Tensor = self.chains.position
        return position


def stepwise(factor: float, every: int) -> Schedule:
    """`factor` times what it was after each `every` steps."""
    return lambda done: torch.pow(factor, (done // every).double())


def polynomial(offset: float, power: float) -> Schedule:
    """`(1 + n / offset)^{-power}`."""
    return lambda done: (1 + done / offset).double().pow(-power)


def schedule_of(settings: ScheduleSettings) -> Schedule | None:
    """The schedule that the settings describe; None for a constant step size."""
    if settings.shape == "stepwise":
        return stepwise(settings.factor, settings.every)
    if settings.shape == "polynomial":
        return polynomial(settings.offset, settings.power)
    return None


def scheduled(kernel: Callable[[StepSize], Algorithm], step_size: StepSize, schedule: Schedule) -> Algorithm:
    """`kernel` with `step_size` times what the schedule says of the step.

    kernel: step size to transition kernel, without work of its own: it is called at every step.
    """

    def init(position: Tensor, generator: torch.Generator) -> NumberedState:
        done = torch.zeros((), dtype=torch.int64, device=position.device)
        return NumberedState(kernel(step_size).init(position, generator), done)

    def step(state: NumberedState, generator: torch.Generator) -> tuple[NumberedState, TransitionInfo]:
        chains, info = kernel(step_size * schedule(state.done)).step(state.chains, generator)
        return NumberedState(chains, state.done + 1), info

    return Algorithm(init, step)
