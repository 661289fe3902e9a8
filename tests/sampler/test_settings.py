"""Settings that make no sense together are refused with a sentence that says which and what to do."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from gebm.sampler.samplers import check_scale
from gebm.sampler.settings import SAMPLER_NAMES, SamplerSettings

TUNED = {"target_acceptance": 0.6, "warmup": 50}
FALLING = {"shape": "stepwise"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "ula", **TUNED}, "target_acceptance with name = 'ula'.*hmc, mala, rwmh"),
        ({"name": "imh", "schedule": FALLING}, "schedule with name = 'imh': it has no step size"),
        ({"name": "sir", "schedule": FALLING}, "schedule with name = 'sir'"),
        ({"name": "dot", "precondition": True, "warmup": 9}, "precondition with name = 'dot'"),
        ({"name": "imh", "scale": (1.0,)}, "scale with name = 'imh'"),
        ({"name": "imh", "anneal": {"start": 0.1, "steps": 9}}, "anneal with name = 'imh'"),
        ({"name": "kla", "tempering": {"hottest": 0.1}}, "tempering with name = 'kla'.*hmc, mala, rwmh"),
        ({"name": "dot", "samples_per_chain": 2}, "samples_per_chain > 1 with name = 'dot'"),
        ({"name": "base", "samples_per_chain": 2}, "samples_per_chain > 1 with name = 'base'"),
        ({"name": "mala", "warmup": 9}, "warmup has nothing to choose"),
        ({"name": "mala", "target_acceptance": 0.6}, "in warm-up: give warmup"),
        ({"name": "ula", "precondition": True}, "in warm-up: give warmup"),
        ({"name": "mala", "precondition": True, "scale": (1.0,), "warmup": 9}, "leave out one"),
        (
            {"name": "mala", "schedule": FALLING, **TUNED},
            "chooses a step size and schedule changes it",
        ),
        ({"name": "mala", "anneal": {"start": 0.1, "steps": 9}, **TUNED}, "anneal moves.*warmup needs at rest"),
        (
            {"name": "mala", "anneal": {"start": 0.1, "steps": 9}, "tempering": {"hottest": 0.1}},
            "anneal moves.*tempering needs at rest",
        ),
        ({"anneal": {"start": 1.0, "steps": 9}}, r"anneal\.start 1 must be below inverse_temperature 1"),
        ({"anneal": {"start": 0.1, "steps": 101}}, r"anneal\.steps 101 is more than steps 100"),
        ({"name": "mala", "tempering": {"hottest": 1.0}}, r"tempering\.hottest 1 is not below inverse_temperature 1"),
        ({"name": "mala", "tempering": {"hottest": 0.1, "rungs": 1}}, "greater than or equal to 2"),
        ({"schedule": {"shape": "stepwise", "factor": 1.5}}, "less than or equal to 1"),
        ({"name": "mala", "target_acceptance": 1.0, "warmup": 9}, "less than 1"),
        ({"samples_per_chain": 0}, "greater than 0"),
    ],
)
def test_what_makes_no_sense_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SamplerSettings(**settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"name": "kla", "schedule": FALLING, "samples_per_chain": 3},
        {"name": "hmc", "tempering": {"hottest": 0.1}, "precondition": True, **TUNED},
        {"name": "ula", "anneal": {"start": 0.1, "steps": 100}, "scale": (1.0, 2.0), "schedule": FALLING},
        {"name": "ula", "precondition": True, "warmup": 10, "schedule": {"shape": "polynomial"}},
        {"name": "imh", "samples_per_chain": 5, "thin": 1},
    ],
)
def test_what_makes_sense_is_a_setting_that_can_be_written_and_read(settings: dict[str, Any]) -> None:
    made = SamplerSettings(**settings)
    assert SamplerSettings.model_validate(made.model_dump(mode="json")) == made
    assert hash(made) == hash(SamplerSettings(**settings))


@pytest.mark.parametrize("name", SAMPLER_NAMES)
def test_named_for_another_sampler_settings_keep_what_is_not_of_one_alone(name: str) -> None:
    """Whatever the sampler, they are valid, and the layout is the same."""
    full = SamplerSettings(
        name="mala",
        inverse_temperature=3,
        steps=40,
        chains=7,
        tempering={"hottest": 0.1},
        precondition=True,
        samples_per_chain=2,
        **TUNED,
    )
    other = SamplerSettings.model_validate(full.named(name).model_dump())
    kept = ("inverse_temperature", "steps", "step_size", "chains", "shard_size", "threads")
    assert other.name == name
    assert [getattr(other, key) for key in kept] == [getattr(full, key) for key in kept]
    assert (other == full) == (name == "mala")


def test_a_scale_needs_a_number_for_each_latent() -> None:
    settings = SamplerSettings(scale=(1.0, 2.0))
    check_scale(settings, 2)
    with pytest.raises(ValueError, match=r"sampler\.scale has 2 numbers, the model's latent 4: give one for each"):
        check_scale(settings, 4)
