"""The kernels by name. A new sampler is one file, one entry here and its name in `settings.py`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gebm.sampler.algorithm import Algorithm
from gebm.sampler.dot import dot, effective_lipschitz
from gebm.sampler.hmc import hmc
from gebm.sampler.imh import imh
from gebm.sampler.kla import kla
from gebm.sampler.labels import draw_labels
from gebm.sampler.mala import mala
from gebm.sampler.potential import latent_energy, latent_potential, latent_tilt
from gebm.sampler.precision import in_precision
from gebm.sampler.rwmh import rwmh
from gebm.sampler.settings import SamplerSettings
from gebm.sampler.ula import ula
from gebm.trainer.model import GEBM

PILOT_SIZE = 100

Builder = Callable[[GEBM, SamplerSettings, int, Tensor | None], Algorithm]


def _dot_on_model(model: GEBM, settings: SamplerSettings, pilot_seed: int, labels: Tensor | None) -> Algorithm:
    device = next(model.parameters()).device
    stream = torch.Generator().manual_seed(pilot_seed)
    pilot = model.sample_prior(PILOT_SIZE, stream).to(device)
    pilot_labels = draw_labels(model, settings, PILOT_SIZE, stream)
    if pilot_labels is not None:
        pilot_labels = pilot_labels.to(device)
    lipschitz = effective_lipschitz(latent_energy(model, pilot_labels), pilot)
    return dot(latent_energy(model, labels), settings.step_size, lipschitz)


SAMPLERS: dict[str, Builder] = {
    "ula": lambda m, s, _, y: ula(latent_potential(m, s.inverse_temperature, y), s.step_size),
    "mala": lambda m, s, _, y: mala(latent_potential(m, s.inverse_temperature, y), s.step_size),
    "hmc": lambda m, s, _, y: hmc(latent_potential(m, s.inverse_temperature, y), s.step_size, s.leapfrog_steps),
    "kla": lambda m, s, _, y: kla(latent_potential(m, s.inverse_temperature, y), s.step_size, s.friction),
    "rwmh": lambda m, s, _, y: rwmh(latent_potential(m, s.inverse_temperature, y), s.step_size),
    "imh": lambda m, s, _, y: imh(latent_tilt(m, s.inverse_temperature, y), m.sample_prior),
    "dot": _dot_on_model,
}


def build_sampler(
    model: GEBM, settings: SamplerSettings, pilot_seed: int = 0, labels: Tensor | None = None
) -> Algorithm:
    """The kernel that `settings` names, on the latent space of the frozen `model`.

    pilot_seed: seed of the latents on which `dot` measures the slope of the energy; one seed for the whole
    run, so that all of its chains descend the same objective. labels: `(chains,)` of a conditional model.
    Raises `ValueError` when the model is not frozen, and for `base`, which has no transitions.
    """
    if settings.name not in SAMPLERS:
        raise ValueError(f"{settings.name!r} has no transition kernel; one of {', '.join(SAMPLERS)} has")
    return SAMPLERS[settings.name](in_precision(model, settings), settings, pilot_seed, labels)
