"""Running many chains side by side, and drawing samples from a model."""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gebm.cluster.randomness import derive_seed
from gebm.sampler.algorithm import Algorithm
from gebm.sampler.findings import Findings, findings_of_chains, findings_of_draws
from gebm.sampler.labels import chain_batches, check_labels, draw_labels
from gebm.sampler.potential import check_frozen
from gebm.sampler.precision import observer, potential_error
from gebm.sampler.settings import SamplerSettings
from gebm.sampler.sir import resample_model
from gebm.sampler.warmup import start_chains
from gebm.trainer.model import GEBM, in_normal_coordinates
from gebm.trainer.model.prior import from_normal, to_normal


class ChainResult(NamedTuple):
    """Where the chains are and how they came there.

    state: of the kernel; go on from it with `run_chain`. position: `(chains, p)`, its latents.
    recorded_steps: transitions done at each record: 0, every multiple of `record_every`, and the last.
    energies: `(records, chains)`, the observed quantity at these steps, on the CPU; `(records, k, chains)` when
    there are `k` of them.
    acceptance: mean acceptance probability. nonfinite: proposals that were not finite, over all chains. Where there
    are replicas at other temperatures, both tell of the chains alone.
    kept: the latents `(chains, p)` after each number of transitions that was asked for, in order.
    """

    state: Any
    position: Tensor
    recorded_steps: tuple[int, ...]
    energies: Tensor
    acceptance: float
    nonfinite: int
    kept: tuple[Tensor, ...] = ()


def run_chain(
    algorithm: Algorithm,
    state: Any,
    steps: int,
    generator: torch.Generator,
    observe: Callable[[Tensor], Tensor],
    record_every: int = 10,
    keep: Container[int] = (),
) -> ChainResult:
    """Do `steps` transitions from `state` and record `observe(position)` on the way.

    observe: latents `(chains, p)` to `(chains,)` or `(k, chains)`, usually the energy `E(B(z))`; called without
    gradients, at the start, every `record_every` transitions and at the end. keep: the latents after so many
    transitions are kept.
    """
    recorded_steps: list[int] = []
    kept: list[Tensor] = []
    energies: list[Tensor] = []
    acceptance = torch.zeros((), dtype=torch.float64, device=state.position.device)
    nonfinite = torch.zeros((), dtype=torch.int64, device=state.position.device)
    for done in range(steps + 1):
        if done % record_every == 0 or done == steps:
            with torch.no_grad():
                energies.append(observe(state.position).detach())
            recorded_steps.append(done)
        if done in keep:
            kept.append(state.position)
        if done < steps:
            state, info = algorithm.step(state, generator)
            # Kept on the device: reading them would make the host wait at every step.
            chains = len(state.position)
            acceptance += info.acceptance[:chains].mean(dtype=torch.float64)
            nonfinite += info.nonfinite[:chains].sum()
    return ChainResult(
        state=state,
        position=state.position,
        recorded_steps=tuple(recorded_steps),
        energies=torch.stack(energies).cpu(),
        acceptance=acceptance.item() / steps if steps else 1.0,
        nonfinite=int(nonfinite.item()),
        kept=tuple(kept),
    )


class Samples(NamedTuple):
    """What a batch of chains made, and how they came there.

    images: `(n, channels, height, width)` in [-1, 1], or vectors `(n, d)`. latents: `(n, p)`. labels: `(n,)` of a
    conditional model, else None. `n` is `chains * samples_per_chain`: the first samples of all chains, then the second.
    energies: `(records, chains)`. potential_error: `max |ΔU|` in nats, at the recorded steps, between the precision of
    the gradients and float32; None where they are the same. found: what the sampler found out by itself, by name (see
    `findings.py`).
    """

    images: Tensor
    latents: Tensor
    labels: Tensor | None
    recorded_steps: tuple[int, ...]
    energies: Tensor
    acceptance: float
    nonfinite: int
    potential_error: float | None = None
    found: Findings = {}  # noqa: RUF012


def sample_from(
    model: GEBM,
    settings: SamplerSettings,
    prior: Tensor,
    generator: torch.Generator,
    pilot_seed: int = 0,
    labels: Tensor | None = None,
) -> Samples:
    """Run one chain from each row of `prior` `(chains, p)`, all as one batch, and push it through the base.

    labels: `(chains,)` of a conditional model, one a chain.

    With `settings.name = "base"` the prior draws themselves are pushed through; `sir` resamples draws of its own.
    Chains move in the normal coordinates of the prior, so that none leaves its support.
    Raises `ValueError` when the model is not frozen.
    """
    check_frozen(model)
    if settings.name == "base":
        return _of_latents(model, prior, labels)
    if settings.name == "sir":
        resampled = resample_model(model, settings, len(prior), generator, labels)
        return _of_latents(model, resampled.latents, labels)._replace(found=findings_of_draws(resampled))
    model, law = in_normal_coordinates(model), model.prior
    start = start_chains(model, settings, to_normal(law, prior), generator, pilot_seed, labels)
    steps = settings.transitions
    ends = range(settings.steps, steps + 1, settings.thin)
    observe = observer(model, settings, labels)
    result = run_chain(start.algorithm, start.state, steps, generator, observe, settings.record_interval, ends)
    with torch.no_grad():
        # One batch of chains at a time, as everywhere: memory is planned for that.
        images = torch.cat([model.generate(latents, labels) for latents in result.kept])
    return Samples(
        images,
        from_normal(law, torch.cat(result.kept)),
        None if labels is None else labels.repeat(len(ends)),
        result.recorded_steps,
        result.energies[:, 0],
        result.acceptance,
        result.nonfinite,
        potential_error(result.energies, settings.inverse_temperature),
        findings_of_chains(start, result.state),
    )


@torch.no_grad()
def _of_latents(model: GEBM, latents: Tensor, labels: Tensor | None) -> Samples:
    """Latents `(n, p)` that no chain has moved, pushed through the base."""
    images = model.generate(latents, labels)
    return Samples(images, latents, labels, (0,), model.energy(images, labels)[None].cpu(), 1.0, 0)


def chains_for(count: int, settings: SamplerSettings) -> int:
    """How many chains make `count` samples."""
    return -(-count // settings.samples_per_chain)


def draw(
    model: GEBM,
    count: int,
    settings: SamplerSettings | None = None,
    *,
    labels: Tensor | None = None,
    seed: int = 0,
    **overrides: Any,
) -> Tensor:
    """`count` images `(count, channels, height, width)` in [-1, 1], or vectors `(count, d)`, on the model's device.

    labels: `(count,)` int64, the classes of a conditional model's samples; without, they are all `settings.label`
    or drawn uniformly. overrides: fields of `SamplerSettings`, such as `name="kla"`, `steps=200`, put over
    `settings`. The chains run in batches of `settings.chains`; a function of the model, the settings and `seed`.
    Raises `ValueError` for a wrong setting (pydantic's, naming it), for labels that the model cannot have, and when
    the model is not frozen.
    """
    check_frozen(model)
    chosen = SamplerSettings.model_validate({**(settings or SamplerSettings()).model_dump(), **overrides})
    device = next(model.parameters()).device
    # The prior comes from the CPU whatever the device, so that the same seed starts from the same latents.
    chains = chains_for(count, chosen)
    prior = model.sample_prior(count, torch.Generator().manual_seed(derive_seed(seed, "draw", "prior")))[:chains]
    generator = torch.Generator(device).manual_seed(derive_seed(seed, "draw", "chain"))
    if labels is None:
        labels = draw_labels(model, chosen, chains, torch.Generator().manual_seed(derive_seed(seed, "draw", "label")))
    elif chosen.label is not None:
        raise ValueError(f"labels are given, and label is {chosen.label}: give one of the two")
    elif chosen.samples_per_chain > 1:
        raise ValueError(
            f"labels are given one a sample: samples_per_chain is {chosen.samples_per_chain}, leave it at 1"
        )
    else:
        check_labels(labels, count, model.classes)
    pilot_seed = derive_seed(seed, "draw", "pilot")
    batches = [
        sample_from(model, chosen, latents, generator, pilot_seed, own).images
        for latents, own in chain_batches(prior, labels, chosen.chains, device)
    ]
    return torch.cat(batches)[:count] if batches else torch.empty((0, *model.image_shape), device=device)
