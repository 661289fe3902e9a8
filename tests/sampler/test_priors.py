"""On priors with edges chains have the right law, and none leaves the support.

With an energy `½ k z²` the posterior of every coordinate is a truncated normal law, whatever the prior.
"""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats
from torch import Tensor

from gebm.sampler import SamplerSettings, draw
from gebm.sampler.chain import sample_from
from gebm.sampler.hmc import hmc
from gebm.sampler.mala import mala
from gebm.sampler.potential import latent_potential
from gebm.sampler.rwmh import rwmh
from gebm.sampler.samplers import build_sampler
from gebm.trainer.model import GEBM, PriorSettings
from gebm.trainer.model.prior import log_density
from tests.sampler.small_models import quadratic_model
from tests.sampler.targets import Target, p_value

LEVEL = 1e-4
STIFFNESS = (1.5, 6.0)

PRIORS = {
    "uniform": PriorSettings(kind="uniform", low=-0.8, high=1.2),
    "truncated normal": PriorSettings(kind="truncated_normal", low=-1.5, high=0.7),
}


def posterior(prior: PriorSettings) -> Target:
    """Independent `N(0, 1/precision)` between the bounds; the precision is the stiffness, plus 1 of a normal prior."""
    low, high = prior.bounds
    scales = [1 / math.sqrt(k + (prior.kind != "uniform")) for k in STIFFNESS]
    laws = [stats.truncnorm(low / s, high / s, scale=s) for s in scales]

    def exact(count: int, generator: torch.Generator) -> Tensor:
        uniform = torch.rand(count, 2, generator=generator, dtype=torch.float64)
        return torch.stack([torch.from_numpy(law.ppf(u)) for law, u in zip(laws, uniform.T, strict=True)], dim=1)

    def potential(z: Tensor) -> Tensor:
        return (torch.tensor(STIFFNESS) * z.square()).sum(1) / 2 - log_density(prior, z)

    return Target(
        potential=potential,
        draw=exact,
        coordinates=lambda z: z,
        cdfs=tuple(law.cdf for law in laws),
        means=tuple(float(law.mean()) for law in laws),
        variances=tuple(float(law.var()) for law in laws),
    )


def inside(prior: PriorSettings, latents: Tensor) -> bool:
    low, high = prior.bounds
    return bool(((latents >= low) & (latents <= high)).all())


@pytest.mark.parametrize("prior", PRIORS.values(), ids=PRIORS.keys())
@pytest.mark.parametrize(
    "make",
    [lambda u: mala(u, 0.08), lambda u: hmc(u, 0.3, 3), lambda u: rwmh(u, 0.08)],
    ids=["mala", "hmc", "rwmh"],
)
def test_an_exact_kernel_before_walls_keeps_the_law_inside(make, prior: PriorSettings) -> None:
    """The potential is infinite outside; proposals there are rejected, counted, and nothing else changes."""
    target = posterior(prior)
    generator = torch.Generator().manual_seed(0)
    algorithm = make(target.potential)
    state = algorithm.init(target.draw(30_000, generator), generator)
    outside = 0
    for _ in range(15):
        state, info = algorithm.step(state, generator)
        outside += int(info.nonfinite.sum())
    assert outside > 10_000
    assert inside(prior, state.position)
    assert p_value(target, state.position) > LEVEL


def test_the_check_rejects_chains_that_turn_back_at_the_wall_by_being_pushed_inside() -> None:
    """The planted error: what leaves the support is moved to its edge."""
    prior = PRIORS["uniform"]
    target, (low, high) = posterior(prior), prior.bounds
    free = mala(lambda z: (torch.tensor(STIFFNESS) * z.square()).sum(1) / 2, 0.08)
    generator = torch.Generator().manual_seed(0)
    state = free.init(target.draw(30_000, generator), generator)
    for _ in range(15):
        state, _ = free.step(state, generator)
        state = free.init(state.position.clamp(low, high), generator)
    assert p_value(target, state.position) < LEVEL


EXACT = {
    "mala": SamplerSettings(name="mala", step_size=0.25, steps=60),
    "hmc": SamplerSettings(name="hmc", step_size=0.5, leapfrog_steps=3, steps=25),
    "rwmh": SamplerSettings(name="rwmh", step_size=0.3, steps=120),
    "imh": SamplerSettings(name="imh", steps=100),
    "tuned, preconditioned mala": SamplerSettings(
        name="mala", steps=60, warmup=60, target_acceptance=0.6, precondition=True
    ),
    "tempered mala": SamplerSettings(name="mala", step_size=0.25, steps=60, tempering={"hottest": 0.2, "rungs": 2}),
}


@pytest.mark.parametrize("prior", PRIORS.values(), ids=PRIORS.keys())
@pytest.mark.parametrize("settings", EXACT.values(), ids=EXACT.keys())
def test_chains_of_a_model_come_from_its_prior_to_its_posterior(
    settings: SamplerSettings, prior: PriorSettings
) -> None:
    """False-alarm rate 1e-4 for each of twelve; no proposal is lost at an edge."""
    model = quadratic_model(STIFFNESS, prior)
    generator = torch.Generator().manual_seed(1)
    samples = sample_from(model, settings, model.sample_prior(8_000, generator), generator)
    assert samples.nonfinite == 0
    assert inside(prior, samples.latents)
    assert p_value(posterior(prior), samples.latents.double()) > LEVEL
    torch.testing.assert_close(samples.images, 2 * samples.latents)


@pytest.mark.parametrize("prior", PRIORS.values(), ids=PRIORS.keys())
def test_resampling_agrees(prior: PriorSettings) -> None:
    model = quadratic_model(STIFFNESS, prior)
    points = draw(model, 4_000, name="sir", draws_per_sample=200, chains=4_000, seed=2)
    assert p_value(posterior(prior), points.double() / 2) > LEVEL


@pytest.mark.parametrize("prior", PRIORS.values(), ids=PRIORS.keys())
@pytest.mark.parametrize(
    "settings",
    [
        SamplerSettings(name="ula", step_size=0.01, steps=300),
        SamplerSettings(name="kla", step_size=0.15, steps=60),
    ],
    ids=lambda settings: settings.name,
)
def test_kernels_without_acceptance_step_come_close_and_stay_inside(
    settings: SamplerSettings, prior: PriorSettings
) -> None:
    """Mean and variance within 2% of the spread and four standard errors: the bias of small steps."""
    model, target = quadratic_model(STIFFNESS, prior), posterior(prior)
    generator = torch.Generator().manual_seed(3)
    samples = sample_from(model, settings, model.sample_prior(8_000, generator), generator)
    assert samples.nonfinite == 0
    assert inside(prior, samples.latents)
    for column, mean, variance in zip(samples.latents.double().T, target.means, target.variances, strict=True):
        error = 4 / math.sqrt(len(column)) + 0.02
        assert abs(float(column.mean()) - mean) < error * math.sqrt(variance)
        assert abs(float(column.var()) - variance) < 1.5 * error * variance
    # Chains that start and end inside are no chains that did nothing.
    assert (samples.latents - model.sample_prior(8_000, torch.Generator().manual_seed(3))).abs().mean() > 0.2


@pytest.mark.parametrize("prior", PRIORS.values(), ids=PRIORS.keys())
def test_chains_begin_at_the_latents_that_they_are_given(prior: PriorSettings) -> None:
    """As the base's samples do: image i of base and model come from one latent."""
    model = quadratic_model(STIFFNESS, prior)
    latents = model.sample_prior(500, torch.Generator().manual_seed(6))
    still = sample_from(model, SamplerSettings(name="ula", steps=0), latents, torch.Generator())
    base = sample_from(model, SamplerSettings(name="base"), latents, torch.Generator())
    torch.testing.assert_close(still.latents, latents, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(still.images, base.images, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(still.energies[0], base.energies[0], rtol=1e-4, atol=1e-4)


def test_descent_by_transport_stays_inside_and_goes_down() -> None:
    """In normal coordinates too. The first step is all descent: nothing holds it at its anchor yet."""
    prior = PRIORS["uniform"]
    model = quadratic_model(STIFFNESS, prior)
    generator = torch.Generator().manual_seed(4)
    start = model.sample_prior(200, generator)
    for steps in (1, 200):
        samples = sample_from(model, SamplerSettings(name="dot", step_size=0.02, steps=steps), start, generator)
        assert inside(prior, samples.latents)
        if steps == 1:
            assert (samples.energies[-1] <= samples.energies[0] + 1e-5).all()
            assert samples.energies[-1].mean() < samples.energies[0].mean()


@pytest.mark.parametrize("name", ["ula", "ddls", "kla", "dot"])
def test_a_kernel_that_could_leave_the_support_is_refused(name: str) -> None:
    model = quadratic_model(STIFFNESS, PRIORS["uniform"])
    with pytest.raises(ValueError, match=f"{name} has no acceptance step.*in_normal_coordinates"):
        build_sampler(model, SamplerSettings(name=name))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_on_latents_as_they_are_the_potential_is_infinite_outside(precision: str) -> None:
    model: GEBM = quadratic_model(STIFFNESS, PRIORS["uniform"])
    latents = torch.tensor([[0.1, 0.2], [1.3, 0.0], [0.0, -0.9]])
    assert latent_potential(model)(latents).isfinite().tolist() == [True, False, False]
    algorithm = build_sampler(model, SamplerSettings(name="mala", step_size=0.2, precision=precision))
    generator = torch.Generator().manual_seed(5)
    state = algorithm.init(model.sample_prior(500, generator), generator)
    for _ in range(20):
        state, _ = algorithm.step(state, generator)
    assert inside(model.prior, state.position)
