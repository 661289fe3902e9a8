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
from gebm.sampler.snapshot import packed
from gebm.sampler.warmup import Start, WarmUp, start_again, start_chains
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


class ChainsSoFar(NamedTuple):
    """Where chains stand that have done some of their transitions: all that they need to go on.

    state: of the kernel. done: transitions. records: what was observed, by record, and kept: the latents that were to
    be kept; both lists grow as the chains go on. acceptance, nonfinite: sums over the transitions, float64 and int64.
    """

    state: Any
    done: int
    records: list[Tensor]
    kept: list[Tensor]
    acceptance: Tensor
    nonfinite: Tensor


def run_chain(
    algorithm: Algorithm,
    state: Any,
    steps: int,
    generator: torch.Generator,
    observe: Callable[[Tensor], Tensor],
    record_every: int = 10,
    keep: Container[int] = (),
    *,
    so_far: ChainsSoFar | None = None,
    after_step: Callable[[ChainsSoFar], None] | None = None,
) -> ChainResult:
    """Do `steps` transitions from `state` and record `observe(position)` on the way.

    observe: latents `(chains, p)` to `(chains,)` or `(k, chains)`, usually the energy `E(B(z))`; called without
    gradients, at the start, every `record_every` transitions and at the end. keep: the latents after so many
    transitions are kept. after_step: is told after each transition where the chains stand; given that as `so_far`, and
    the generator as it was then, another call goes on from there as if nothing had been.
    """

    def note(at: ChainsSoFar) -> None:
        if at.done % record_every == 0 or at.done == steps:
            with torch.no_grad():
                at.records.append(observe(at.state.position).detach())
        if at.done in keep:
            at.kept.append(at.state.position)

    if so_far is None:
        zero = torch.zeros((), dtype=torch.float64, device=state.position.device)
        so_far = ChainsSoFar(state, 0, [], [], zero, zero.long())
        note(so_far)
    at = so_far
    while at.done < steps:
        state, info = algorithm.step(at.state, generator)
        # Sums stay on the device: reading them would make the host wait at every step.
        chains = len(state.position)
        acceptance = at.acceptance + info.acceptance[:chains].mean(dtype=torch.float64)
        nonfinite = at.nonfinite + info.nonfinite[:chains].sum()
        at = ChainsSoFar(state, at.done + 1, at.records, at.kept, acceptance, nonfinite)
        note(at)
        if after_step is not None:
            after_step(at)
    return ChainResult(
        state=at.state,
        position=at.state.position,
        recorded_steps=tuple(done for done in range(steps + 1) if done % record_every == 0 or done == steps),
        energies=torch.stack(at.records).cpu(),
        acceptance=at.acceptance.item() / steps if steps else 1.0,
        nonfinite=int(at.nonfinite.item()),
        kept=tuple(at.kept),
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
    *,
    snapshot: dict[str, Any] | None = None,
    after_step: Callable[[Callable[[], dict[str, Any]]], None] | None = None,
) -> Samples:
    """Run one chain from each row of `prior` `(chains, p)`, all as one batch, and push it through the base.

    labels: `(chains,)` of a conditional model, one a chain.

    With `settings.name = "base"` the prior draws themselves are pushed through; `sir` resamples draws of its own.
    Chains move in the normal coordinates of the prior, so that none leaves its support.

    after_step: is called after each transition, those of warm-up included, with a function that makes a snapshot of the
    chains: plain lists, numbers and tensors. Given one as `snapshot`, and the generator as it was then, another call
    ends with the same samples, to the bit. `base` and `sir` make none.

    Raises `ValueError` when the model is not frozen, `OtherChains` for a snapshot of others.
    """
    check_frozen(model)
    if settings.name == "base":
        return _of_latents(model, prior, labels)
    if settings.name == "sir":
        resampled = resample_model(model, settings, len(prior), generator, labels)
        return _of_latents(model, resampled.latents, labels)._replace(found=findings_of_draws(resampled))
    model, law = in_normal_coordinates(model), model.prior
    start, so_far = _begin(model, settings, to_normal(law, prior), generator, pilot_seed, labels, snapshot, after_step)
    steps = settings.transitions
    ends = range(settings.steps, steps + 1, settings.thin)
    observe = observer(model, settings, labels)

    def tell(at: ChainsSoFar) -> None:
        if after_step is not None:
            after_step(lambda: _snapshot(start, at))

    result = run_chain(
        start.algorithm,
        start.state,
        steps,
        generator,
        observe,
        settings.record_interval,
        ends,
        so_far=so_far,
        after_step=tell,
    )
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


def _begin(
    model: GEBM,
    settings: SamplerSettings,
    latents: Tensor,
    generator: torch.Generator,
    pilot_seed: int,
    labels: Tensor | None,
    snapshot: dict[str, Any] | None,
    after_step: Callable[[Callable[[], dict[str, Any]]], None] | None,
) -> tuple[Start, ChainsSoFar | None]:
    """The chains after their warm-up and, of a snapshot that was made after it, where they stood."""
    if snapshot is not None and "chains" in snapshot:
        state, done, records, kept, acceptance, nonfinite = snapshot["chains"]
        start = start_again(model, settings, latents, pilot_seed, labels, snapshot["found"], state)
        acceptance, nonfinite = (value.to(latents.device) for value in (acceptance, nonfinite))
        kept = [each.to(latents.device, copy=True) for each in kept]
        records = [each.to(latents.device) for each in records]
        return start, ChainsSoFar(start.state, done, records, kept, acceptance, nonfinite)

    def tell(at: WarmUp) -> None:
        if after_step is not None:
            after_step(lambda: {"warm_up": packed(at)})

    warm_up = None if snapshot is None else snapshot["warm_up"]
    started = start_chains(model, settings, latents, generator, pilot_seed, labels, snapshot=warm_up, after_step=tell)
    return started, None


def _snapshot(start: Start, at: ChainsSoFar) -> dict[str, Any]:
    """Records and kept latents as one tensor each: a long run has thousands of them."""

    def stacked(parts: list[Tensor]) -> Tensor | list[Tensor]:
        return torch.stack(parts).cpu() if parts else parts

    lists = [stacked(at.records), stacked(at.kept)]
    chains = [packed(at.state), at.done, *lists, packed(at.acceptance), packed(at.nonfinite)]
    return {"found": packed((start.step_size, start.scale)), "chains": chains}


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
