"""The kernels by name. A new sampler is one file, one entry here and its name in `settings.py`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from gebm.cluster.errors import InputError
from gebm.sampler.algorithm import Algorithm, Potential, StepSize
from gebm.sampler.annealing import annealed, temperature_of
from gebm.sampler.compiled import compiled
from gebm.sampler.ddls import ddls
from gebm.sampler.dot import dot, effective_lipschitz
from gebm.sampler.hmc import hmc
from gebm.sampler.imh import imh
from gebm.sampler.kla import kla
from gebm.sampler.labels import draw_labels
from gebm.sampler.mala import mala
from gebm.sampler.potential import latent_energy, latent_potential, latent_tilt
from gebm.sampler.precision import in_precision
from gebm.sampler.preconditioning import rescaled
from gebm.sampler.replay import cuda_graph, replayed
from gebm.sampler.rwmh import rwmh
from gebm.sampler.schedule import schedule_of, scheduled
from gebm.sampler.settings import MOVING, SamplerSettings
from gebm.sampler.tempering import ladder, parallel_tempering
from gebm.sampler.ula import ula
from gebm.trainer.model import GEBM

PILOT_SIZE = 100

Kernel = Callable[[StepSize], Algorithm]
"""Step size to transition kernel. All work is done before: it is called at every step of a step size that moves."""
Builder = Callable[[GEBM, SamplerSettings, int, Tensor | None, Tensor | None], Kernel]
"""Of model, settings, pilot seed, labels `(chains,)` and scale `(p,)`."""
OnPotential = Callable[[Potential, StepSize], Algorithm]


def _dot_on_model(
    model: GEBM, settings: SamplerSettings, pilot_seed: int, labels: Tensor | None, scale: Tensor | None
) -> Kernel:
    device = next(model.parameters()).device
    stream = torch.Generator().manual_seed(pilot_seed)
    pilot = model.sample_prior(PILOT_SIZE, stream).to(device)
    pilot_labels = draw_labels(model, settings, PILOT_SIZE, stream)
    if pilot_labels is not None:
        pilot_labels = pilot_labels.to(device)
    lipschitz = effective_lipschitz(latent_energy(model, pilot_labels), pilot)
    energy = latent_energy(model, labels)
    return lambda step_size: dot(energy, step_size, lipschitz)


def _imh_on_model(
    model: GEBM, settings: SamplerSettings, pilot_seed: int, labels: Tensor | None, scale: Tensor | None
) -> Kernel:
    algorithm = imh(latent_tilt(model, settings.inverse_temperature, labels), model.sample_prior)
    return lambda step_size: algorithm


def _ddls_on_model(
    model: GEBM, settings: SamplerSettings, pilot_seed: int, labels: Tensor | None, scale: Tensor | None
) -> Kernel:
    potential = latent_potential(model, 1.0, labels)
    return lambda step_size: ddls(potential, step_size, settings.inverse_temperature)


def _moving(make: Callable[[SamplerSettings], OnPotential]) -> Builder:
    """A kernel of any potential, on that of a model: at one temperature, annealed, or on a ladder; rescaled or not."""

    def build(
        model: GEBM, settings: SamplerSettings, pilot_seed: int, labels: Tensor | None, scale: Tensor | None
    ) -> Kernel:
        on_potential = make(settings)
        if settings.anneal is None and settings.tempering is None:
            potential = _in_units(latent_potential(model, settings.inverse_temperature, labels), scale)
            kernel: Kernel = partial(on_potential, potential)
        else:
            kernel = _between_temperatures(on_potential, model, settings, labels, scale)
        return kernel if scale is None else lambda step_size: rescaled(kernel(step_size), scale)

    return build


def _between_temperatures(
    on_potential: OnPotential, model: GEBM, settings: SamplerSettings, labels: Tensor | None, scale: Tensor | None
) -> Kernel:
    """`on_potential` annealed or on a ladder, as the settings say, of latents in units of `scale`."""
    prior = _in_units(lambda latent: -model.log_prior(latent), scale)
    if settings.anneal is not None:
        energy = _in_units(latent_energy(model, labels), scale)
        temperature = temperature_of(settings.anneal, settings.inverse_temperature)
        return lambda step_size: annealed(lambda u: on_potential(u, step_size), energy, prior, temperature)
    assert settings.tempering is not None
    rungs, hottest = settings.tempering.rungs, settings.tempering.hottest
    energy = _in_units(latent_energy(model, None if labels is None else labels.repeat(rungs)), scale)
    betas = ladder(settings.inverse_temperature, hottest, rungs).to(next(model.parameters()).device)

    def sample_prior(count: int, generator: torch.Generator) -> Tensor:
        latents = model.sample_prior(count, generator)
        return latents if scale is None else latents / scale.to(latents)

    return lambda step_size: parallel_tempering(on_potential, energy, prior, betas, step_size, sample_prior)


def _in_units(function: Potential, scale: Tensor | None) -> Potential:
    return function if scale is None else lambda latent: function(scale * latent)


SAMPLERS: dict[str, Builder] = {
    "ula": _moving(lambda s: ula),
    "ddls": _ddls_on_model,
    "mala": _moving(lambda s: mala),
    "hmc": _moving(lambda s: partial(hmc, leapfrog_steps=s.leapfrog_steps)),
    "kla": _moving(lambda s: partial(kla, friction=s.friction)),
    "rwmh": _moving(lambda s: rwmh),
    "imh": _imh_on_model,
    "dot": _dot_on_model,
}


def kernel_of(
    model: GEBM,
    settings: SamplerSettings,
    pilot_seed: int = 0,
    labels: Tensor | None = None,
    scale: Tensor | None = None,
) -> Kernel:
    """The kernel that `settings` names as a function of its step size, whatever its schedule.

    scale: `(p,)` on the model's device, in place of the settings' own. Raises as `build_sampler`.
    """
    if settings.name not in SAMPLERS:
        raise ValueError(f"{settings.name!r} has no transition kernel; one of {', '.join(SAMPLERS)} has")
    if model.prior.kind != "normal" and settings.name in ("ula", "ddls", "kla", "dot"):
        raise ValueError(
            f"{settings.name} has no acceptance step to keep chains inside the {model.prior.kind} prior: give it "
            "in_normal_coordinates(model), whose chains cannot leave"
        )
    check_scale(settings, model.latent_dimension)
    if scale is None and settings.scale is not None:
        scale = torch.tensor(settings.scale)
    if scale is not None:
        scale = scale.to(next(model.parameters()))
    return SAMPLERS[settings.name](in_precision(model, settings), settings, pilot_seed, labels, scale)


def build_sampler(
    model: GEBM,
    settings: SamplerSettings,
    pilot_seed: int = 0,
    labels: Tensor | None = None,
    *,
    step_size: Tensor | None = None,
    scale: Tensor | None = None,
) -> Algorithm:
    """The kernel that `settings` names, on the latent space of the frozen `model`.

    pilot_seed: seed of the latents on which `dot` measures the slope of the energy; one seed for the whole
    run, so that all of its chains descend the same objective. labels: `(chains,)` of a conditional model.
    step_size, scale: what warm-up made of those of the settings, on the model's device.
    Raises `ValueError` when the model is not frozen, for `base` and `sir`, which have no transitions, for scales of
    another number than the latent has, and for a kernel without acceptance step on a prior with edges: there the
    others meet a potential that is infinite outside, and never accept it.
    """
    kernel = kernel_of(model, settings, pilot_seed, labels, scale)
    size: StepSize = settings.step_size if step_size is None else step_size
    schedule = schedule_of(settings.schedule)
    algorithm = kernel(size) if schedule is None else scheduled(kernel, size, schedule)
    if settings.compile:
        algorithm = compiled(algorithm)
    if settings.cuda_graph and next(model.parameters()).device.type == "cuda":
        algorithm = replayed(algorithm, cuda_graph)
    return algorithm


def check_scale(settings: SamplerSettings, latent_dimension: int) -> None:
    """Raise `InputError` when `settings.scale` has another number of entries than the latent."""
    if settings.name in MOVING and settings.scale is not None and len(settings.scale) != latent_dimension:
        raise InputError(
            f"sampler.scale has {len(settings.scale)} numbers, the model's latent {latent_dimension}: give one for each"
        )
