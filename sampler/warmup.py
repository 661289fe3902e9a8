"""Where chains begin, and what they find out in warm-up about how to go on.

Warm-up moves the chains `settings.warmup` transitions whose latents are no samples. Meanwhile the step size is tuned
(`target_acceptance`) and the scales of the coordinates are measured (`precondition`): in its first half the step size
is that of latents as they are, and the second quarter's latents tell the scales, with which the second half begins
anew. After it nothing moves any more, so that an exact kernel is exact. All of it is a function of the chains' own
batch: a shard's bytes depend on its work item only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gebm.sampler.algorithm import Algorithm
from gebm.sampler.dual_averaging import DualAveraging, begin, reasonable_step_size, tuned_step
from gebm.sampler.preconditioning import Spread, scale_of, spread_of
from gebm.sampler.samplers import Kernel, build_sampler, kernel_of
from gebm.sampler.settings import SamplerSettings
from gebm.sampler.snapshot import throw_away, unpacked
from gebm.trainer.model import GEBM


class Start(NamedTuple):
    """A kernel and the state that it goes on from.

    step_size: `()`, or `(rungs,)` of a ladder, when warm-up chose it. scale: `(p,)` when warm-up measured it.
    """

    algorithm: Algorithm
    state: Any
    step_size: Tensor | None = None
    scale: Tensor | None = None


class WarmUp(NamedTuple):
    """Where warm-up stands: all that it needs to go on.

    walk: 0, or 1 after the scales were measured. done: transitions of this walk. state: of the kernel. step_size: what
    has come of it by now. averaging: how it is tuned, None when it is not, or not yet. spread: of the latents that the
    walk came by lately. scale: `(p,)`, None until it is measured.
    """

    walk: int
    done: int
    state: Any
    step_size: Tensor
    averaging: DualAveraging | None
    spread: Spread
    scale: Tensor | None


def start_chains(
    model: GEBM,
    settings: SamplerSettings,
    latents: Tensor,
    generator: torch.Generator,
    pilot_seed: int = 0,
    labels: Tensor | None = None,
    *,
    snapshot: list[Any] | None = None,
    after_step: Callable[[WarmUp], None] | None = None,
) -> Start:
    """Chains that begin at `latents` `(chains, p)`, after their warm-up if they have one.

    labels: `(chains,)` of a conditional model. after_step: is told where warm-up stands after each transition.
    snapshot: of such a `WarmUp`, `packed`, to go on from. Raises as `build_sampler`, and `OtherChains` for a
    snapshot of others.
    """
    if not settings.warmup:
        algorithm = build_sampler(model, settings, pilot_seed, labels)
        return Start(algorithm, algorithm.init(latents, generator))

    def kernel_with(scale: Tensor | None) -> Kernel:
        return kernel_of(model, settings, pilot_seed, labels, scale)

    half = settings.warmup // 2
    lengths = [half, settings.warmup - half] if settings.precondition else [settings.warmup]
    kernel = kernel_with(None)
    if snapshot is None:
        rungs = () if settings.tempering is None else (settings.tempering.rungs,)
        step_size = torch.full(rungs, settings.step_size, dtype=torch.float64, device=latents.device)
        state = kernel(step_size).init(latents, generator)
        at = WarmUp(0, 0, state, step_size, None, spread_of(latents), None)
    else:
        at = _taken_up(snapshot, kernel_with, settings, latents)
        kernel = kernel_with(at.scale)
    at = _walk(kernel, at, lengths[at.walk], settings, generator, after_step)
    if at.walk + 1 < len(lengths):
        scale = scale_of(at.spread).to(latents)
        kernel = kernel_with(scale)
        state = kernel(at.step_size).init(at.state.position, generator)
        at = at._replace(walk=1, done=0, state=state, averaging=None, scale=scale)
        at = _walk(kernel, at, lengths[1], settings, generator, after_step)
    tuned = None if settings.target_acceptance is None else at.step_size
    algorithm = build_sampler(model, settings, pilot_seed, labels, step_size=tuned, scale=at.scale)
    # A schedule counts from the end of warm-up.
    state = at.state if settings.schedule.shape == "constant" else algorithm.init(at.state.position, generator)
    return Start(algorithm, state, tuned, at.scale)


def start_again(
    model: GEBM,
    settings: SamplerSettings,
    latents: Tensor,
    pilot_seed: int,
    labels: Tensor | None,
    findings: list[Any],
    state: Any,
) -> Start:
    """Chains that went through their warm-up before.

    latents: of their shape and device. findings: their step size and scale, state: that of the kernel, each `packed`.
    Raises `OtherChains` for those of others.
    """
    step_size, scale = (None if value is None else value.to(latents.device, copy=True) for value in findings)
    algorithm = build_sampler(model, settings, pilot_seed, labels, step_size=step_size, scale=scale)
    like = algorithm.init(latents, throw_away(latents.device))
    return Start(algorithm, unpacked(state, like), step_size, scale)


def _walk(
    kernel: Kernel,
    at: WarmUp,
    steps: int,
    settings: SamplerSettings,
    generator: torch.Generator,
    after_step: Callable[[WarmUp], None] | None,
) -> WarmUp:
    """Go on until `steps` transitions of a walk are done; the spread is that of their second half."""
    target = settings.target_acceptance
    if target is not None and at.averaging is None:
        at = at._replace(averaging=begin(reasonable_step_size(kernel, at.state, at.step_size, generator)))
    untuned = kernel(at.step_size)
    while at.done < steps:
        averaging, step_size = at.averaging, at.step_size
        if target is not None and averaging is not None:
            state, averaging = tuned_step(kernel, at.state, averaging, target, generator)
            step_size = averaging.log_average.exp()
        else:
            state, _ = untuned.step(at.state, generator)
        spread = spread_of(state.position, at.spread if at.done > steps // 2 else None)
        at = WarmUp(at.walk, at.done + 1, state, step_size, averaging, spread, at.scale)
        if after_step is not None:
            after_step(at)
    return at


def _taken_up(
    snapshot: list[Any], kernel_with: Callable[[Tensor | None], Kernel], settings: SamplerSettings, latents: Tensor
) -> WarmUp:
    """The `WarmUp` that a snapshot is of. Raises `OtherChains` when it is of others."""
    walk, done, state, step_size, averaging, spread, scale = snapshot
    step_size = step_size.to(latents.device, copy=True)
    scale = None if scale is None else scale.to(latents.device, copy=True)
    like = kernel_with(scale)(step_size).init(latents, throw_away(latents.device))
    return WarmUp(
        walk,
        done,
        unpacked(state, like),
        step_size,
        None if settings.target_acceptance is None else unpacked(averaging, begin(step_size)),
        unpacked(spread, spread_of(latents)),
        scale,
    )
