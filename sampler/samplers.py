"""The kernels by name. A new sampler is one file, one entry here and its name in `settings.py`."""

from __future__ import annotations

from collections.abc import Callable

import torch

from gebm.sampler.algorithm import Algorithm
from gebm.sampler.dot import dot, effective_lipschitz
from gebm.sampler.hmc import hmc
from gebm.sampler.imh import imh
from gebm.sampler.kla import kla
from gebm.sampler.mala import mala
from gebm.sampler.potential import latent_energy, latent_potential, latent_tilt
from gebm.sampler.rwmh import rwmh
from gebm.sampler.settings import SamplerSettings
from gebm.sampler.ula import ula
from gebm.trainer.model import GEBM

PILOT_SIZE = 100

Builder = Callable[[GEBM, SamplerSettings, int], Algorithm]


def _dot_on_model(model: GEBM, settings: SamplerSettings, pilot_seed: int) -> Algorithm:
    energy = latent_energy(model)
    device = next(model.parameters()).device
    pilot = model.sample_prior(PILOT_SIZE, torch.Generator().manual_seed(pilot_seed)).to(device)
    return dot(energy, settings.step_size, effective_lipschitz(energy, pilot))


SAMPLERS: dict[str, Builder] = {
    "ula": lambda m, s, _: ula(latent_potential(m, s.inverse_temperature), s.step_size),
    "mala": lambda m, s, _: mala(latent_potential(m, s.inverse_temperature), s.step_size),
    "hmc": lambda m, s, _: hmc(latent_potential(m, s.inverse_temperature), s.step_size, s.leapfrog_steps),
    "kla": lambda m, s, _: kla(latent_potential(m, s.inverse_temperature), s.step_size, s.friction),
    "rwmh": lambda m, s, _: rwmh(latent_potential(m, s.inverse_temperature), s.step_size),
    "imh": lambda m, s, _: imh(latent_tilt(m, s.inverse_temperature), m.sample_prior),
    "dot": _dot_on_model,
}


def build_sampler(model: GEBM, settings: SamplerSettings, pilot_seed: int = 0) -> Algorithm:
    """The kernel that `settings` names, on the latent space of the frozen `model`.

    pilot_seed: seed of the latents on which `dot` measures the slope of the energy; one seed for the whole
    run, so that all of its chains descend the same objective.
    Raises `ValueError` when the model is not frozen, and for `base`, which has no transitions.
    """
    if settings.name not in SAMPLERS:
        raise ValueError(f"{settings.name!r} has no transition kernel; one of {', '.join(SAMPLERS)} has")
    return SAMPLERS[settings.name](model, settings, pilot_seed)
