"""Running chains: what is recorded, and that drawing is a function of model, settings and seed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gebm.cluster.randomness import derive_seed
from gebm.sampler import SamplerSettings, draw
from gebm.sampler.chain import run_chain, sample_from
from gebm.sampler.mala import mala
from gebm.sampler.potential import latent_energy
from gebm.sampler.samplers import build_sampler
from gebm.trainer.model import GEBM
from tests.sampler.small_models import small_model


@pytest.fixture(scope="module")
def model() -> GEBM:
    return small_model()


def energy(z: Tensor) -> Tensor:
    return z.square().sum(1) / 2


def test_records_are_taken_at_the_start_every_few_steps_and_at_the_end() -> None:
    algorithm = mala(energy, 0.3)
    generator = torch.Generator().manual_seed(0)
    state = algorithm.init(torch.ones(5, 3), generator)
    result = run_chain(algorithm, state, 25, generator, energy, record_every=10)
    assert result.recorded_steps == (0, 10, 20, 25)
    assert result.energies.shape == (4, 5)
    torch.testing.assert_close(result.energies[0], torch.full((5,), 1.5))
    torch.testing.assert_close(result.energies[-1], energy(result.position))
    assert 0.5 < result.acceptance < 1
    assert result.nonfinite == 0


def test_a_chain_goes_on_from_where_it_was() -> None:
    algorithm = mala(energy, 0.3)

    def run(*parts: int) -> Tensor:
        generator = torch.Generator().manual_seed(1)
        state = algorithm.init(torch.ones(5, 3), generator)
        for steps in parts:
            state = run_chain(algorithm, state, steps, generator, energy).state
        return state.position

    assert torch.equal(run(30), run(7, 0, 23))


def test_the_base_is_the_prior_pushed_through_and_so_is_a_chain_without_steps(model: GEBM) -> None:
    prior = model.sample_prior(6, torch.Generator().manual_seed(2))
    expected = model.generate(prior)
    for settings in (SamplerSettings(name="base", steps=50), SamplerSettings(name="ula", steps=0)):
        samples = sample_from(model, settings, prior, torch.Generator().manual_seed(3))
        assert torch.equal(samples.images, expected)
        assert torch.equal(samples.latents, prior)
        torch.testing.assert_close(samples.energies, model.energy(expected)[None])


def test_drawing_is_a_function_of_the_seed(model: GEBM) -> None:
    first = draw(model, 9, name="kla", step_size=0.2, steps=5, chains=4, seed=7)
    assert first.shape == (9, 1, 8, 8)
    assert torch.equal(first, draw(model, 9, name="kla", step_size=0.2, steps=5, chains=4, seed=7))
    assert not torch.equal(first, draw(model, 9, name="kla", step_size=0.2, steps=5, chains=4, seed=8))
    assert draw(model, 0).shape == (0, 1, 8, 8)


def test_drawing_does_not_touch_the_global_random_state(model: GEBM) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    draw(model, 3, steps=2)
    assert torch.equal(torch.get_rng_state(), before)


def test_model_and_base_start_from_the_same_latents(model: GEBM) -> None:
    prior = model.sample_prior(5, torch.Generator().manual_seed(derive_seed(4, "draw", "prior")))
    torch.testing.assert_close(draw(model, 5, name="base", seed=4), model.generate(prior))
    assert torch.equal(draw(model, 5, name="base", seed=4), draw(model, 5, name="ula", steps=0, seed=4))


def test_chains_come_down_in_energy_and_more_at_a_higher_inverse_temperature(model: GEBM) -> None:
    def mean_energy(**settings) -> float:
        return model.energy(draw(model, 400, step_size=0.05, chains=400, **settings)).mean().item()

    base = mean_energy(name="base")
    assert mean_energy(inverse_temperature=3.0) < mean_energy(inverse_temperature=1.0) < base


def test_a_wrong_override_names_itself(model: GEBM) -> None:
    with pytest.raises(ValueError, match="stepsize"):
        draw(model, 1, stepsize=0.1)
    with pytest.raises(ValueError, match="step_size"):
        draw(model, 1, step_size=-0.1)


def test_acceptance_of_a_ladder_is_that_of_its_coldest_rung(model: GEBM) -> None:
    settings = SamplerSettings(
        name="mala", step_size=0.5, inverse_temperature=4.0, tempering={"hottest": 0.1, "rungs": 3}
    )
    algorithm = build_sampler(model, settings)
    generator = torch.Generator().manual_seed(6)
    state = first = algorithm.init(model.sample_prior(50, generator), generator)
    replay, rungs = generator.get_state(), []
    for _ in range(10):
        state, info = algorithm.step(state, generator)
        rungs.append(info.acceptance.view(3, 50).mean(1))
    generator.set_state(replay)
    result = run_chain(algorithm, first, 10, generator, latent_energy(model))
    cold, _, hot = torch.stack(rungs).mean(0).tolist()
    assert result.acceptance == pytest.approx(cold)
    assert hot > cold + 0.05


def test_the_observer_sees_every_chain_without_gradients(model: GEBM) -> None:
    seen = []

    def observe(latents: Tensor) -> Tensor:
        value = latent_energy(model)(latents)
        seen.append((len(latents), value.requires_grad))
        return value

    algorithm = mala(energy, 0.3)
    generator = torch.Generator().manual_seed(5)
    run_chain(algorithm, algorithm.init(model.sample_prior(4, generator), generator), 3, generator, observe, 2)
    assert seen == [(4, False)] * 3
