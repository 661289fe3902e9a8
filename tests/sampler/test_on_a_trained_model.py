"""On a small trained model all exact ways to sample it agree with self-normalised importance weights.

Nine observables each, within 4.5 standard errors: false-alarm rate below 1e-4 for each sampler. The same check must
reject an unadjusted kernel with a large step, and planted errors.
"""

from __future__ import annotations

import importlib
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from gebm.sampler import SamplerSettings
from gebm.sampler.chain import sample_from
from gebm.sampler.mala import MALAState
from gebm.trainer.model import GEBM
from tests.sampler.trained_model import ring, trained_model

BETA, CHAINS = 1.0, 3000
ALLOWED = 4.5


@pytest.fixture(scope="module")
def model() -> GEBM:
    return trained_model()


def observables(model: GEBM, latents: Tensor) -> Tensor:
    """`(n, 9)`: energy, latents and points, their squares, and whether the point is in the upper half plane."""
    with torch.no_grad():
        points = model.generate(latents)
        energy = model.energy(points)
    above = (points[:, 1:] > 0).float()
    return torch.cat([energy[:, None], latents, latents.square(), points, points.square()[:, :1], above], 1).double()


@pytest.fixture(scope="module")
def expected(model: GEBM) -> tuple[Tensor, Tensor]:
    """Expectations of the observables under the model by importance weights, and their standard errors."""
    values = observables(model, model.sample_prior(200_000, torch.Generator().manual_seed(1)))
    weights = torch.softmax(-BETA * values[:, 0], dim=0)[:, None]
    mean = (weights * values).sum(0)
    error = (weights.square() * (values - mean).square()).sum(0).sqrt()
    assert 1 / weights.square().sum().item() > 20_000
    return mean, error


def deviation(model: GEBM, expected: tuple[Tensor, Tensor], settings: SamplerSettings) -> float:
    """The largest difference of an observable's mean from the expected one, in standard errors."""
    generator = torch.Generator().manual_seed(2)
    prior = model.sample_prior(CHAINS, generator)
    samples = sample_from(model, settings, prior, generator)
    values = observables(model, samples.latents)
    mean, error = expected
    return float(((values.mean(0) - mean) / torch.hypot(values.std(0) / math.sqrt(CHAINS), error)).abs().max())


def test_the_model_was_trained(model: GEBM, expected: tuple[Tensor, Tensor]) -> None:
    """Its energy tells the ring from the base's points, and the model has most mass where the ring has."""
    generator = torch.Generator().manual_seed(3)
    real, fake = model.energy(ring(2000, generator)), model.energy(model.generate(model.sample_prior(2000, generator)))
    assert real.mean() < fake.mean() - 1
    assert expected[0][8] > 0.6  # in the upper half plane, where two thirds of the ring are


TUNED: dict[str, Any] = {"target_acceptance": 0.65, "warmup": 60}
EXACT = {
    "mala": SamplerSettings(name="mala", step_size=0.1, steps=200),
    "hmc": SamplerSettings(name="hmc", step_size=0.25, leapfrog_steps=4, steps=50),
    "rwmh": SamplerSettings(name="rwmh", step_size=0.15, steps=200),
    "imh": SamplerSettings(name="imh", steps=80),
    "sir": SamplerSettings(name="sir", draws_per_sample=100),
    "tuned mala": SamplerSettings(name="mala", steps=100, **TUNED),
    "preconditioned hmc": SamplerSettings(name="hmc", leapfrog_steps=4, steps=40, precondition=True, **TUNED),
    "mala with scales": SamplerSettings(name="mala", step_size=0.1, steps=200, scale=(1.2, 0.8)),
    "tempered mala": SamplerSettings(name="mala", step_size=0.05, steps=80, tempering={"rungs": 3, "hottest": 0.1}),
    "tempered, tuned, preconditioned rwmh": SamplerSettings(
        name="rwmh", steps=80, tempering={"rungs": 3, "hottest": 0.1}, precondition=True, **TUNED
    ),
    "annealed hmc": SamplerSettings(
        name="hmc", step_size=0.25, leapfrog_steps=4, steps=60, anneal={"start": 0.05, "steps": 30}
    ),
    "mala, smaller and smaller steps": SamplerSettings(
        name="mala", step_size=0.2, steps=200, schedule={"shape": "polynomial", "offset": 100}
    ),
}


@pytest.mark.parametrize("settings", EXACT.values(), ids=EXACT.keys())
def test_an_exact_sampler_agrees_with_importance_weights(
    model: GEBM, expected: tuple[Tensor, Tensor], settings: SamplerSettings
) -> None:
    assert deviation(model, expected, settings) < ALLOWED


def test_the_check_rejects_an_unadjusted_kernel_with_a_large_step(model: GEBM, expected: tuple[Tensor, Tensor]) -> None:
    assert deviation(model, expected, SamplerSettings(name="ula", step_size=0.15, steps=150)) > ALLOWED


def test_the_check_rejects_the_prior_and_another_temperature(model: GEBM, expected: tuple[Tensor, Tensor]) -> None:
    assert deviation(model, expected, SamplerSettings(name="base")) > ALLOWED
    hotter = EXACT["hmc"].model_copy(update={"inverse_temperature": 0.8})
    assert deviation(model, expected, hotter) > ALLOWED


def test_the_check_rejects_mala_with_a_dropped_factor(
    model: GEBM, expected: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    def planted(target: Tensor, source: MALAState, step_size: Tensor) -> Tensor:
        return -(target - source.position + step_size * source.gradient).square().sum(1) / (2 * step_size)

    monkeypatch.setattr(importlib.import_module("gebm.sampler.mala"), "log_proposal_density", planted)
    assert deviation(model, expected, EXACT["mala"]) > ALLOWED
