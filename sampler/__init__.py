"""Transition kernels on the latent space of a trained model, and their farm."""

from gebm.sampler.algorithm import Algorithm, TransitionInfo
from gebm.sampler.chain import draw, run_chain, sample_from
from gebm.sampler.potential import latent_potential
from gebm.sampler.samplers import build_sampler
from gebm.sampler.settings import SamplerSettings

__all__ = [
    "Algorithm",
    "SamplerSettings",
    "TransitionInfo",
    "build_sampler",
    "draw",
    "latent_potential",
    "run_chain",
    "sample_from",
]
