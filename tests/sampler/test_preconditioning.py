"""Rescaled coordinates: the right law, exactly, and on badly scaled targets more independent samples for the work."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from gebm.sampler.algorithm import Algorithm
from gebm.sampler.hmc import hmc
from gebm.sampler.kla import kla
from gebm.sampler.mala import mala
from gebm.sampler.preconditioning import rescaled, scale_of, spread_of
from gebm.sampler.rwmh import rwmh
from gebm.sampler.ula import ula
from tests.sampler.targets import Target, badly_scaled, banana, gaussian, linear_generator, normal, p_value, two_modes

LEVEL = 1e-4
CHAINS = 30_000

TARGETS = {
    # With scales that suit none of them: exactness does not depend on what the scales are.
    "linear generator": (linear_generator(), (1.3, 0.5, 0.8)),
    "two modes": (two_modes(), (1.6, 0.6)),
    "banana": (banana(), (0.6, 1.2)),
}
KERNELS = {
    "mala": lambda u: mala(u, 0.25),
    "hmc": lambda u: hmc(u, 0.5, 3),
    "rwmh": lambda u: rwmh(u, 0.3),
}


def on_scaled(make, target: Target, scale: tuple[float, ...]) -> Algorithm:
    s = torch.tensor(scale, dtype=torch.float64)
    return rescaled(make(lambda y: target.potential(s * y)), s)


def run(algorithm: Algorithm, target: Target, steps: int = 15) -> tuple[Tensor, float]:
    """Where exact draws are after some steps, and the share of proposals that was accepted."""
    generator = torch.Generator().manual_seed(0)
    state = algorithm.init(target.draw(CHAINS, generator), generator)
    accepted = 0.0
    for _ in range(steps):
        state, info = algorithm.step(state, generator)
        accepted += info.accepted.double().mean().item() / steps
    return state.position, accepted


@pytest.mark.parametrize(("target", "scale"), TARGETS.values(), ids=TARGETS.keys())
@pytest.mark.parametrize("make", KERNELS.values(), ids=KERNELS.keys())
def test_an_exact_kernel_stays_exact_in_rescaled_coordinates(make, target: Target, scale: tuple[float, ...]) -> None:
    """False-alarm rate 1e-4 for each of the 9 pairs."""
    position, accepted = run(on_scaled(make, target, scale), target)
    assert 0.1 < accepted < 0.99
    assert p_value(target, position) > LEVEL


@pytest.mark.parametrize("make", KERNELS.values(), ids=KERNELS.keys())
def test_the_check_rejects_a_scale_that_the_potential_does_not_know(make) -> None:
    """The planted error: chains of `z` under `U(z)` reported as `s z`."""
    target, scale = TARGETS["linear generator"]
    planted = rescaled(make(target.potential), torch.tensor(scale, dtype=torch.float64))
    assert p_value(target, run(planted, target, steps=40)[0]) < LEVEL


def test_a_step_of_rescaled_ula_is_that_of_the_formula() -> None:
    """`z' = z - h s² ∇U(z) + sqrt(2h) s xi`."""
    target, s, h = banana(), torch.tensor([0.4, 1.7], dtype=torch.float64), 0.1
    generator = torch.Generator().manual_seed(1)
    algorithm = on_scaled(lambda u: ula(u, h), target, tuple(s.tolist()))
    state = algorithm.init(target.draw(50, generator), generator)
    replay = generator.get_state()
    moved, _ = algorithm.step(state, generator)
    generator.set_state(replay)
    noise = normal(50, 2, generator)
    leaf = state.position.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(target.potential(leaf).sum(), leaf)
    torch.testing.assert_close(moved.position, state.position - h * s**2 * gradient + math.sqrt(2 * h) * s * noise)


def test_rescaled_kla_has_no_bias_in_position_on_a_badly_scaled_gaussian() -> None:
    """At a step that unscaled would be unstable in the narrow coordinate. False-alarm rate 1e-4."""
    target, scales = badly_scaled((0.1, 1.0, 4.0)), (0.1, 1.0, 4.0)
    position, _ = run(on_scaled(lambda u: kla(u, 0.9, 1.0), target, scales), target, steps=30)
    assert p_value(target, position) > LEVEL


def effective_share(a: float, steps: int) -> float:
    """Effective samples per step, of the mean of `steps` values of a stationary AR(1) with coefficient `a`."""
    return 1 / ((1 + a) / (1 - a) - 2 * a * (1 - a**steps) / (steps * (1 - a) ** 2))


def test_preconditioning_raises_the_effective_sample_size_by_what_theory_says() -> None:
    """On `N(0, diag(0.2, 1)²)`, each ULA at a quarter of the step at which its stiffest coordinate overshoots.

    ULA on a Gaussian is an AR(1) with coefficient `1 - h/s²`, so the effective sample size of the mean of the wide
    coordinate is known, and with it the gain, a factor of about 22. Measured from the spread of 4,000 chains' means:
    each variance is within 10% of its expectation, 4.4 standard errors (false-alarm rate 2e-5).
    """
    scales, steps, chains, share = (0.2, 1.0), 1500, 4000, 0.25
    target = badly_scaled(scales)
    runs = {
        "plain": (ula(target.potential, share * 0.2**2), share * 0.2**2),
        "scaled": (on_scaled(lambda u: ula(u, share), target, scales), share),
    }
    measured, expected = {}, {}
    for name, (algorithm, h) in runs.items():
        generator = torch.Generator().manual_seed(2)
        stationary = 1 / (1 - h / 2)  # of the wide coordinate
        start = target.draw(chains, generator)
        start[:, 1] *= math.sqrt(stationary)
        state = algorithm.init(start, generator)
        total = torch.zeros(chains, dtype=torch.float64)
        for _ in range(steps):
            state, _ = algorithm.step(state, generator)
            total += state.position[:, 1]
        measured[name] = stationary / ((total / steps).var().item() * steps)
        expected[name] = effective_share(1 - h, steps)
        assert measured[name] == pytest.approx(expected[name], rel=0.1)
    gain = expected["scaled"] / expected["plain"]
    assert 20 < gain < 30
    assert measured["scaled"] / measured["plain"] == pytest.approx(gain, rel=0.15)


def test_the_measured_scales_are_standard_deviations() -> None:
    """Pooled over batches whatever their mean; 3% is 4.2 standard errors of 10,000 latents."""
    scales = torch.tensor([0.1, 1.0, 4.0], dtype=torch.float64)
    generator = torch.Generator().manual_seed(3)
    spread = None
    for _ in range(10):
        spread = spread_of(5 + scales * normal(1000, 3, generator), spread)
    assert spread is not None
    np.testing.assert_allclose(scale_of(spread), scales, rtol=0.03)


def test_few_latents_leave_the_scale_near_that_of_the_prior() -> None:
    """One chain that has not moved tells nothing: a scale of 0 would hold it there for ever."""
    assert (scale_of(spread_of(torch.zeros(1, 2))) > 0.9).all()
    still = spread_of(torch.zeros(50, 2))
    assert ((scale_of(still) > 0.2) & (scale_of(still) < 1)).all()


def test_a_gaussian_whose_scales_are_given_looks_like_a_round_one() -> None:
    """The same chains, up to the scale, as on `N(0, I)`: to the last bits."""
    scales = (0.1, 1.0, 4.0)
    generator = torch.Generator().manual_seed(4)
    start = normal(100, 3, generator)
    positions = []
    for algorithm, first in (
        (on_scaled(lambda u: mala(u, 0.7), badly_scaled(scales), scales), torch.tensor(scales) * start),
        (mala(gaussian(1.0, 3).potential, 0.7), start),
    ):
        generator = torch.Generator().manual_seed(5)
        state = algorithm.init(first, generator)
        for _ in range(10):
            state, _ = algorithm.step(state, generator)
        positions.append(state.position)
    torch.testing.assert_close(positions[0], torch.tensor(scales, dtype=torch.float64) * positions[1])
