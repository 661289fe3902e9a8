"""Dual averaging finds the step size at which the chains accept as often as asked."""

from __future__ import annotations

import math

import pytest
import torch

from gebm.sampler.dual_averaging import begin, reasonable_step_size, tuned_step, update
from gebm.sampler.hmc import hmc
from gebm.sampler.mala import mala
from gebm.sampler.rwmh import rwmh
from tests.sampler.targets import Target, badly_scaled, banana, gaussian, linear_generator

KERNELS = {
    # Kernel, target acceptance, a step size that is about right on the targets.
    "mala": (mala, 0.574, 0.2),
    "hmc": (lambda u, h: hmc(u, h, 5), 0.8, 0.4),
    "rwmh": (rwmh, 0.234, 0.5),
}
TARGETS = {
    "linear generator": linear_generator(),
    "banana": banana(),
    "20 dimensions": gaussian(0.7, 20),
    "badly scaled": badly_scaled((0.3, 1.0, 2.0)),
}


def acceptance(kernel, target: Target, step_size: torch.Tensor) -> float:
    """Of exact draws: mean over 20,000 chains, standard error below 0.003."""
    generator = torch.Generator().manual_seed(9)
    algorithm = kernel(target.potential, step_size)
    state = algorithm.init(target.draw(20_000, generator), generator)
    return algorithm.step(state, generator)[1].acceptance.mean().item()


def tuned(kernel, state, start: torch.Tensor, steps: int, target: float, generator: torch.Generator) -> torch.Tensor:
    """The step size after `steps` transitions."""
    averaging = begin(reasonable_step_size(kernel, state, start, generator))
    for _ in range(steps):
        state, averaging = tuned_step(kernel, state, averaging, target, generator)
    return averaging.log_average.exp()


@pytest.mark.parametrize("wrong", [0.01, 100.0])
@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS.keys())
@pytest.mark.parametrize("name", KERNELS)
def test_acceptance_is_the_target_from_a_step_size_100_times_wrong(name: str, target: Target, wrong: float) -> None:
    """Within 0.025 after 200 steps of 500 chains: a seventh of what twice the step size would change."""
    make, asked, about_right = KERNELS[name]
    generator = torch.Generator().manual_seed(0)
    start = torch.tensor(wrong * about_right)

    def kernel(step_size):
        return make(target.potential, step_size)

    state = kernel(start).init(target.draw(500, generator), generator)
    found = tuned(kernel, state, start, 200, asked, generator)
    assert acceptance(make, target, found) == pytest.approx(asked, abs=0.025)
    for factor in (0.5, 2.0):
        assert abs(acceptance(make, target, factor * found) - asked) > 0.08


def test_every_rung_has_a_step_size_of_its_own() -> None:
    """Three groups of chains on Gaussians of scales 0.1, 1 and 10: steps in the ratio of the squares."""
    scales = torch.tensor([0.1, 1.0, 10.0], dtype=torch.float64)
    rows = scales.repeat_interleave(400)

    def kernel(step_size):
        sizes = step_size.repeat_interleave(400)
        return mala(lambda z: (z / rows[:, None]).square().sum(1) / 2, sizes)

    generator = torch.Generator().manual_seed(1)
    start = torch.full((3,), 0.5, dtype=torch.float64)
    noise = torch.randn(1200, 4, generator=generator, dtype=torch.float64)
    state = kernel(start).init(rows[:, None] * noise, generator)
    found = tuned(kernel, state, start, 150, 0.574, generator)
    assert found.shape == (3,)
    torch.testing.assert_close(found / scales**2, found[1].expand(3), rtol=0.1, atol=0)


def test_the_first_guess_is_where_acceptance_crosses_one_half() -> None:
    target = gaussian(0.7, 3)
    generator = torch.Generator().manual_seed(2)

    def kernel(step_size):
        return mala(target.potential, step_size)

    state = kernel(1.0).init(target.draw(5_000, generator), generator)
    for start in (1e-4, 1e3):
        found = reasonable_step_size(kernel, state, torch.tensor(start), generator)
        before, after = (found / 2, found) if start < 1 else (found, found * 2)
        assert acceptance(mala, target, before) > 0.5 - 0.02
        assert acceptance(mala, target, after) < 0.5 + 0.02


def test_the_update_is_that_of_the_paper() -> None:
    """Two updates of algorithm 5 of Hoffman and Gelman, by hand: gamma 0.05, t0 10, kappa 0.75."""
    first, target, alphas = 0.2, 0.6, (0.9, 0.5)
    mu, error, average = math.log(10 * first), 0.0, 0.0
    state = begin(torch.tensor(first))
    for t, alpha in enumerate(alphas, 1):
        error = (1 - 1 / (t + 10)) * error + (target - alpha) / (t + 10)
        step = mu - math.sqrt(t) / 0.05 * error
        average = t**-0.75 * step + (1 - t**-0.75) * average
        state = update(state, torch.tensor(alpha), target)
        assert state.log_step.item() == pytest.approx(step, rel=1e-6)
        assert state.log_average.item() == pytest.approx(average, rel=1e-6)
