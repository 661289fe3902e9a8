"""Sampler settings as a reader says them."""

from __future__ import annotations

from gebm.sampler.settings import SamplerSettings


def settings_words(sampler: SamplerSettings) -> str:
    """`β 2, step 0.01`: what tells two candidates of a sampler apart."""
    words = [] if sampler.name == "dot" else [f"β {sampler.inverse_temperature:g}"]
    if sampler.target_acceptance is not None:
        words.append(f"step for acceptance {sampler.target_acceptance:g}")
    elif sampler.name not in ("imh", "sir"):
        words.append(f"step {sampler.step_size:g}")
    if sampler.schedule.shape != "constant":
        words.append(f"{sampler.schedule.shape} schedule")
    if sampler.anneal is not None:
        words.append(f"annealed from {sampler.anneal.start:g}")
    if sampler.tempering is not None:
        words.append(f"tempered on {sampler.tempering.rungs} rungs")
    if sampler.precondition or sampler.scale is not None:
        words.append("preconditioned")
    if sampler.name == "kla":
        words.append(f"friction {sampler.friction:g}")
    if sampler.name == "hmc":
        words.append(f"{sampler.leapfrog_steps} leapfrog steps")
    if sampler.name == "sir":
        words.append(f"{sampler.draws_per_sample:,} draws a sample")
    return ", ".join(words)


LAWS = {
    "base": "the generator's own",
    "ula": "the target, bias O(h)",
    "ddls": "another: tempers the prior too",
    "mala": "the target, exact",
    "hmc": "the target, exact",
    "kla": "the target, bias O(d²)",
    "rwmh": "the target, exact",
    "imh": "the target, exact",
    "dot": "none: a transport",
    "sir": "the target, at many draws",
}
"""What each sampler's law tends to, of long chains. The target is `eta(z) exp(-beta E(B(z)))`."""


def law_words(sampler: SamplerSettings) -> str:
    """What the samples' law tends to in long chains; at inverse temperature 1 that of `ddls` is that of `ula`."""
    return LAWS["ula"] if sampler.name == "ddls" and sampler.inverse_temperature == 1 else LAWS[sampler.name]


def sampler_words(sampler: SamplerSettings) -> str:
    """`ula, β 2, step 0.01, 100 steps`: a candidate of tuning by everything that makes it up."""
    length = "" if sampler.name == "sir" else f", {sampler.steps:,} steps"
    return f"{sampler.name}, {settings_words(sampler)}{length}"
