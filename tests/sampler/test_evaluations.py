"""What a sampler is said to cost is what its chains really ask of the energy."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from gebm.sampler import chain
from gebm.sampler.chain import sample_from
from gebm.sampler.evaluations import energy_evaluations, per_step, steps_within
from gebm.sampler.samplers import PILOT_SIZE
from gebm.sampler.settings import SAMPLER_NAMES, SamplerSettings
from gebm.trainer.model import GEBM
from tests.sampler.small_models import small_model

CHAINS = 6
CASES: dict[str, dict[str, Any]] = {
    **{name: {"name": name} for name in SAMPLER_NAMES if name not in ("base", "sir")},
    "hmc of 5": {"name": "hmc", "leapfrog_steps": 5},
    "sir": {"name": "sir", "draws_per_sample": 7},
    "base": {"name": "base"},
    "several of a chain": {"name": "mala", "samples_per_chain": 3, "thin": 4},
    "preconditioned": {"name": "mala", "warmup": 6, "precondition": True},
    "preconditioned kla": {"name": "kla", "warmup": 6, "precondition": True},
    "preconditioned and scheduled": {
        "name": "ula",
        "warmup": 6,
        "precondition": True,
        "schedule": {"shape": "stepwise"},
    },
    "tempered": {"name": "hmc", "tempering": {"rungs": 3, "hottest": 0.2}},
    "annealed": {"name": "ula", "anneal": {"start": 0.1, "steps": 5}},
}


class Counted:
    """Latents that went through the energy for chains: with a gradient, and without."""

    def __init__(self, model: GEBM, monkeypatch: pytest.MonkeyPatch):
        self.gradients = self.values = 0
        self.reporting = False
        original = model.latent_energy

        def latent_energy(latent: Tensor, labels: Tensor | None = None) -> Tensor:
            if not self.reporting:
                self.gradients += len(latent) * latent.requires_grad
                self.values += len(latent) * (not latent.requires_grad)
            return original(latent, labels)

        def observer(*arguments: Any) -> Any:
            """Records for the report, which are not counted."""
            observe = original_observer(*arguments)

            def unseen(latent: Tensor) -> Tensor:
                self.reporting = True
                try:
                    return observe(latent)
                finally:
                    self.reporting = False

            return unseen

        original_observer = chain.observer
        monkeypatch.setattr(chain, "observer", observer)
        monkeypatch.setattr(model, "latent_energy", latent_energy)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_the_count_is_that_of_real_calls_of_the_energy(case: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model()
    settings = SamplerSettings(steps=11, step_size=0.05, **case)
    counted = Counted(model, monkeypatch)
    samples = sample_from(model, settings, model.sample_prior(CHAINS, generator()), generator())
    expected = energy_evaluations(settings)
    pilot = PILOT_SIZE if settings.name == "dot" else 0
    assert (counted.gradients - pilot, counted.values) == (
        pytest.approx(expected.gradients * len(samples.latents)),
        pytest.approx(expected.values * len(samples.latents)),
    )
    assert expected.total == expected.gradients + expected.values


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        (SamplerSettings(name="ula"), 99),
        (SamplerSettings(name="kla"), 100),
        (SamplerSettings(name="dot"), 100),
        (SamplerSettings(name="imh"), 99),
        (SamplerSettings(name="hmc", leapfrog_steps=3), 33),
        (SamplerSettings(name="hmc", leapfrog_steps=4), 24),
    ],
    ids=lambda value: str(getattr(value, "name", value)),
)
def test_a_budget_is_spent_and_not_overdrawn(settings: SamplerSettings, steps: int) -> None:
    """A hundred evaluations; one step more would be too many."""
    assert steps_within(settings, 100) == steps
    spent = energy_evaluations(settings.model_copy(update={"steps": steps})).total
    assert spent <= 100 < spent + per_step(settings)


def test_a_budget_without_a_step_is_refused() -> None:
    with pytest.raises(ValueError, match="hmc cannot make a step within 8 evaluations"):
        steps_within(SamplerSettings(name="hmc", leapfrog_steps=8), 8)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)
