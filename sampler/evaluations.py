"""What a sample costs: how often the energy of an image is evaluated on the way to it.

An evaluation is one latent through generator and energy, forwards, or forwards and backwards for the gradient. Samplers
are compared at an equal number of them. Not in it: the image of the sample itself, the energies that are recorded for
the report, the pilot batch on which `dot` measures a slope, and the search of a first step size in warm-up, as long as
the chains make it.
"""

from __future__ import annotations

from typing import NamedTuple

from gebm.sampler.settings import SamplerSettings

WITHOUT_GRADIENT = frozenset({"rwmh", "imh", "sir"})
NOTHING_AT_THE_START = frozenset({"kla", "dot"})
"""Kernels that look at the energy for the first time in their first step. All others keep what they know of a point."""


class Evaluations(NamedTuple):
    """For each sample: energies with their gradient, and energies alone."""

    gradients: float
    values: float

    @property
    def total(self) -> float:
        return self.gradients + self.values


def energy_evaluations(settings: SamplerSettings) -> Evaluations:
    """How often the energy is evaluated for one sample; a mean where a chain gives several."""
    if settings.name == "base":
        return Evaluations(0.0, 0.0)
    if settings.name == "sir":
        return Evaluations(0.0, float(settings.draws_per_sample))
    starts = 0 if settings.name in NOTHING_AT_THE_START else 1
    if settings.warmup and settings.precondition:
        starts *= 2  # the second half of warm-up begins anew, in other coordinates
    if settings.warmup and settings.schedule.shape != "constant":
        starts += 0 if settings.name in NOTHING_AT_THE_START else 1
    rungs = 1 if settings.tempering is None else settings.tempering.rungs
    of_a_chain = starts + per_step(settings) * (settings.warmup + settings.transitions)
    number = rungs * of_a_chain / settings.samples_per_chain
    return Evaluations(0.0, number) if settings.name in WITHOUT_GRADIENT else Evaluations(number, 0.0)


def per_step(settings: SamplerSettings) -> int:
    """Evaluations of one transition of one chain."""
    return settings.leapfrog_steps if settings.name == "hmc" else 1


def steps_within(settings: SamplerSettings, evaluations: int) -> int:
    """The most transitions with which a sample costs no more than so many evaluations, one sample a chain.

    Raises `ValueError` when not even one does.
    """
    starts = 0 if settings.name in NOTHING_AT_THE_START else 1
    steps = (evaluations - starts) // per_step(settings)
    if steps < 1:
        raise ValueError(f"{settings.name} cannot make a step within {evaluations} evaluations of the energy")
    return steps
