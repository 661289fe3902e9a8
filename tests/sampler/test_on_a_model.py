"""The kernels on a small neural model: right answers, frozen networks, one gradient evaluation a step."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from gebm.sampler.algorithm import Algorithm
from gebm.sampler.chain import run_chain
from gebm.sampler.hmc import hmc
from gebm.sampler.kla import kla
from gebm.sampler.mala import mala
from gebm.sampler.potential import latent_energy, latent_potential
from gebm.sampler.samplers import SAMPLERS, build_sampler
from gebm.sampler.settings import SAMPLER_NAMES, SamplerSettings
from gebm.sampler.ula import ula
from gebm.trainer.model import GEBM, build_model
from tests.sampler.small_models import SETTINGS, SHAPE, small_model

BETA = 1.5


@pytest.fixture(scope="module")
def model() -> GEBM:
    return small_model()


def observables(model: GEBM, latents: Tensor) -> Tensor:
    """`(n, 9)`: the energy, the latents and their squares."""
    with torch.no_grad():
        energy = model.energy(model.generate(latents))
    return torch.cat([energy[:, None], latents, latents.square()], dim=1).double()


@pytest.fixture(scope="module")
def expected(model: GEBM) -> tuple[Tensor, Tensor]:
    """Expectations of the observables under `nu` by self-normalised importance weights, and standard errors.

    `w ∝ exp(-beta E(B(z)))`, `z ~ eta`.
    """
    values = observables(model, model.sample_prior(60_000, torch.Generator().manual_seed(1)))
    weights = torch.softmax(-BETA * values[:, 0], dim=0)[:, None]
    mean = (weights * values).sum(0)
    error = (weights.square() * (values - mean).square()).sum(0).sqrt()
    effective = 1 / weights.square().sum().item()
    assert effective > 3_000  # else the weights say nothing
    prior = values.mean(0)
    assert abs(prior[0] - mean[0]) > 40 * error[0]  # and the target is far from where the chains start
    return mean, error


EXACT = {
    "mala": SamplerSettings(name="mala", step_size=0.15, steps=60),
    "hmc": SamplerSettings(name="hmc", step_size=0.35, leapfrog_steps=3, steps=25),
    "rwmh": SamplerSettings(name="rwmh", step_size=0.25, steps=150),
    "imh": SamplerSettings(name="imh", steps=120),
}


@pytest.mark.parametrize("settings", EXACT.values(), ids=EXACT.keys())
def test_an_exact_kernel_agrees_with_importance_weights(
    model: GEBM, expected: tuple[Tensor, Tensor], settings: SamplerSettings
) -> None:
    """Nine observables within 4.5 standard errors: false-alarm rate below 1e-4 for each kernel."""
    algorithm = build_sampler(model, settings.model_copy(update={"inverse_temperature": BETA}))
    generator = torch.Generator().manual_seed(3)
    state = algorithm.init(model.sample_prior(2_000, generator), generator)
    result = run_chain(algorithm, state, settings.steps, generator, latent_energy(model), settings.steps)
    values = observables(model, result.position)
    mean, error = expected
    deviation = (values.mean(0) - mean) / torch.hypot(values.std(0) / math.sqrt(len(values)), error)
    assert deviation.abs().max() < 4.5
    assert 0.1 < result.acceptance < 0.99


@pytest.mark.parametrize("name", ["ula", "kla"])
def test_an_unadjusted_kernel_comes_close_to_importance_weights(
    model: GEBM, expected: tuple[Tensor, Tensor], name: str
) -> None:
    """Mean energy within a tenth of its way from the prior: the bias of small steps and four standard errors."""
    step_size, steps = {"ula": (0.02, 150), "kla": (0.2, 60)}[name]
    settings = SamplerSettings(name=name, inverse_temperature=BETA, step_size=step_size, steps=steps)
    algorithm = build_sampler(model, settings)
    generator = torch.Generator().manual_seed(4)
    state = algorithm.init(model.sample_prior(1_000, generator), generator)
    result = run_chain(algorithm, state, steps, generator, latent_energy(model), steps)
    start, end = result.energies[0].mean().item(), result.energies[-1].mean().item()
    way = expected[0][0].item() - start
    tolerance = 4 * result.energies[-1].std().item() / math.sqrt(1_000)
    assert abs(end - start - way) < 0.1 * abs(way) + tolerance


def counting(model: GEBM) -> tuple[Callable[[Tensor], Tensor], list[int]]:
    """The potential, and a list that gets the number of chains of every evaluation."""
    potential, calls = latent_potential(model), []

    def counted(latents: Tensor) -> Tensor:
        calls.append(len(latents))
        return potential(latents)

    return counted, calls


@pytest.mark.parametrize(
    ("make", "evaluations"),
    [
        (lambda u: ula(u, 0.1), 11),
        (lambda u: mala(u, 0.1), 11),
        (lambda u: hmc(u, 0.2, 3), 31),
        (lambda u: kla(u, 0.2, 1.0), 10),
    ],
    ids=["ula", "mala", "hmc", "kla"],
)
def test_ten_steps_take_one_gradient_each_and_one_at_the_start(
    model: GEBM, make: Callable[..., Algorithm], evaluations: int
) -> None:
    """HMC with three leapfrog steps: three each. KLA needs none at its start."""
    potential, calls = counting(model)
    algorithm = make(potential)
    generator = torch.Generator().manual_seed(5)
    state = algorithm.init(model.sample_prior(8, generator), generator)
    for _ in range(10):
        state, _ = algorithm.step(state, generator)
    assert calls == [8] * evaluations


def test_the_kept_potential_and_gradient_are_those_of_the_position(model: GEBM) -> None:
    """Also after rejections: at a step of 3 about half of the proposals are rejected."""
    potential = latent_potential(model, BETA)
    for algorithm in (mala(potential, 0.6), hmc(potential, 1.2, 2)):
        generator = torch.Generator().manual_seed(6)
        state = algorithm.init(model.sample_prior(200, generator), generator)
        rejected = 0
        for _ in range(5):
            state, info = algorithm.step(state, generator)
            rejected += int((~info.accepted).sum())
        assert rejected > 100
        fresh = algorithm.init(state.position, generator)
        torch.testing.assert_close(state.potential, fresh.potential)
        torch.testing.assert_close(state.gradient, fresh.gradient)


@pytest.mark.parametrize("name", SAMPLERS)
def test_chains_do_not_touch_the_weights(name: str) -> None:
    model = small_model()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    algorithm = build_sampler(model, SamplerSettings(name=name))
    generator = torch.Generator().manual_seed(7)
    state = algorithm.init(model.sample_prior(5, generator), generator)
    for _ in range(3):
        state, _ = algorithm.step(state, generator)
    assert all(parameter.grad is None for parameter in model.parameters())
    torch.testing.assert_close(dict(model.state_dict()), before, rtol=0, atol=0, equal_nan=True)
    assert not state.position.requires_grad


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_step_leaves_the_state_that_it_was_given(model: GEBM, name: str) -> None:
    algorithm = build_sampler(model, SamplerSettings(name=name, step_size=0.1))
    generator = torch.Generator().manual_seed(8)
    state = algorithm.init(model.sample_prior(5, generator), generator)
    copies = [tensor.clone() for tensor in state]
    algorithm.step(state, generator)
    assert all(torch.equal(tensor, copy) for tensor, copy in zip(state, copies, strict=True))


def test_a_model_that_is_not_frozen_is_refused() -> None:
    model = build_model(SETTINGS, SHAPE, seed=0)
    with pytest.raises(ValueError, match="training mode"):
        latent_potential(model)
    with pytest.raises(ValueError, match=r"base\.project\.weight asks for a gradient"):
        latent_potential(model.eval())


def test_the_potential_is_that_of_the_tempered_posterior(model: GEBM) -> None:
    latents = model.sample_prior(6, torch.Generator().manual_seed(9))
    law = torch.distributions.Normal(0.0, 1.0)
    expected = 2.5 * model.energy(model.generate(latents)) - law.log_prob(latents).sum(1)
    torch.testing.assert_close(latent_potential(model, 2.5)(latents), expected)


def test_the_table_and_the_settings_name_the_same_samplers() -> None:
    assert set(SAMPLERS) | {"base", "sir"} == set(SAMPLER_NAMES)
    for name in ("base", "sir"):
        with pytest.raises(ValueError, match="no transition kernel"):
            build_sampler(small_model(), SamplerSettings(name=name))
