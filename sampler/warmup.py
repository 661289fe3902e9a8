"""Where chains begin, and what they find out in warm-up about how to go on.

Warm-up moves the chains `settings.warmup` transitions whose latents are no samples. Meanwhile the step size is tuned
(`target_acceptance`) and the scales of the coordinates are measured (`precondition`): in its first half the step size
is that of latents as they are, and the second quarter's latents tell the scales, with which the second half begins
anew. After it nothing moves any more, so that an exact kernel is exact. All of it is a function of the chains' own
batch: a shard's bytes depend on its work item only.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gebm.sampler.algorithm import Algorithm
from gebm.sampler.dual_averaging import tuned_steps
from gebm.sampler.preconditioning import Spread, scale_of, spread_of
from gebm.sampler.samplers import Kernel, build_sampler, kernel_of
from gebm.sampler.settings import SamplerSettings
from gebm.trainer.model import GEBM


class Start(NamedTuple):
    """A kernel and the state that it goes on from.

    step_size: `()`, or `(rungs,)` of a ladder, when warm-up chose it. scale: `(p,)` when warm-up measured it.
    """

    algorithm: Algorithm
    state: Any
    step_size: Tensor | None = None
    scale: Tensor | None = None


def start_chains(
    model: GEBM,
    settings: SamplerSettings,
    latents: Tensor,
    generator: torch.Generator,
    pilot_seed: int = 0,
    labels: Tensor | None = None,
) -> Start:
    """Chains that begin at `latents` `(chains, p)`, after their warm-up if they have one.

    labels: `(chains,)` of a conditional model. Raises as `build_sampler`.
    """
    if not settings.warmup:
        algorithm = build_sampler(model, settings, pilot_seed, labels)
        return Start(algorithm, algorithm.init(latents, generator))
    rungs = () if settings.tempering is None else (settings.tempering.rungs,)
    step_size = torch.full(rungs, settings.step_size, dtype=torch.float64, device=latents.device)
    scale, steps = None, settings.warmup
    kernel = kernel_of(model, settings, pilot_seed, labels)
    at = _Walk(kernel(step_size).init(latents, generator), step_size, spread_of(latents))
    if settings.precondition:
        at = _walk(kernel, at, steps // 2, settings, generator)
        scale = scale_of(at.spread).to(latents)
        kernel = kernel_of(model, settings, pilot_seed, labels, scale)
        at = at._replace(state=kernel(at.step_size).init(at.state.position, generator))
        steps -= steps // 2
    at = _walk(kernel, at, steps, settings, generator)
    tuned = None if settings.target_acceptance is None else at.step_size
    algorithm = build_sampler(model, settings, pilot_seed, labels, step_size=tuned, scale=scale)
    # A schedule counts from the end of warm-up.
    state = at.state if settings.schedule.shape == "constant" else algorithm.init(at.state.position, generator)
    return Start(algorithm, state, tuned, scale)


class _Walk(NamedTuple):
    """A kernel's state, its step size, and the spread of the latents that it has come by lately."""

    state: Any
    step_size: Tensor
    spread: Spread


def _walk(kernel: Kernel, begin: _Walk, steps: int, settings: SamplerSettings, generator: torch.Generator) -> _Walk:
    """Do `steps` transitions from `begin`; the spread is that of their second half."""
    path = _path(kernel, begin, steps, settings, generator)
    at, first = begin, steps // 2
    for done, (state, step_size) in enumerate(path):
        at = _Walk(state, step_size, spread_of(state.position, at.spread if done > first else None))
    return at


def _path(
    kernel: Kernel, begin: _Walk, steps: int, settings: SamplerSettings, generator: torch.Generator
) -> Iterator[tuple[Any, Tensor]]:
    """State and step size after each transition; the step size is tuned when the settings say so."""
    target, step_size = settings.target_acceptance, begin.step_size
    if target is not None:
        yield from tuned_steps(kernel, begin.state, step_size, steps, target, generator)
        return
    algorithm, state = kernel(step_size), begin.state
    for _ in range(steps):
        state, _ = algorithm.step(state, generator)
        yield state, step_size
