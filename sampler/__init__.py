"""Transition kernels on the latent space of a trained model, and their farm."""

from typing import TYPE_CHECKING, Any

from gebm.sampler.settings import SamplerSettings

if TYPE_CHECKING:
    from gebm.sampler.chain import draw, run_chain
    from gebm.sampler.potential import latent_potential
    from gebm.sampler.samplers import build_sampler

__all__ = ["SamplerSettings", "build_sampler", "draw", "latent_potential", "run_chain"]


def __getattr__(name: str) -> Any:
    # torch takes seconds to import: not for a command that only reads settings.
    if name in ("draw", "run_chain"):
        from gebm.sampler import chain

        return getattr(chain, name)
    if name == "latent_potential":
        from gebm.sampler import potential

        return potential.latent_potential
    if name == "build_sampler":
        from gebm.sampler import samplers

        return samplers.build_sampler
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
