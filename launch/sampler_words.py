"""Sampler settings as a reader says them."""

from __future__ import annotations

from gebm.sampler.settings import SamplerSettings


def settings_words(sampler: SamplerSettings) -> str:
    """`β 2, step 0.01`: what tells two candidates of a sampler apart."""
    words = [] if sampler.name == "dot" else [f"β {sampler.inverse_temperature:g}"]
    if sampler.name != "imh":
        words.append(f"step {sampler.step_size:g}")
    if sampler.name == "kla":
        words.append(f"friction {sampler.friction:g}")
    if sampler.name == "hmc":
        words.append(f"{sampler.leapfrog_steps} leapfrog steps")
    return ", ".join(words)


def sampler_words(sampler: SamplerSettings) -> str:
    """`ula, β 2, step 0.01, 100 steps`: a candidate of tuning by everything that makes it up."""
    return f"{sampler.name}, {settings_words(sampler)}, {sampler.steps:,} steps"
