"""Annealing: the inverse temperature as a function of the number of the step.

Chains begin hot, at `start`, where they cross from mode to mode, and are cooled over `steps` transitions to the
inverse temperature of the target:

    linear     beta_n = start + (beta - start) n / steps
    geometric  beta_n = start (beta / start)^{n / steps}

and `beta` from then on, where an exact kernel leaves the target as it is. While they cool, chains follow a law that
moves: annealing brings them near the target, and how near depends on its length (Kirkpatrick, Gelatt, Vecchi, 1983;
Neal, 2001, https://arxiv.org/abs/physics/9803008).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gebm.sampler.algorithm import Algorithm, Potential, TransitionInfo
from gebm.sampler.schedule import NumberedState
from gebm.sampler.settings import AnnealSettings
from gebm.sampler.temperature import at_temperature, tempered

Temperature = Callable[[Tensor], Tensor]


def temperature_of(settings: AnnealSettings, inverse_temperature: float) -> Temperature:
    """Transitions done, `()` int64, to `beta_n`, `()` float64; `inverse_temperature` is where it ends."""
    start, steps = settings.start, settings.steps

    def linear(done: Tensor) -> Tensor:
        share = (done.double() / steps).clamp(max=1)
        return torch.lerp(torch.full_like(share, start), torch.full_like(share, inverse_temperature), share)

    def geometric(done: Tensor) -> Tensor:
        share = (done.double() / steps).clamp(max=1)
        return start * torch.pow(inverse_temperature / start, share)

    return linear if settings.shape == "linear" else geometric


def annealed(
    kernel: Callable[[Potential], Algorithm], energy: Potential, prior: Potential, temperature: Temperature
) -> Algorithm:
    """`kernel` on `V + beta_n E` at step n; it makes as many evaluations of the energy as without annealing.

    energy, prior: `E` and `V`, `(chains, p) -> (chains,)`. temperature: `n -> beta_n > 0`.
    """

    def at(inverse_temperature: Tensor) -> Algorithm:
        return kernel(tempered(energy, prior, inverse_temperature))

    def init(position: Tensor, generator: torch.Generator) -> NumberedState:
        done = torch.zeros((), dtype=torch.int64, device=position.device)
        return NumberedState(at(temperature(done)).init(position, generator), done)

    def step(state: NumberedState, generator: torch.Generator) -> tuple[NumberedState, TransitionInfo]:
        now, before = temperature(state.done), temperature((state.done - 1).clamp(min=0))
        chains, info = at(now).step(at_temperature(state.chains, prior, now / before), generator)
        return NumberedState(chains, state.done + 1), info

    return Algorithm(init, step)
