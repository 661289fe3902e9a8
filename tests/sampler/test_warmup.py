"""Warm-up: what it chooses is right, is reported, is a function of the batch, and does not move afterwards."""

from __future__ import annotations

import pytest
import torch

from gebm.sampler import SamplerSettings
from gebm.sampler.chain import run_chain, sample_from
from gebm.sampler.potential import latent_energy
from gebm.sampler.samplers import build_sampler
from gebm.sampler.warmup import start_chains
from gebm.trainer.model import GEBM
from tests.sampler.small_models import gaussian_model, small_model
from tests.sampler.targets import badly_scaled, p_value

LEVEL = 1e-4
SCALES = (0.05, 0.2, 0.8)


def start(model: GEBM, settings: SamplerSettings, chains: int, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    return start_chains(model, settings, model.sample_prior(chains, generator), generator), generator


@pytest.mark.parametrize("wrong", [0.01, 1.0, 100.0])
@pytest.mark.parametrize(("name", "target", "about_right"), [("mala", 0.574, 0.15), ("hmc", 0.8, 0.5)])
def test_chains_of_a_model_go_on_with_the_acceptance_asked_for(
    name: str, target: float, about_right: float, wrong: float
) -> None:
    """150 chains, 200 steps of warm-up, from a step size up to 100 times wrong: within 0.03 of the target."""
    model = small_model()
    settings = SamplerSettings(
        name=name, target_acceptance=target, warmup=200, step_size=wrong * about_right, inverse_temperature=1.5
    )
    begun, generator = start(model, settings, 150)
    result = run_chain(begun.algorithm, begun.state, 40, generator, latent_energy(model))
    assert result.acceptance == pytest.approx(target, abs=0.03)


def test_without_warmup_chains_begin_where_they_are_told() -> None:
    model, settings = small_model(), SamplerSettings(name="mala")
    generator = torch.Generator().manual_seed(1)
    latents = model.sample_prior(5, generator)
    begun = start_chains(model, settings, latents, generator)
    assert torch.equal(begun.state.position, latents) and begun.step_size is None and begun.scale is None


def test_after_warmup_the_chains_are_those_of_the_step_size_that_it_found() -> None:
    """Nothing moves any more: a kernel built with that number takes the very same steps."""
    model = small_model()
    settings = SamplerSettings(name="mala", target_acceptance=0.6, warmup=30)
    begun, generator = start(model, settings, 20)
    assert begun.step_size is not None
    replay = generator.get_state()
    adapted = run_chain(begun.algorithm, begun.state, 8, generator, latent_energy(model)).position
    generator.set_state(replay)
    plain = build_sampler(model, SamplerSettings(name="mala", step_size=float(begun.step_size)))
    fixed = run_chain(plain, begun.state, 8, generator, latent_energy(model)).position
    assert torch.equal(adapted, fixed)


@pytest.mark.parametrize("name", ["mala", "hmc", "ula", "kla"])
def test_the_measured_scales_are_those_of_the_target(name: str) -> None:
    """On `N(0, diag(0.05, 0.2, 0.8)²)`, 250 chains: within a third, from the prior whose scales are 1.

    The wide coordinate has hardly left the prior when the step size is that of the narrow one.
    """
    adaptive = name in ("mala", "hmc")
    settings = SamplerSettings(
        name=name,
        precondition=True,
        warmup=600,
        step_size=0.001 if name == "ula" else 0.04,
        target_acceptance=0.6 if adaptive else None,
    )
    begun, _ = start(gaussian_model(SCALES), settings, 250)
    assert begun.scale is not None
    torch.testing.assert_close(begun.scale, torch.tensor(SCALES), rtol=1 / 3, atol=0)


def test_preconditioned_chains_are_exact_and_mix_as_the_step_size_says() -> None:
    """MALA tuned with and without scales on `N(0, diag(0.05, 0.2, 0.8)²)`, 3,000 chains.

    Law after 60 more steps at false-alarm rate 1e-4. A Langevin step moves a coordinate of variance `s²` by
    `h² / s² + 2h` in the square, where it is accepted: the wide one forgets `alpha (r + r²/2)`, `r = h / s²`, of where
    it was in a step. Scales raise that more than 20-fold.
    """
    model, rates = gaussian_model(SCALES), {}
    for precondition in (True, False):
        settings = SamplerSettings(
            name="mala", precondition=precondition, warmup=400, target_acceptance=0.574, step_size=0.001
        )
        begun, generator = start(model, settings, 3000)
        assert begun.step_size is not None
        unit = 1.0 if precondition else SCALES[2] ** 2
        settled = run_chain(begun.algorithm, begun.state, 60, generator, latent_energy(model))
        moved = run_chain(begun.algorithm, settled.state, 1, generator, latent_energy(model))
        before, after = settled.position[:, 2], moved.position[:, 2]
        jump = (after - before).square().mean() / (2 * before.var())  # 1 - correlation over one step
        rates[precondition] = float(jump)
        r = float(begun.step_size) / unit
        assert float(jump) == pytest.approx(0.574 * (r + r**2 / 2), rel=0.2)
        if precondition:
            assert p_value(badly_scaled(SCALES), settled.position.double()) > LEVEL
    assert rates[True] > 20 * rates[False]


def test_a_schedule_counts_from_the_end_of_warmup() -> None:
    settings = SamplerSettings(
        name="ula", precondition=True, warmup=12, schedule={"shape": "stepwise", "every": 3}, step_size=0.01
    )
    begun, _ = start(small_model(), settings, 10)
    assert int(begun.state.done) == 0


def test_replicas_begin_at_prior_draws_whatever_the_scale() -> None:
    """Deviations of 1 within 8%, 4 standard errors of 1,200; the coldest where they are told to begin."""
    settings = SamplerSettings(name="mala", tempering={"rungs": 4, "hottest": 0.1}, scale=SCALES)
    model = gaussian_model(SCALES)
    state = build_sampler(model, settings).init(torch.zeros(400, 3), torch.Generator().manual_seed(2))
    replicas = torch.tensor(SCALES) * state.chains.replicas.position
    assert torch.equal(replicas[:400], torch.zeros(400, 3))
    torch.testing.assert_close(replicas[400:].std(0), torch.ones(3), rtol=0.08, atol=0)


def test_rungs_of_a_ladder_have_step_sizes_of_their_own() -> None:
    """The hot ones larger: their target is wider."""
    settings = SamplerSettings(
        name="mala",
        inverse_temperature=4.0,
        tempering={"rungs": 3, "hottest": 0.05},
        target_acceptance=0.574,
        warmup=100,
    )
    begun, generator = start(small_model(), settings, 200)
    assert begun.step_size is not None and begun.step_size.shape == (3,)
    assert (begun.step_size.diff() > 0).all()
    result = run_chain(begun.algorithm, begun.state, 30, generator, latent_energy(small_model()))
    assert result.position.shape == (200, 4)
    assert result.acceptance == pytest.approx(0.574, abs=0.06)


def test_what_was_found_is_reported_with_the_samples() -> None:
    model = small_model()
    settings = SamplerSettings(
        name="mala",
        steps=6,
        tempering={"rungs": 3, "hottest": 0.1},
        target_acceptance=0.574,
        precondition=True,
        warmup=40,
    )
    samples = sample_from(model, settings, model.sample_prior(8, torch.Generator()), torch.Generator())
    assert samples.images.shape == (8, 1, 8, 8)
    assert set(samples.found) == {"step_size", "scale", "swap_acceptance"}
    assert len(samples.found["step_size"]) == 3 and len(samples.found["swap_acceptance"]) == 2
    low, high = samples.found["scale"]
    assert 0 < low < high < 2
    assert all(0 < value <= 1 for value in samples.found["swap_acceptance"])
    plain = sample_from(model, SamplerSettings(steps=1), torch.zeros(2, 4), torch.Generator())
    assert plain.found == {}
